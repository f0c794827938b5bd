"""A dataset of real and synthetic samples, mixed at a ratio."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, get_worker_info

from ...ratio import Constant, Mode, source_counts
from ...samples import Sample, SampleSpec, SpecMismatchError, Transform, require_compatible
from ...settings import check_value
from ...streams import POSITIONS, REAL, stream_seed
from ..contract.batches import ReadAtOnce, columns_of, copied, fetch
from ..contract.wrapped import EXAMINED, counts_of, labels_of, require_map_style, spec_of
from ..pools.orders import InOrder, Rounds, Rows, Shuffled
from ..pools.pool import Draw
from ..shared import InEpochs, Kept
from .checks import ClassNumbers, require_unseen_samples, some_samples, warn_of_doubtful_labels
from .columns import Extras, absent_values, require_same_form
from .epochs import EpochIndices, EpochOrder, Key, SharedRatios, Side
from .exhausted import Exhausted, KnownLength, real_samples, require_policy
from .joined import JoinedSamples, Part, join, take_apart
from .sources import LabelPolicies, Mixture, NamedSources, Ratios, Sources, require_same


class MixedDataset(Mixture, InEpochs, ReadAtOnce):
    """A real dataset with ``ratio`` synthetic samples per real sample.

    *append*: all N real samples, then round(ratio·N) synthetic ones; shuffle in the loader. *replace*: N samples, of
    which ⌊N·ratio/(1+ratio)⌋ are synthetic, at positions that change with the epoch. Ratio 0 is the real dataset,
    sample for sample. Every sample has a key ``synthetic`` (bool); if synthetic samples have soft labels, real ones get
    a one-hot ``label_prob`` too. For keys that only real samples have, synthetic ones get a filler: empty text (a file
    name), NaN for floats (``bounds``), -1 for integers (``index``), or the largest if unsigned. Values that are neither
    text nor arrays, such as a ``crs`` object, are left out of both.

    With named sources, every sample also has ``source`` (int64): 0 for real samples, k for the k-th source, an index
    into ``source_names``. Each source has its own draws and its own ratio: round(ratio·N) samples in append mode; in
    replace mode, its share of the synthetic positions, to within one sample for up to three sources and (K - 1) / 2
    for K.

    The specs of both sides, or the ``classes`` of torchgeo datasets, and the split are compared, also through
    ``Subset`` and other wrappers. A few real samples are read to check that their labels are classes of the source and
    their values of the same order of magnitude; labels are checked in every batch.

    Args:
        real: any map-style dataset in the sample contract.
        synthetic: a generator (drawn live), a :class:`SyntheticDataset`, a bank or its folder, or any dataset in the
            sample contract; or several of them by name, such as ``{'gan': generator, 'paste': bank}``.
        ratio: synthetic samples per real sample, >= 0; a schedule over epochs; or ``'auto'`` for the ratio that was
            measured to help, see :func:`~hsiaug.evidence.recommended_ratio`. For several sources, one for each name,
            such as ``{'gan': 0.5, 'paste': Linear(0, 1, 10)}``. In append mode, a schedule changes the length of the
            dataset between epochs; samplers and wrappers that were made for the old length raise an error.
        seed: seed of all draws.
        mode: ``'append'`` or ``'replace'``.
        labels: classes of the synthetic samples; None means the real frequencies for a generator, and no selection
            for a dataset. For several sources, one for all, or one for each name.
        prior: (K,) class prior for ``labels='prior'``.
        replacement: the same as ``on_exhausted='repeat'``.
        weight: loss weight of synthetic samples in the key ``weight``, 1 for real ones; None for no such key.
        transforms: function of a sample, real or synthetic, as in torchgeo. A real dataset's own ``transforms`` run
            on its samples only.
        different_scales: allow values of the two sides to differ by orders of magnitude, which is an error otherwise.
        evaluation: a dataset, or several, of real samples that the model will be tested on; a source whose generator
            has seen any of them is refused, see :func:`~hsiaug.datasets.require_unseen_samples`.
        on_exhausted: what to do if a synthetic dataset holds fewer samples than the ratio asks for
            (:data:`~hsiaug.datasets.mixing.exhausted.Exhausted`).
        epoch_size: number of samples in an epoch, real and synthetic at the ratio; if None, all real samples and the
            synthetic ones on top (append), or as many as there are real samples (replace). The choice of real samples
            changes with the epoch; if more are needed than there are, none comes twice before each has come once.

    Raises:
        TypeError: if a dataset cannot be indexed, or its samples do not follow the sample contract.
        ValueError: if a ratio is negative or not finite, a source holds too few samples, names of sources are unknown,
            missing, or keys of samples, or ``on_exhausted`` or ``epoch_size`` make no sense.
        SpecMismatchError: if two sides or sources do not match, or a label is neither a class nor the ignore index.
        LeakageError: if the generator has seen test pixels of the real dataset's split, or evaluation samples.
    """

    def __init__(
        self,
        real: Dataset[Sample],
        synthetic: NamedSources,
        ratio: Ratios = 0.5,
        seed: int = 0,
        mode: Mode = 'append',
        labels: LabelPolicies = None,
        prior: np.ndarray | None = None,
        replacement: bool = False,
        weight: float | None = None,
        transforms: Transform | None = None,
        different_scales: bool = False,
        evaluation: Dataset[Sample] | Sequence[Dataset[Sample]] | None = (),
        on_exhausted: Exhausted = 'error',
        epoch_size: int | None = None,
    ) -> None:
        super().__init__()
        require_map_style(real, 'MixedDataset')
        self.real, self.num_real = real, len(cast(Any, real))
        if not self.num_real:
            raise ValueError('MixedDataset: the real dataset is empty; check its folder, split or subset')
        self.seed, self.transforms = seed, transforms
        self.weight = check_value('MixedDataset', 'weight', weight, float | None)
        self.real_counts = counts_of(real)
        again = replacement or on_exhausted in ('repeat', 'all_exhausted')
        draw = Draw(seed, prior=prior, real_counts=self.real_counts, replacement=again)
        known = spec_of(real)
        for one in synthetic.values() if isinstance(synthetic, Mapping) else (synthetic,):
            spec = getattr(one, 'spec', None)
            if known and isinstance(spec, SampleSpec) and spec.num_classes != known.num_classes:
                require_compatible(known, spec)  # said before the counts of the classes
        self.sources = Sources('MixedDataset', synthetic, ratio, labels, draw, mode, different_scales, self.num_real)
        self.schedule, self.mode = self.sources.schedule, self.sources.mode
        self.on_exhausted = require_policy(
            'MixedDataset', on_exhausted, replacement, self.mode, self.sources.schedules, epoch_size
        )
        self.epoch_size = None if epoch_size is None else int(epoch_size)
        self._titles = ('real', *self.sources.titles)
        self.pending: int | None = None  # an epoch that was set and that no sampler has begun yet
        self._said = SharedRatios(len(self.sources.schedules))
        self._known: KnownLength | None = None
        if self.mode == 'append' and epoch_size is None and not isinstance(self.schedule, Constant):
            self._known = KnownLength('MixedDataset', self.schedule, self.length(0))
        self._orders: Kept[Key, EpochOrder] = Kept(2)  # two iterations may be under way
        # Epochs of a schedule look alike, those at ratio 0 too.
        self._mixes = bool(self.sources.pools) and self.schedule != Constant(0.0)
        self._numbers = ClassNumbers()
        self._extras = Extras(weight=weight, tagged=self.sources.tagged)
        self.spec = self.sources.require_mixable(real) if self.sources.pools else spec_of(real)
        if self.sources.pools:
            self._check()
            tests: Any = evaluation if isinstance(evaluation, list | tuple) else (evaluation,)
            if tests and all(isinstance(one, Mapping) for one in tests):  # the samples of one dataset
                tests = (evaluation,)
            for tested in tests if evaluation is not None else ():
                for pool in self.sources.pools:
                    require_unseen_samples(pool.source, tested)

    def _check(self) -> None:
        if self._mixes or self.sources.tagged:
            first = fetch(self.real, np.zeros(1, np.int64))
            self.sources.require_free(first)
        if self._mixes:
            self._numbers = self.sources.class_numbers(self.spec)
            kept = first.get('weight')
            dtype = kept.dtype if isinstance(kept, Tensor) and kept.is_floating_point() else None
            soft, absent = self.sources.num_soft_classes, absent_values(first)
            self._extras = replace(self._extras, num_classes=soft, absent=absent, weight_dtype=dtype)
            self._numbers.require(first, 'real')  # a class beyond the last has no soft label either
            real = self._extras.complete(first, 0)
            for number, pool in enumerate(self.sources.pools, 1):
                require_same_form(real, self._extras.complete(pool.example(), number))
            self._sample_all_sides()
        self.order(self.epoch)  # too few samples are an error now, not in a worker

    def _sample_all_sides(self) -> None:
        """Check labels and values of some samples of each side."""
        if (known := labels_of(self.real)) is not None:
            self._numbers.require_values(known, 'real labels')
        labels: set[int] = set()
        drawn = [pool.look(EXAMINED) for pool in self.sources.pools]
        for sample in some_samples(self.real):
            self._numbers.require(sample, 'real')
            for scales in self.sources.scales:
                scales.add('real', sample['image'])
            labels |= self._numbers.seen_in(sample)
        for batch, scales, title in zip(drawn, self.sources.scales, self.sources.titles, strict=True):
            self._numbers.require(batch, title)
            scales.add('synthetic', batch['image'])
            scales.judge()
            warn_of_doubtful_labels(self._numbers, labels, self._numbers.seen_in(batch))

    def __repr__(self) -> str:
        """Both sides, the ratio, and what it rests on if it is ``'auto'``."""
        ratio = self.recommendation or self.schedule
        return f'<MixedDataset: {self.num_real} real samples, {self.sources}, {self.mode}: {ratio}>'

    __str__ = __repr__  # torchgeo's says the length alone

    @property
    def num_synthetic(self) -> int:
        """Number of synthetic samples in the current epoch, from all sources."""
        return sum(self._counts(self._ratios(self.epoch))[1])

    @property
    def source_names(self) -> tuple[str, ...]:
        """The names of the numbers in ``source``, ``'real'`` first."""
        return ('real', *(self.sources.names or ('synthetic',)))

    def length(self, epoch: int) -> int:
        """Number of samples of an epoch."""
        real, counts = self._counts(self._ratios(epoch))
        return real + sum(counts)

    def _ratios(self, epoch: int) -> tuple[float, ...]:
        """Ratio of each source in an epoch, fixed from its first use until one is set: schedules may follow a training.

        A worker's schedule is a copy, which follows nothing.
        """
        ratios = self._said.of(epoch)
        if ratios is None:
            ratios = tuple(self.sources.ratios(epoch))
            if epoch == self.epoch and get_worker_info() is None:
                self._said.say(epoch, ratios)
        return ratios

    def _counts(self, ratios: Sequence[float]) -> tuple[int, list[int]]:
        """Real samples of an epoch, and those of each source."""
        sources = self.sources
        if self.mode == 'append' and self.epoch_size is None:
            sizes = [pool.enough if self.on_exhausted == 'first_exhausted' else pool.held for pool in sources.pools]
            held = [math.inf if size < 0 else size for size in sizes] or [math.inf] * len(sources.schedules)
            counts_for = partial(source_counts, ratios=ratios, mode='append')
            real = real_samples(self.on_exhausted, self.num_real, held, ratios, counts_for)
            return real, counts_for(real)
        places = self.num_real if self.epoch_size is None else self.epoch_size
        if self.mode == 'append':
            source_counts(places, ratios, 'append')  # an infinite ratio is refused
        counts = source_counts(places, ratios, 'replace')
        return places - sum(counts), counts

    def __len__(self) -> int:
        length = self.length(self.epoch)
        if self._known is not None:
            self._known.tell_caller(length)
        return length

    def set_epoch(self, epoch: int) -> None:
        """Draw new synthetic samples at the ratio of an epoch from now on, in all workers; else, epoch 0 is repeated.

        Call it between epochs: a plain loader that is being iterated over continues with samples of the new epoch
        (:class:`~hsiaug.samplers.MixedBatchSampler` stays in its own).
        """
        self.enter(epoch)
        self.pending = self.epoch

    def enter(self, epoch: int) -> None:
        """As :meth:`set_epoch`, for a sampler that says itself which epoch is next."""
        super().set_epoch(epoch)
        if get_worker_info() is None:
            self._said.forget()
        self.pending = None

    def settings(self, epoch: int) -> dict[str, Any]:
        """What the samples of an epoch depend on, in plain values."""
        counts = None if self.real_counts is None else np.asarray(self.real_counts).tolist()
        own = {'real samples': self.num_real, 'samples per class': counts, 'epoch_size': self.epoch_size}
        return {**self.sources.settings(epoch), **own, 'on_exhausted': self.on_exhausted}

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the settings it belongs to; everything else follows from them."""
        return {'epoch': self.epoch, 'settings': self.settings(self.epoch)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set the epoch, in all workers.

        Raises:
            ValueError: for a state dict of another mixture or seed, naming what differs.
        """
        self.enter(require_same('MixedDataset', state_dict, self.settings))

    def is_synthetic(self, epoch: int | None = None) -> np.ndarray:
        """(len,) bool: which samples of an epoch are synthetic; by default, of the current epoch."""
        return self.source_numbers(epoch) > 0

    def source_numbers(self, epoch: int | None = None) -> np.ndarray:
        """(len,) int64: 0 for real samples of an epoch, k for the k-th source; by default, of the current epoch."""
        now = self.epoch
        order = self.order(now if epoch is None else epoch)
        if epoch in (None, now):
            self.tell_length(order.length)
        return order.numbers()

    def tell_length(self, length: int) -> None:
        """Note that a sampler knows the current length, where a schedule changes it."""
        if self._known is not None:
            self._known.tell(length)

    @property
    def synthetic(self) -> Dataset[Sample]:
        """The synthetic samples of the current epoch."""
        parts = [side.dataset for side in self.order(self.epoch).sides[1:]]
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)

    def order(self, epoch: int, ratios: tuple[float, ...] | None = None) -> EpochOrder:
        """Where each sample of an epoch comes from, with the ratios of its sources as they are or were set."""
        key = epoch, self._ratios(epoch) if ratios is None else ratios
        order = self._orders.get_or_make(key, lambda: self._order(*key))
        for pool in self.sources.pools:
            pool.follow(epoch)
        return order

    def _order(self, epoch: int, ratios: tuple[float, ...]) -> EpochOrder:
        real, counts = self._counts(ratios)
        drawn = [Side(*pool.epoch(n, epoch), n) for pool, n in zip(self.sources.pools, counts, strict=False)]
        total, places = real, None
        if self.mode == 'replace':
            total = real + sum(counts)
            places = Shuffled(total, np.random.default_rng(stream_seed(self.seed, epoch, POSITIONS)))
        # Real samples: all in their order, or others in each epoch, each once before any twice.
        all_once = total == self.num_real
        rows: Rows = InOrder() if all_once else Rounds(self.num_real, stream_seed(self.seed, epoch, REAL))
        return EpochOrder((epoch, ratios), [Side(self.real, rows, real), *drawn], places)

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        """Samples at several indices, stacked, before ``transforms``.

        Raises:
            IndexError: if an index is out of range.
        """
        return join(self._parts(indices), self._extras)

    def _parts(self, indices: Sequence[int] | Tensor) -> list[Part]:
        """Real samples, then those of each source, where there are any; their labels and values are checked."""
        order = self.order(*(indices.key if isinstance(indices, EpochIndices) else (self.epoch,)))
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < order.length:
            why = '' if self._known is None else f'; its schedule {self.schedule} changes their number with the epoch'
            raise IndexError(f'MixedDataset: index out of range for {order.length} samples{why}')
        numbers, turns = order.find(wanted)
        parts: list[Part] = []
        for number, side in enumerate(order.sides):
            if len(places := np.flatnonzero(numbers == number)):
                columns = columns_of(side.dataset, side.rows[turns[places]])
                self._numbers.require(columns, self._titles[number])
                parts.append(Part(number, places, columns))
                if number and not parts[0].number:
                    self.sources.scales[number - 1].see(parts[0].columns['image'], columns['image'])
        return parts

    def __getitem__(self, index: int) -> Sample:
        """One sample, real or synthetic, with ``synthetic`` (bool)."""
        if not hasattr(index, '__index__'):
            raise TypeError(
                f'MixedDataset: one whole number is expected as index, found {index!r}; read several samples with '
                'batch(indices), and give a sampler of batches to a loader as batch_sampler=...'
            )
        row = operator.index(index)
        return self._samples([row + self.length(self.epoch) if row < 0 else row])[0]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Sample]:
        """Samples of a whole batch. Images are not copied here: the loader's collation copies them once.

        Raises:
            ValueError: if a schedule has changed the length, and the loader's sampler cannot know.
        """
        if self._known is not None and not isinstance(indices, EpochIndices):
            self._known.require(self.length(self.epoch))
        return self._samples(indices)

    def _samples(self, indices: Sequence[int]) -> Sequence[Sample]:
        parts = self._parts(indices)
        if self.transforms is not None:  # a dataset may hand out tensors that it holds
            return [self.transforms(copied(sample)) for sample in take_apart(parts, self._extras)]
        if len(indices) > 1 and all(part.is_small() for part in parts):
            with suppress(RuntimeError, SpecMismatchError):  # of samples that are no batch, for whoever can use them
                return JoinedSamples(whole=join(parts, self._extras))
        return take_apart(parts, self._extras)
