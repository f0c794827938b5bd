"""Synthetic samples of any source, by number or at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..functional.prior import tilt_to_mixture
from ..samples import Kind, Sample, SampleSource, SampleSpec
from .batches import as_tensor, fetch, gather_chunks, kind_of
from .labels import LabelPolicy, synthetic_counts
from .synthetic import default_chunk, require_drawable, stream_seed
from .wrapped import class_names_of, labels_of, provenances_of, require_map_style, spec_of

Source = SampleSource | Dataset[Sample]
"""A generator (drawn live), or any map-style dataset in the sample contract, a bank among them."""

_LABELS, _DRAWS = -3, -4  # streams of their own, beside those of datasets
_ENDLESS = 1 << 20  # samples over which a policy is made exact where nobody says how many are drawn


class SyntheticPool:
    """Synthetic samples of any source.

    :meth:`at` gives numbered samples of an epoch: sample (seed, epoch, number) is the same however the numbers are
    batched. :meth:`random` gives independent draws. :meth:`choose` gives the rows of a dataset that make up one epoch.

    Args:
        source: a generator (drawn live) or a dataset in the sample contract.
        seed: of every draw.
        labels: classes of the samples (:data:`~hsiaug.datasets.labels.LabelPolicy`); None is the real frequencies for
            a generator and everything as it comes for a dataset. For masks, the class mixture of whole patches.
        real_counts: (K,) real samples per class (for masks: pixels), for policies that need them.
        prior: (K,) class prior for ``labels='prior'``.
        total: synthetic samples per epoch, as far as it is known; only ``labels='prior'`` depends on it.
        replacement: use a dataset's samples again where an epoch asks for more than it holds.

    Raises:
        TypeError: if the source is neither.
        ValueError: if the source is empty, or the policy lacks something.
    """

    def __init__(
        self,
        source: Source,
        seed: int = 0,
        labels: LabelPolicy | None = None,
        real_counts: np.ndarray | None = None,
        prior: np.ndarray | None = None,
        total: int | None = None,
        replacement: bool = False,
    ) -> None:
        self.source, self.seed, self.policy, self.prior = source, seed, labels, prior
        self.replacement, self.total = replacement, total or _ENDLESS
        self.dataset: Dataset[Sample] | None = None
        if isinstance(source, Dataset):
            require_map_style(source, 'source of synthetic samples')
            self.dataset = source
            if self.size == 0:
                raise ValueError('the synthetic dataset is empty; sample a bank or lengthen the dataset first')
        elif not hasattr(source, 'sample'):
            raise TypeError(
                f'a source of synthetic samples is a generator, a bank or a dataset, found {type(source).__name__}; '
                'load a folder with Generator.from_pretrained or SyntheticBank.open'
            )
        spec = spec_of(source) if self.dataset is not None else getattr(source, 'spec', None)
        self.spec: SampleSpec | None = spec if isinstance(spec, SampleSpec) else None
        self.class_names = class_names_of(source) if self.dataset is not None else None
        self.provenances = provenances_of(source)
        frequencies = getattr(source, 'class_prior', None)
        self.real_counts = frequencies.cpu().numpy() if real_counts is None and frequencies is not None else real_counts
        self.chunk = default_chunk(self.spec) if self.spec else 1024
        self._example: dict[str, Tensor] | None = None
        self._streams: dict[int, tuple[Iterator[np.ndarray], np.ndarray]] = {}
        self._chunks: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._weights: np.ndarray | None = None
        self._cumulative: np.ndarray | None = None
        # A generator of masks that knows its class frequencies takes labels too: classes that patches should hold.
        self._live_labels = self.dataset is None and (
            frequencies is not None or (self.spec is not None and self.spec.kind in ('spectrum', 'scene'))
        )
        if self.dataset is None and labels is not None and not self._live_labels:
            raise ValueError(
                f'labels={labels!r}: the class mixture of masks that are drawn live is their own; sample a bank and '
                'mix that, and patches will be chosen to the mixture'
            )
        if labels is not None or self._live_labels:
            self.mixture()  # a policy that lacks something is an error now, not in a training loop

    def __repr__(self) -> str:
        """The source in a few words, without its data."""
        held = f'{self.size} {self.kind} samples' if self.dataset is not None else f'{self.kind} samples, drawn live'
        return f'<{type(self.source).__name__}: {held}>'

    def __getstate__(self) -> dict[str, Any]:
        """Without what is only cached: spawned workers make their own."""
        return {**self.__dict__, '_streams': {}, '_chunks': {}}

    @property
    def size(self) -> int:
        """Number of samples of a dataset; 0 for a generator, which has no end."""
        return 0 if self.dataset is None else len(cast(Any, self.dataset))

    @property
    def kind(self) -> Kind:
        """Kind of the samples, by the spec or, without one, by the layout of a sample.

        Raises:
            TypeError: if a sample without a spec is in no layout of the sample contract.
        """
        if self.spec is not None:
            return self.spec.kind
        sample = {key: value[0] for key, value in self._looked_at().items()}
        if (kind := kind_of(sample)) is not None:
            return kind
        found = {key: tuple(value.shape) for key, value in sample.items()}
        raise TypeError(
            f'the source has no spec, and its samples {found} are in no layout of the sample contract; expected for '
            'example image (C, H, W) with mask (H, W), or image (C, H, W) with label ()'
        )

    @property
    def num_soft_classes(self) -> int | None:
        """K where samples carry ``label_prob``, else None."""
        soft = self._looked_at().get('label_prob')
        return None if soft is None else soft.shape[1]

    def example(self) -> dict[str, Tensor]:
        """A batch of one sample, the caller's own."""
        return {key: value.clone() for key, value in self._looked_at().items()}

    def _looked_at(self) -> dict[str, Tensor]:
        """A batch of one sample, to look at only."""
        if self._example is None:
            self._example = (
                self._rows(np.zeros(1, dtype=np.int64)) if self.dataset is not None else self._live().sample(1, seed=0)
            )
        return self._example

    def to(self, device: torch.device) -> None:
        """Move a live generator. Datasets stay where they are."""
        if isinstance(self.source, nn.Module) and getattr(self.source, 'device', device) != device:
            self.source.to(device)
            self._chunks.clear()

    def mixture(self) -> np.ndarray:
        """(K,) class shares that the policy asks for."""
        if self.spec is None:
            raise ValueError(
                f'labels={self.policy!r} needs a source with a spec, which names the classes; found '
                f'{type(self.source).__name__} without one'
            )
        policy = 'real' if self.policy is None else self.policy
        left_out = getattr(self.source, 'left_out', ()) if self.dataset is None else ()
        counts = synthetic_counts(policy, self.total, self.spec.classes, self.real_counts, self.prior, left_out)
        return counts / self.total

    # --- numbered samples -------------------------------------------------------------------------------------------

    def at(self, numbers: np.ndarray | Sequence[int], epoch: int = 0) -> dict[str, Tensor]:
        """Samples with these numbers (from 0) of an epoch, stacked, where the source has them.

        Raises:
            ValueError: if an epoch asks for more than a dataset holds, without ``replacement``.
        """
        wanted = np.asarray(numbers, dtype=np.int64)
        if wanted.size == 0:
            return {key: value[:0] for key, value in self._looked_at().items()}
        if self.dataset is not None:
            return self._rows(self._stream(epoch, int(wanted.max()) + 1)[wanted])
        return gather_chunks(wanted, self.chunk, lambda number: self._chunk(epoch, number))

    def _chunk(self, epoch: int, number: int) -> dict[str, Tensor]:
        """One aligned chunk of a live generator. Consecutive batches share it, so few are kept."""
        if (epoch, number) not in self._chunks:
            labels = None
            if self._live_labels:
                rng = np.random.default_rng(stream_seed(self.seed, epoch, number, _LABELS))
                # Systematic sampling: each class is within one of its share of the chunk, and exact in the mean.
                points = (np.arange(self.chunk) + rng.random()) / self.chunk
                classes = np.searchsorted(np.cumsum(self.mixture()), points, side='right')
                labels = torch.from_numpy(rng.permutation(classes.clip(max=len(self.mixture()) - 1)))
            if len(self._chunks) >= 2:
                self._chunks.pop(next(iter(self._chunks)))
            self._chunks[epoch, number] = self._live().sample(
                self.chunk, labels, stream_seed(self.seed, epoch, number, _DRAWS)
            )
        return self._chunks[epoch, number]

    def _stream(self, epoch: int, length: int) -> np.ndarray:
        """At least the first ``length`` rows of an epoch: whole rounds through the dataset, in random order."""
        if epoch not in self._streams:
            self._streams = {epoch: (self._rounds(epoch), np.arange(0))}
        rounds, rows = self._streams[epoch]
        while len(rows) < length:
            if len(rows) and not self.replacement:
                raise ValueError(
                    f'epoch {epoch} asks for synthetic sample number {length}, but the source holds {len(rows)}'
                    + (f' with labels={self.policy!r}' if self.policy is not None else '')
                    + '; sample a larger bank, lower the ratio, call set_epoch where an epoch begins, or allow '
                    'replacement=True'
                )
            rows = np.concatenate([rows, next(rounds)])
            self._streams[epoch] = (rounds, rows)
        return rows

    def _rounds(self, epoch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(stream_seed(self.seed, epoch, _DRAWS))
        weights = self.weights()
        # As many samples as the policy can be met with, each at most once.
        length = self.size if weights is None else max(int(1 / weights.max() + 1e-9), 1)
        while True:
            yield self._pick(length, rng)

    # --- draws ------------------------------------------------------------------------------------------------------

    def random(self, n: int, seed: int) -> dict[str, Tensor]:
        """``n`` independent draws, which depend on the source, ``n`` and ``seed`` only."""
        rng = np.random.default_rng(stream_seed(self.seed, seed, _DRAWS))
        if self.dataset is not None:
            edges = self._edges()
            if edges is None:
                return self._rows(rng.integers(self.size, size=n))
            return self._rows(np.searchsorted(edges, rng.random(n) * edges[-1], side='right').clip(max=self.size - 1))
        labels = None
        if self._live_labels:
            labels = torch.from_numpy(rng.choice(len(self.mixture()), size=n, p=self.mixture()))
        return self._live().sample(n, labels, int(rng.integers(2**62)))

    def look(self, n: int) -> dict[str, Tensor]:
        """A few samples, as long as they are cheap: the first of a dataset, or of live spectra; else one."""
        if self.dataset is not None:
            return self._rows(np.arange(min(n, self.size)))
        if self.kind == 'spectrum':
            return self._live().sample(n, seed=0)
        return self._looked_at()

    def choose(self, n: int, epoch: int = 0) -> np.ndarray:
        """(n,) rows of a dataset that make up one epoch, in random order, classes after the policy.

        Raises:
            ValueError: if it holds fewer and ``replacement`` is off.
        """
        self.require_enough(n)
        return self._pick(n, np.random.default_rng(stream_seed(self.seed, epoch, _DRAWS)))

    def require_enough(self, n: int) -> None:
        """Check that an epoch may ask for ``n`` samples.

        Raises:
            ValueError: if a dataset holds fewer and ``replacement`` is off.
        """
        if self.dataset is None or self.replacement:
            return
        weights = self.weights()
        held = self.size if weights is None else int(1 / weights.max() + 1e-9)
        if n > held:
            raise ValueError(
                f'{n} synthetic samples are needed, but the synthetic dataset holds {held}'
                + (f' with labels={self.policy!r}' if self.policy is not None else '')
                + '; make it longer, lower the ratio, or allow replacement=True'
            )

    def _pick(self, n: int, rng: np.random.Generator) -> np.ndarray:
        weights = self.weights()
        order = rng.permutation(self.size)
        if weights is None:
            rounds = [order, *(rng.permutation(self.size) for _ in range(-(-n // self.size) - 1))]
            return np.concatenate(rounds)[:n]
        labels = self._labels()
        if labels is not None:  # stratified: each class gets its share to within one
            order = order[np.argsort(labels[order], kind='stable')]
        edges = np.cumsum(weights[order])
        points = (np.arange(n) + rng.random()) / n * edges[-1]
        return rng.permutation(order[np.searchsorted(edges, points, side='right').clip(max=self.size - 1)])

    def weights(self) -> np.ndarray | None:
        """(N,) chance of each sample of a dataset under the policy, None where all have the same."""
        if self.policy is None or self.dataset is None:
            return None
        if self._weights is None:
            mixture, labels = self.mixture(), self._labels()
            if labels is not None:
                known = (labels >= 0) & (labels < len(mixture))  # an ignored sample is of no class
                held = np.bincount(labels[known], minlength=len(mixture))
                if absent := [self.spec.classes[k] for k in np.flatnonzero((held == 0) & (mixture > 0))]:  # type: ignore[union-attr]
                    raise ValueError(f'labels={self.policy!r} asks for {absent}, of which the source holds no sample')
                each = mixture / np.maximum(held, 1)
                self._weights = np.where(known, each[np.where(known, labels, 0)], 0.0)
            else:
                self._weights = tilt_to_mixture(self._fractions(), mixture)
        return self._weights

    def _edges(self) -> np.ndarray | None:
        """(N,) running sum of the weights, made once: a draw must not cost as much as the dataset is long."""
        if self._cumulative is None and (weights := self.weights()) is not None:
            self._cumulative = np.cumsum(weights)
        return self._cumulative

    def _labels(self) -> np.ndarray | None:
        """(N,) labels of a dataset, None where its samples have masks."""
        if 'label' not in self._looked_at():
            return None
        labels = labels_of(self.dataset)
        if labels is None:
            labels = torch.stack([as_tensor(cast(Any, self.dataset)[i]['label']) for i in range(self.size)])
        return labels.numpy()

    def _fractions(self) -> np.ndarray:
        """(N, K) share of each class in each mask."""
        known = getattr(self.dataset, 'class_fractions', None)
        if known is not None and (fractions := known()) is not None:
            return np.asarray(fractions, dtype=np.float64)
        classes = self.spec.num_classes  # type: ignore[union-attr]
        counts = np.zeros((self.size, classes))
        for i in range(self.size):
            mask = cast(Any, self.dataset)[i]['mask'].reshape(-1)
            counts[i] = torch.bincount(mask[(mask >= 0) & (mask < classes)], minlength=classes)
        return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def _rows(self, rows: np.ndarray) -> dict[str, Tensor]:
        return {key: value for key, value in fetch(self.dataset, rows).items() if isinstance(value, Tensor)}

    def _live(self) -> SampleSource:
        require_drawable(self.source)
        return cast(SampleSource, self.source)
