"""Generators as map-style datasets of any length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ...samples import SampleSource, SampleSpec, Traits
from ...streams import stream_seed
from ..contract.batches import ReadAtOnce, on_each_device, row_numbers
from ..shared import InEpochs, Kept
from .labels import LabelPolicy, synthetic_counts
from .orders import Shuffled, is_long


def default_chunk(spec: SampleSpec) -> int:
    """Number of samples drawn at a time: 1024, or as many images as fit in 64 MiB."""
    return max(1, min(1024, (64 << 20) // (4 * prod(spec.image_shape))))


def require_drawable(generator: object) -> None:
    """Refuse a generator on a GPU in a data-loader worker, where CUDA would fail in the middle of an epoch."""
    if get_worker_info() is not None and Traits.of(generator).device.type != 'cpu':
        raise RuntimeError(
            'a generator on a GPU cannot run in data-loader workers; move it to the CPU, use num_workers=0, or sample '
            'a bank beforehand'
        )


def draw_samples(source: SampleSource, n: int, labels: Tensor | None, seed: int) -> dict[str, Tensor]:
    """A batch of ``n`` samples of any source, without gradients.

    Raises:
        TypeError: if it does not return a dictionary of tensors.
        ValueError: if it returns another number of samples.
    """
    require_drawable(source)
    batch, who = source.sample(n, labels, seed=seed), type(source).__name__
    if not isinstance(batch, Mapping) or not all(isinstance(value, Tensor) for value in batch.values()):
        found = {k: type(v).__name__ for k, v in batch.items()} if isinstance(batch, Mapping) else type(batch).__name__
        raise TypeError(f'{who}.sample: a dictionary of tensors is expected (the sample contract), found {found}')
    if wrong := {key: tuple(value.shape) for key, value in batch.items() if value.shape[:1] != (n,)}:
        raise ValueError(f'{who}.sample: {n} samples were asked for, found {wrong}')
    return {key: value.detach() for key, value in batch.items()}


def gather_chunks(
    rows: np.ndarray,
    chunk: int,
    kept: Kept[tuple[int, int], dict[str, Tensor]],
    epoch: int,
    draw: Callable[[int, int], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Rows of an epoch out of aligned chunks, in the order asked for; chunks that are not kept are drawn."""

    def taken(number: int, places: np.ndarray) -> dict[str, Tensor]:
        batch = kept.get_or_make((epoch, number), lambda: draw(epoch, number))
        return take_rows(batch, torch.from_numpy(places))

    numbers, within = np.divmod(rows, chunk)
    if (numbers == numbers[0]).all():
        return taken(int(numbers[0]), within)
    order = np.argsort(numbers, kind='stable')
    parts = [taken(number, within[order[numbers[order] == number]]) for number in np.unique(numbers).tolist()]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return take_rows(joined, torch.from_numpy(np.argsort(order)))


def take_rows(columns: Mapping[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    """The rows of columns at ``places`` (n,), which are on the CPU and moved once to where the columns are."""
    there = on_each_device(places, columns.values())
    return {name: value[there[value.device]] for name, value in columns.items()}


class SyntheticDataset(InEpochs, ReadAtOnce):
    """Samples of a generator.

    A sample depends only on (seed, epoch, index), not on workers, ranks or the order of calls. Samples are drawn in
    fixed, aligned chunks, so that they are bit for bit the same however a loader batches them.

    Args:
        generator: a generator, or anything with ``sample`` and a spec.
        length: number of samples in an epoch.
        seed: seed of labels and noise.
        labels: class frequencies of the samples, in exact counts (:data:`~hsiaug.datasets.LabelPolicy`).
        real_counts: (K,) real samples per class; if None, the generator's training frequencies.
        prior: (K,) class prior for ``labels='prior'``.
        chunk: number of samples drawn at once; if None, 1024 spectra, or as many images as fit in 64 MiB.
        cache_chunks: number of chunks kept in memory per process; if None, 256, or 32 if there are so many samples that
            a batch in random order would not find its samples among 256.

    Raises:
        TypeError: for what cannot be drawn from.
        ValueError: if the length is negative or the label policy lacks an argument.
    """

    def __init__(
        self,
        generator: SampleSource,
        length: int,
        seed: int = 0,
        labels: LabelPolicy = 'real',
        real_counts: np.ndarray | None = None,
        prior: np.ndarray | None = None,
        chunk: int | None = None,
        cache_chunks: int | None = None,
    ) -> None:
        super().__init__()
        if not hasattr(generator, 'sample'):
            raise TypeError(
                f'SyntheticDataset: a generator expected, found {type(generator).__name__}; a bank or another dataset '
                'is a source of synthetic samples as it is'
            )
        chunk = default_chunk(generator.spec) if chunk is None else chunk
        if length < 0 or chunk < 1:
            raise ValueError(f'SyntheticDataset: length >= 0 and chunk >= 1 expected, found {length} and {chunk}')
        self.generator, self.length, self.seed, self.chunk = generator, length, seed, chunk
        self.spec, self.provenance = generator.spec, generator.provenance
        traits = Traits.of(generator)
        self.soft_labels = traits.soft_labels
        real_counts = traits.frequencies if real_counts is None else real_counts
        self.counts = synthetic_counts(labels, length, self.spec.classes, real_counts, prior, traits.left_out)
        few = 32 if is_long(length) else 256
        self._chunks: Kept[tuple[int, int], dict[str, Tensor]] = Kept(few if cache_chunks is None else cache_chunks)
        self._drawn: tuple[int, Shuffled] | None = None

    def __len__(self) -> int:
        return self.length

    def labels(self) -> Tensor:
        """(length,) int64 labels of the current epoch."""
        return self._labels(self.epoch, np.arange(self.length))

    def _labels(self, epoch: int, rows: np.ndarray) -> Tensor:
        """Labels of some samples: exact class counts in random order."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = (epoch, Shuffled(self.length, np.random.default_rng(stream_seed(self.seed, epoch))))
        ends = np.cumsum(self.counts)
        return torch.from_numpy(np.searchsorted(ends, self._drawn[1][rows], side='right'))

    def _draw_chunk(self, epoch: int, number: int) -> dict[str, Tensor]:
        end = min((number + 1) * self.chunk, self.length)
        labels = self._labels(epoch, np.arange(number * self.chunk, end))
        batch = draw_samples(self.generator, len(labels), labels, stream_seed(self.seed, epoch, number + 1))
        return {name: value.cpu() for name, value in batch.items()}

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Samples at several indices, stacked: ``image`` (n, ...), ``label`` (n,), ...

        Raises:
            IndexError: if an index is out of range.
        """
        rows, epoch = row_numbers(indices, self.length, 'SyntheticDataset'), self.epoch
        if rows.size == 0:
            return self.generator.sample(0)
        return gather_chunks(rows, self.chunk, self._chunks, epoch, self._draw_chunk)
