"""Real and synthetic samples in one dataset, at a ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchgeo.datasets import NonGeoDataset

from ..ratio import Constant, Mode, Schedule, as_schedule, require_mode, synthetic_count
from ..samples import Sample, SampleSource
from .batches import (
    append_rows,
    complete,
    complete_samples,
    fetch,
    fetch_samples,
    reads_whole,
    require_same_form,
    stack,
    text_keys,
    unstack,
)
from .checks import LOOKED_AT, ClassNumbers, Scales, require_mixable, some_samples, warn_of_doubtful_labels
from .labels import LabelPolicy
from .leakage import require_unseen_samples
from .lengths import KnownLength
from .pool import Source, SyntheticPool
from .shared import SharedInt
from .synthetic import SyntheticDataset, stream_seed
from .wrapped import counts_of, epoch_followers, labels_of, require_map_style, spec_of

_POSITIONS = -1  # a stream beside those of the synthetic samples' chunks, which count from 0


class EpochIndices(list[int]):
    """Indices of one batch that say which epoch they belong to, so that an iteration keeps its own composition."""

    def __init__(self, indices: Iterable[int], epoch: int) -> None:
        super().__init__(indices)
        self.epoch = epoch

    def __reduce__(self) -> tuple[Any, ...]:
        return EpochIndices, (list(self), self.epoch)


class MixedDataset(NonGeoDataset):
    """A real dataset with ``ratio`` synthetic samples per real sample.

    *append*: all real samples, then round(ratio·N) synthetic ones; shuffle in the loader. *replace*: N samples, of
    which ⌊N·ratio/(1+ratio)⌋ are synthetic, at places that change with the epoch. Ratio 0 is the real dataset, sample
    for sample. Every sample carries ``synthetic`` (bool); where synthetic samples have soft labels, real ones carry a
    one-hot ``label_prob`` beside them. Text of real samples (a file name) is empty in synthetic ones; what is neither
    text nor array is left out, since a synthetic sample has no such thing.

    What the two sides say of themselves is compared, through ``Subset`` and other wrappers too: specs, or the
    ``classes`` of torchgeo's datasets, and the split. Some real samples are read to see whether their labels are
    classes of the source and their values of the same order of magnitude; labels are checked in every batch.

    Args:
        real: any map-style dataset in the sample contract.
        synthetic: a generator (drawn live), a :class:`SyntheticDataset`, a bank, or any dataset in the sample contract.
        ratio: synthetic samples per real sample, >= 0, or a schedule over epochs. In append mode a schedule changes
            the length of the dataset from epoch to epoch; a sampler or a wrapper made once, for the length of then,
            gets an error.
        seed: seed of every draw.
        mode: ``'append'`` or ``'replace'``.
        labels: classes of the synthetic samples; None is the real frequencies for a generator, and everything as it
            comes for a dataset.
        prior: (K,) class prior for ``labels='prior'``.
        replacement: draw a synthetic dataset's samples again where it holds fewer than the ratio asks for.
        weight: loss weight of synthetic samples, carried as ``weight``, 1 for real ones; None for no such key.
        transforms: function of a sample, real or synthetic, as in torchgeo. A real dataset's own ``transforms`` run
            on its samples only.
        different_scales: the values of the two sides are meant to differ by orders of magnitude, which is an error
            otherwise.
        evaluation: real samples that the model will be tested on, a dataset or several: a source whose generator has
            seen any of them is refused, see :func:`~hsiaug.datasets.require_unseen_samples`.

    Raises:
        TypeError: if a dataset cannot be asked for samples by number, or these are not in the sample contract.
        ValueError: if the ratio is negative or not finite, or the synthetic dataset holds too few samples.
        SpecMismatchError: if the two sides do not fit together, or a label is neither a class nor the ignore index.
        LeakageError: if the generator has seen test pixels of the real dataset's split, or evaluation samples.
    """

    def __init__(
        self,
        real: Dataset[Sample],
        synthetic: Source,
        ratio: float | Schedule = 0.5,
        seed: int = 0,
        mode: Mode = 'append',
        labels: LabelPolicy | None = None,
        prior: np.ndarray | None = None,
        replacement: bool = False,
        weight: float | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
        different_scales: bool = False,
        evaluation: Dataset[Sample] | Sequence[Dataset[Sample]] = (),
    ) -> None:
        self.schedule, self.mode = as_schedule(ratio), require_mode(mode, 'MixedDataset')
        require_map_style(real, 'MixedDataset')
        self.real, self.num_real = real, len(cast(Any, real))
        self.seed, self.labels, self.prior, self.weight, self.transforms = seed, labels, prior, weight, transforms
        self._epoch = SharedInt(0)
        self._known: KnownLength | None = None
        if self.mode == 'append' and not isinstance(self.schedule, Constant):
            self._known = KnownLength('MixedDataset', self.schedule, self.length(0))
        self._orders: dict[int, tuple[Dataset[Sample], np.ndarray]] = {}
        self.real_counts = counts_of(real)
        self._numbers, self._scales = ClassNumbers(), Scales(different_scales)
        self._texts: tuple[str, ...] = ()
        self._followers: tuple[Any, ...] = ()
        self.num_soft_classes: int | None = None
        self.pool: SyntheticPool | None = None
        self.generator: SampleSource | None = None
        if isinstance(synthetic, Dataset) and self.num_synthetic == 0 and len(cast(Any, synthetic)) == 0:
            self.spec = spec_of(real)
            return
        self.pool = SyntheticPool(
            synthetic, seed, labels, self.real_counts, prior, self.num_synthetic or None, replacement
        )
        self.generator = None if isinstance(synthetic, Dataset) else synthetic
        self._followers = epoch_followers(synthetic) if isinstance(synthetic, Dataset) else ()
        self._check(self.pool)
        for tested in evaluation if isinstance(evaluation, list | tuple) else (evaluation,):
            require_unseen_samples(synthetic, tested)

    def _check(self, pool: SyntheticPool) -> None:
        self.spec = require_mixable(self.real, pool)
        self.num_soft_classes = pool.num_soft_classes
        if self.num_real and self._mixes:
            self._numbers = ClassNumbers.of(self.spec, pool)
            first = fetch(self.real, np.zeros(1, np.int64))
            self._texts = text_keys(first)
            self._numbers.require(first, 'real')  # a class beyond the last has no soft label either
            require_same_form(self._complete(first, False), self._complete(pool.example(), True))
            self._look_at_both(pool)
        self._epoch_order(self.epoch)  # too few samples are an error now, not in a worker

    def _look_at_both(self, pool: SyntheticPool) -> None:
        """Labels and values of some samples of each side."""
        if (known := labels_of(self.real)) is not None:
            self._numbers.require_values(known, 'real labels')
        labels: tuple[set[int], set[int]] = (set(), set())
        drawn = pool.look(LOOKED_AT)
        self._scales.add('synthetic', drawn['image'])
        for sample in unstack(drawn):
            labels[1].update(self._numbers.seen_in(sample))
        for sample in some_samples(self.real):
            whole = stack([sample])
            self._numbers.require(whole, 'real')
            self._scales.add('real', whole['image'])
            labels[0].update(self._numbers.seen_in(whole))
        self._numbers.require(drawn, 'synthetic')
        self._scales.judge()
        warn_of_doubtful_labels(self._numbers, *labels)

    @property
    def ratio(self) -> float:
        """Synthetic samples per real sample in the current epoch."""
        return self.schedule(self.epoch)

    @property
    def num_synthetic(self) -> int:
        """Synthetic samples of the current epoch."""
        return self._num_synthetic(self.epoch)

    def _num_synthetic(self, epoch: int) -> int:
        return synthetic_count(self.num_real, self.schedule(epoch), self.mode)

    def length(self, epoch: int) -> int:
        """Number of samples of an epoch."""
        return self.num_real + (self._num_synthetic(epoch) if self.mode == 'append' else 0)

    def __len__(self) -> int:
        """Number of samples of the current epoch."""
        length = self.length(self.epoch)
        if self._known is not None:
            self._known.tell_caller(length)
        return length

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self._epoch.value

    def set_epoch(self, epoch: int) -> None:
        """Draw other synthetic samples from now on, in all workers. Without it every epoch repeats epoch 0.

        Call it between epochs: a plain loader that is being iterated over goes on with the samples of the new one
        (:class:`~hsiaug.samplers.MixedBatchSampler` keeps to its own).
        """
        self._epoch.value = epoch

    def is_synthetic(self, epoch: int | None = None) -> np.ndarray:
        """(len,) bool: which samples of an epoch are synthetic; of the current one, if None."""
        now = self.epoch
        flags = self._epoch_order(now if epoch is None else epoch)[1] < 0
        if self._known is not None and epoch in (None, now):
            self._known.tell(len(flags))
        return flags

    @property
    def synthetic(self) -> Dataset[Sample]:
        """The synthetic samples of the current epoch."""
        return self._epoch_order(self.epoch)[0]

    def _epoch_order(self, epoch: int) -> tuple[Dataset[Sample], np.ndarray]:
        """Synthetic dataset, and (len,) where each sample comes from: i >= 0 is real i, -1 - j is synthetic j."""
        if epoch not in self._orders:
            if len(self._orders) > 1:  # two iterations may be under way
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = self._order(epoch)
        synthetic, order = self._orders[epoch]
        for follower in self._followers:
            follower.set_epoch(epoch)
        return synthetic, order

    def _order(self, epoch: int) -> tuple[Dataset[Sample], np.ndarray]:
        count = self._num_synthetic(epoch)
        if self.pool is None:
            synthetic, draws = self.real, np.arange(0)
        elif self.generator is not None:
            dataset = SyntheticDataset(
                self.generator, count, self.seed, self.labels or 'real', self.real_counts, self.prior
            )
            dataset.set_epoch(epoch)
            synthetic, draws = dataset, np.arange(count)
        else:
            synthetic = cast('Dataset[Sample]', self.pool.dataset)
            draws = self.pool.choose(count, epoch)
        order = np.arange(self.length(epoch))
        if self.mode == 'append':
            order[self.num_real :] = -1 - draws
        elif count:
            rng = np.random.default_rng(stream_seed(self.seed, epoch, _POSITIONS))
            order[rng.permutation(self.num_real)[:count]] = -1 - draws
        return synthetic, order

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        """Samples of several indices, stacked, before ``transforms``.

        Raises:
            IndexError: if an index is out of range.
        """
        parts = [(new, fetch(side, rows), places) for new, side, rows, places in self._sides(indices)]
        for new, part, _ in parts:
            self._numbers.require(part, 'synthetic' if new else 'real')
        if len(parts) < 2:
            return next((self._complete(part, new) for new, part, _ in parts), {})
        real, drawn = (self._complete(part, new) for new, part, _ in parts)
        self._scales.see(real['image'], drawn['image'])
        joined = append_rows(real, drawn)
        back = np.argsort(np.concatenate([places for *_, places in parts]))
        return {
            key: value[torch.from_numpy(back)] if isinstance(value, Tensor) else [value[row] for row in back]
            for key, value in joined.items()
        }

    def _sides(self, indices: Sequence[int] | Tensor) -> list[tuple[bool, Dataset[Sample], np.ndarray, np.ndarray]]:
        """For real, then synthetic samples, where there are any: which, their dataset, its rows, and their places."""
        epoch = indices.epoch if isinstance(indices, EpochIndices) else self.epoch
        wanted, length = np.asarray(indices, dtype=np.int64), self.length(epoch)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < length:
            why = '' if self._known is None else f'; its schedule {self.schedule} changes their number with the epoch'
            raise IndexError(f'MixedDataset: index out of range for {length} samples{why}')
        synthetic, order = self._epoch_order(epoch)
        source = order[wanted]
        real_places, new_places = np.flatnonzero(source >= 0), np.flatnonzero(source < 0)
        sides = [
            (False, self.real, source[real_places], real_places),
            (True, synthetic, -1 - source[new_places], new_places),
        ]
        return [side for side in sides if len(side[-1])]

    @property
    def _mixes(self) -> bool:
        """Whether an epoch may hold synthetic samples: epochs of a schedule look alike, those at ratio 0 too."""
        return self.pool is not None and self.schedule != Constant(0.0)

    @property
    def _extras(self) -> dict[str, Any]:
        """What samples are completed with."""
        if not self._mixes:
            return {'weight': self.weight}
        return {'num_classes': self.num_soft_classes, 'weight': self.weight, 'texts': self._texts}

    def _complete(self, batch: dict[str, Any], synthetic: bool) -> dict[str, Any]:
        return complete(batch, synthetic, **self._extras)

    def __getitem__(self, index: int) -> Sample:
        """One sample, real or synthetic, with ``synthetic`` (bool)."""
        return self._samples([index + self.length(self.epoch) if index < 0 else index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Samples of a whole batch. Images are not copied here: the loader's collation copies them once.

        Raises:
            ValueError: if a schedule has changed the length, and the loader's sampler cannot know.
        """
        if self._known is not None and not isinstance(indices, EpochIndices):
            self._known.require(self.length(self.epoch))
        return self._samples(indices)

    def _samples(self, indices: Sequence[int]) -> list[Sample]:
        samples: list[Sample] = [{} for _ in indices]
        images: list[list[Tensor]] = []
        for synthetic, dataset, rows, places in self._sides(indices):
            if synthetic:
                batch = fetch(dataset, rows)
                self._numbers.require(batch, 'synthetic')
                found = unstack(batch)
            else:
                found = fetch_samples(dataset, rows)
                self._numbers.require_samples(found, 'real')
            completed = complete_samples(found, synthetic, **self._extras)
            if not self._scales.settled:
                images.append([sample['image'] for sample in completed])
            if self.transforms is not None and not synthetic and not reads_whole(dataset):
                completed = [_own(sample) for sample in completed]
            for place, sample in zip(places, completed, strict=True):
                samples[place] = sample
        if len(images) == 2:
            self._scales.see(*images)
        return samples if self.transforms is None else [self.transforms(sample) for sample in samples]


def _own(sample: Sample) -> Sample:
    """A sample whose tensors a transform may change in place, where the dataset may hand out those that it holds."""
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in sample.items()}


__all__ = ['MixedDataset', 'require_mixable']
