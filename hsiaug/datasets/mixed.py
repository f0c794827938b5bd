"""Real and synthetic samples in one dataset, at a ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchgeo.datasets import NonGeoDataset

from ..ratio import Constant, Mode, Schedule, as_schedule, require_mode, synthetic_count
from ..samples import Sample, SampleSource, SampleSpec, require_compatible, require_unseen
from .batches import (
    append_rows,
    complete,
    complete_samples,
    fetch,
    fetch_samples,
    require_same_form,
    text_keys,
    unstack,
)
from .labels import LabelPolicy
from .lengths import KnownLength
from .pool import Source, SyntheticPool
from .shared import SharedInt
from .synthetic import SyntheticDataset, stream_seed

_POSITIONS = -1  # a stream beside those of the synthetic samples' chunks, which count from 0


class MixedDataset(NonGeoDataset):
    """A real dataset with ``ratio`` synthetic samples per real sample.

    *append*: all real samples, then round(ratio·N) synthetic ones; shuffle in the loader. *replace*: N samples, of
    which ⌊N·ratio/(1+ratio)⌋ are synthetic, at places that change with the epoch. Ratio 0 is the real dataset, sample
    for sample. Every sample carries ``synthetic`` (bool); where synthetic samples have soft labels, real ones carry a
    one-hot ``label_prob`` beside them. Text of real samples (a file name) is empty in synthetic ones; what is neither
    text nor array is left out, since a synthetic sample has no such thing.

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

    Raises:
        ValueError: if the ratio is negative or not finite, or the synthetic dataset holds too few samples.
        SpecMismatchError: if the two sides do not fit together.
        LeakageError: if the generator has seen test pixels of the real dataset's split.
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
    ) -> None:
        self.schedule, self.mode = as_schedule(ratio), require_mode(mode, 'MixedDataset')
        self.real, self.num_real = real, len(cast(Any, real))
        self.seed, self.labels, self.prior, self.weight, self.transforms = seed, labels, prior, weight, transforms
        self._epoch = SharedInt(0)
        self._known: KnownLength | None = None
        if self.mode == 'append' and not isinstance(self.schedule, Constant):
            self._known = KnownLength('MixedDataset', self.schedule, self.length(0))
        self._current: tuple[int, Dataset[Sample], np.ndarray] | None = None
        self.real_counts = getattr(real, 'class_counts', None)
        self._texts: tuple[str, ...] = ()
        self.num_soft_classes: int | None = None
        self.pool: SyntheticPool | None = None
        self.generator: SampleSource | None = None
        if isinstance(synthetic, Dataset) and self.num_synthetic == 0 and len(cast(Any, synthetic)) == 0:
            self.spec = getattr(real, 'spec', None)
            return
        self.pool = SyntheticPool(
            synthetic, seed, labels, self.real_counts, prior, self.num_synthetic or None, replacement
        )
        self.generator = None if isinstance(synthetic, Dataset) else synthetic
        self._check(self.pool)

    def _check(self, pool: SyntheticPool) -> None:
        self.spec = require_mixable(self.real, pool)
        self.num_soft_classes = pool.num_soft_classes
        if self.num_real and self._mixes:
            first = fetch(self.real, np.zeros(1, np.int64))
            self._texts = text_keys(first)
            require_same_form(self._complete(first, False), self._complete(pool.example(), True))
        self._epoch_order()  # too few samples are an error now, not in a worker

    @property
    def ratio(self) -> float:
        """Synthetic samples per real sample in the current epoch."""
        return self.schedule(self.epoch)

    @property
    def num_synthetic(self) -> int:
        """Synthetic samples of the current epoch."""
        return synthetic_count(self.num_real, self.ratio, self.mode)

    def length(self, epoch: int) -> int:
        """Number of samples of an epoch."""
        appended = synthetic_count(self.num_real, self.schedule(epoch), 'append') if self.mode == 'append' else 0
        return self.num_real + appended

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
        """Draw other synthetic samples from now on, in all workers. Without it every epoch repeats epoch 0."""
        self._epoch.value = epoch

    def is_synthetic(self) -> np.ndarray:
        """(len,) bool: which samples of the current epoch are synthetic."""
        flags = self._epoch_order()[1] < 0
        if self._known is not None:
            self._known.tell(len(flags))
        return flags

    @property
    def synthetic(self) -> Dataset[Sample]:
        """The synthetic samples of the current epoch."""
        return self._epoch_order()[0]

    def _epoch_order(self) -> tuple[Dataset[Sample], np.ndarray]:
        """Synthetic dataset, and (len,) where each sample comes from: i >= 0 is real i, -1 - j is synthetic j."""
        epoch = self.epoch
        if self._current is not None and self._current[0] == epoch:
            return self._current[1:]
        count = self.num_synthetic
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
            if hasattr(synthetic, 'set_epoch'):
                synthetic.set_epoch(epoch)
            draws = self.pool.choose(count, epoch)
        order = np.arange(self.length(epoch))
        if self.mode == 'append':
            order[self.num_real :] = -1 - draws
        elif count:
            rng = np.random.default_rng(stream_seed(self.seed, epoch, _POSITIONS))
            order[rng.permutation(self.num_real)[:count]] = -1 - draws
        self._current = (epoch, synthetic, order)
        return synthetic, order

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        """Samples of several indices, stacked, before ``transforms``.

        Raises:
            IndexError: if an index is out of range.
        """
        sides = self._sides(indices)
        if len(sides) < 2:
            return next((self._complete(fetch(side, rows), new) for new, side, rows, _ in sides), {})
        real, drawn = (self._complete(fetch(side, rows), new) for new, side, rows, _ in sides)
        joined = append_rows(real, drawn)
        back = np.argsort(np.concatenate([places for *_, places in sides]))
        return {
            key: value[torch.from_numpy(back)] if isinstance(value, Tensor) else [value[row] for row in back]
            for key, value in joined.items()
        }

    def _sides(self, indices: Sequence[int] | Tensor) -> list[tuple[bool, Dataset[Sample], np.ndarray, np.ndarray]]:
        """For real, then synthetic samples, where there are any: which, their dataset, its rows, and their places."""
        wanted, length = np.asarray(indices, dtype=np.int64), self.length(self.epoch)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < length:
            why = '' if self._known is None else f'; its schedule {self.schedule} changes their number with the epoch'
            raise IndexError(f'MixedDataset: index out of range for {length} samples{why}')
        synthetic, order = self._epoch_order()
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
        if self._known is not None:
            self._known.require(self.length(self.epoch))
        return self._samples(indices)

    def _samples(self, indices: Sequence[int]) -> list[Sample]:
        samples: list[Sample] = [{} for _ in indices]
        for synthetic, dataset, rows, places in self._sides(indices):
            found = unstack(fetch(dataset, rows)) if synthetic else fetch_samples(dataset, rows)
            for place, sample in zip(places, complete_samples(found, synthetic, **self._extras), strict=True):
                samples[place] = sample
        return samples if self.transforms is None else [self.transforms(sample) for sample in samples]


def require_mixable(real: Dataset[Sample], pool: SyntheticPool) -> SampleSpec | None:
    """Check a source against a real dataset, as far as the two say what they hold, and return the common spec.

    Raises:
        SpecMismatchError: if the two specs do not fit together.
        LeakageError: if the source's generator has seen test pixels of the real dataset's split.
    """
    spec = getattr(real, 'spec', None)
    spec = spec if isinstance(spec, SampleSpec) else None
    if spec and pool.spec:
        require_compatible(spec, pool.spec)
    split: Any = getattr(real, 'split', None)
    if hasattr(split, 'scene'):
        require_unseen(pool.provenance, split.scene, split.test)
    return spec or pool.spec
