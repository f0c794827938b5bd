"""Batches of a mixed dataset with an exact number of synthetic samples."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from ..datasets import MixedDataset
from ..datasets.mixing.epochs import BatchOrder, EpochIndices
from ..datasets.mixing.sources import require_same
from ..datasets.shared import require_epoch, world
from ..ratio import Constant
from ..streams import SHUFFLE, as_seed, stream_seed

_KEPT = (
    'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context', 'generator',
    'prefetch_factor', 'persistent_workers',
)  # fmt: skip
_COUNTS = 64
"""Batches after which an iteration that is left off counts as an epoch; loaders with workers read this far ahead."""


class MixedBatchSampler(BatchSampler):
    """Batches that hold real and synthetic samples in the ratio of the epoch, each batch to within one sample.

    Position t of an epoch is synthetic if ⌊(t+1)f⌋ exceeds ⌊t·f⌋, where f is the synthetic share of the epoch. Real and
    synthetic samples are shuffled separately and assigned to these positions, several sources in even alternation.
    Every sample of the epoch comes exactly once, on one rank. Under DDP, batch b of rank r is slice b·W + r of this
    sequence; all ranks get the same number of batches, and the sizes of the last ones differ by at most one sample.

    Iterations are epochs 0, 1, ..., of the dataset too; :meth:`set_epoch`, here or on the dataset, sets the next one,
    as Lightning does automatically. An iteration abandoned within its first 64 batches, such as ``next(iter(loader))``,
    does not count as an epoch: the next one is the same epoch. Call :meth:`set_epoch` if your epochs are cut shorter
    than that, or if the workers of a loader have read a short epoch to its end by then. An iteration keeps its own
    samples even if another one begins.

    ``state_dict`` records how many batches of which epoch have been yielded, also if an iteration was abandoned, and
    ``load_state_dict`` continues with the next batch, as torchdata's ``StatefulDataLoader`` does with or without
    workers. (The workers of a plain loader have taken more batches than the loop has seen: count those, and pass
    ``start``.)

    Args:
        sampler: the mixed dataset. The argument has this name because Lightning calls the class again under DDP, with
            its own distributed sampler around the dataset.
        batch_size: samples per batch and rank.
        drop_last: drop an incomplete last batch.
        shuffle: if False, real samples and synthetic samples each keep the order of the dataset.
        seed: seed of the order.
        num_replicas: number of ranks W; by default, that of the process group.
        rank: rank of this process; by default, that of the process group.
        start: epoch of the first iteration (later of the next one), and number of its batches to skip, to continue a
            training within an epoch. The length includes them.
        hold: repeat the epoch of ``start``, to overfit a network; always on under Lightning's
            ``Trainer(overfit_batches=...)``.

    Raises:
        TypeError: if there is no mixed dataset in ``sampler``, or the seed is none.
        ValueError: if an epoch holds fewer samples than there are ranks, or ``epoch_size`` is smaller than a batch.
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int,
        drop_last: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        start: tuple[int, int] = (0, 0),
        hold: bool = False,
    ) -> None:
        self.dataset = _dataset_of(sampler)
        if (size := self.dataset.epoch_size) is not None and size < batch_size:
            raise ValueError(
                f'MixedBatchSampler: the dataset has epoch_size={size}, less than one batch of {batch_size}; make it '
                'larger or the batch smaller'
            )
        # Lightning sets the epoch on ``batch_sampler.sampler``.
        super().__init__(self, batch_size, drop_last)  # type: ignore[arg-type]
        self.shuffle, self.seed, self.start, self.hold = shuffle, as_seed(seed), start, hold
        self._running: int | None = None
        self._begun: tuple[int, int] = (-1, 0)  # an epoch, and how often it was begun
        self._given: tuple[int, int] | None = None  # an epoch, and how many of its batches
        self._said: int | None = None  # the epoch that somebody has said is next
        self._at_end = False
        self._replicas, self._rank = num_replicas, rank
        if (rank, num_replicas) != (None, None) and (rank is None or not 0 <= rank < (num_replicas or 0)):
            raise ValueError(
                f'MixedBatchSampler: rank in [0, num_replicas) expected, found {rank=}, {num_replicas=}; give both or '
                'none'
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        if epoch != self.start[0] and not (self.hold or _overfits()):
            self.start = (require_epoch('MixedBatchSampler', epoch), 0)
        self._begun, self._given, self._said, self._at_end = (-1, 0), None, self.start[0], False
        self.dataset.enter(self.start[0])

    def _heed(self) -> None:
        """Begin with the epoch that was set on the dataset, if one was since an iteration began."""
        if self._running is None and (pending := self.dataset.pending) is not None:
            self.set_epoch(pending)

    def _settings(self, epoch: int) -> dict[str, Any]:
        own = {'batch size': self.batch_size, 'drop_last': self.drop_last, 'shuffle': self.shuffle}
        rank, replicas = self._rank_and_world()
        return {**self.dataset.settings(epoch), **own, 'order': self.seed, 'ranks': replicas, 'rank': rank}

    def state_dict(self) -> dict[str, Any]:
        """The epoch, the number of batches yielded, and the settings they belong to."""
        self._heed()
        epoch, batch = self._given or self.start
        return {'epoch': epoch, 'batch': batch, 'settings': self._settings(epoch)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue after the last yielded batch in the next iteration, which is empty if the epoch was complete.

        Raises:
            ValueError: for a state dict of another mixture, seed or batch size, naming what differs.
        """
        epoch, batch = require_same('MixedBatchSampler', state_dict, self._settings), int(state_dict['batch'])
        at_end, over = batch >= len(self._sizes(epoch)), self._said == epoch + 1
        if at_end and over:  # Lightning and others who count epochs have left it already
            epoch, batch, at_end = epoch + 1, 0, False
        self.start = (epoch, batch)
        self.set_epoch(epoch)
        self._said, self._at_end = None, at_end

    def _rank_and_world(self) -> tuple[int, int]:
        known = self._rank is not None and self._replicas is not None
        return (self._rank, self._replicas) if known else world()  # type: ignore[return-value]

    def _sizes(self, epoch: int) -> np.ndarray:
        """(batches, ranks) number of samples of each batch."""
        replicas, total = self._rank_and_world()[1], self.dataset.length(epoch)
        whole, rest = divmod(total, self.batch_size * replicas)
        sizes = np.full((whole, replicas), self.batch_size)
        if self.drop_last or rest == 0:
            return sizes
        tail = rest // replicas + (np.arange(replicas) < rest % replicas)
        if rest >= replicas:
            return np.vstack([sizes, tail])
        if whole == 0:
            raise ValueError(f'MixedBatchSampler: {total} samples are too few for {replicas} ranks; use fewer')
        sizes[-1] += tail  # a rank without a batch would leave the others waiting
        return sizes

    def __len__(self) -> int:
        """Number of batches of this rank in the current epoch or, between epochs, in the next."""
        self._heed()
        return len(self._sizes(self.start[0] if self._running is None else self._running))

    def __iter__(self) -> Iterator[list[int]]:
        """Indices of each batch of the next epoch, which say what epoch they are of."""
        if not self._at_end:
            return self._batches()
        # The rest of an epoch that a state was saved at the end of. torchdata asks for it and, where the state knows
        # that the epoch is over, leaves it unread.
        self._end(self.start[0])
        self.set_epoch(self.start[0])
        return iter(())

    def _batches(self) -> Iterator[list[int]]:
        self._heed()
        epoch, first = self.start
        self._running, self._said = epoch, None
        self._begun = (epoch, self._begun[1] + 1 if self._begun[0] == epoch else 1)
        if self._begun[1] == 4 and not self.hold:  # else cut epochs would repeat for ever
            warnings.warn(
                f'MixedBatchSampler: epoch {epoch} begins for the fourth time, since iterations before it were left '
                'off; call set_epoch(epoch) where an epoch begins if they were epochs',
                stacklevel=2,
            )
        self.dataset.enter(epoch)
        order = self.dataset.order(epoch)
        self.dataset.tell_length(order.length)
        rng = np.random.default_rng(stream_seed(self.seed, epoch, SHUFFLE))
        live = [pool.held < 0 for pool in self.dataset.sources.pools]
        indices, sizes = BatchOrder(order, rng if self.shuffle else None, live), self._sizes(epoch)
        rank = self._rank_and_world()[0]
        ends = np.cumsum(sizes.reshape(-1)).reshape(sizes.shape)
        last = len(sizes) - 1
        try:
            for batch in range(first, len(sizes)):
                if 0 < batch == last or batch >= _COUNTS:
                    self._end(epoch)
                rows = indices.rows(ends[batch, rank] - sizes[batch, rank], ends[batch, rank])
                self._given = (epoch, batch + 1)
                yield EpochIndices(rows.tolist(), order.key)
            self._end(epoch)
            self._given = None
        finally:
            if self._running == epoch:
                self._running = None

    def _end(self, epoch: int) -> None:
        """The next iteration is another epoch, unless somebody has said which, or is of this one from its beginning."""
        if self.start[0] == epoch:
            self.start = (epoch if self.hold else epoch + 1, 0)


def mixed_loader(real: DataLoader[Any], mixed: MixedDataset, seed: int = 0, **options: Any) -> DataLoader[Any]:
    """A loader of the mixed dataset with the settings of the loader of the real one.

    At ratio 0, the order is the real loader's own, so that nothing changes, bit for bit. ``options`` are further
    arguments of :class:`MixedBatchSampler`.

    Raises:
        TypeError: if the real loader has its own batch sampler, which does not know synthetic samples, or a sampler
            that does not take every sample once, whose choice would be lost.
    """
    plain = mixed.schedule == Constant(0.0) and mixed.epoch_size is None
    if real.batch_size is None or not (plain or _takes_each_once(real.sampler)):
        own = real.batch_sampler if real.batch_size is None else real.sampler
        raise TypeError(
            f'a loader with a {type(own).__name__} cannot be rebuilt around a mixed dataset; mix its batches with '
            "hsiaug.transforms.SyntheticMix, which is way='batch' of a MixedDataModule, or choose among the real "
            'samples with torch.utils.data.Subset'
        )
    if plain:
        batches: dict[str, Any] = {'batch_size': real.batch_size, 'sampler': real.sampler, 'drop_last': real.drop_last}
    else:
        batches = {'batch_sampler': MixedBatchSampler(mixed, real.batch_size, real.drop_last, seed=seed, **options)}
    stateful = hasattr(real, 'snapshot_every_n_steps')  # torchdata's StatefulDataLoader stays one
    kept = (*_KEPT, 'snapshot_every_n_steps') if stateful else _KEPT
    make: Any = type(real) if stateful else DataLoader
    return make(mixed, **{name: getattr(real, name) for name in kept}, **batches)  # type: ignore[no-any-return]


def _takes_each_once(sampler: Any) -> bool:
    """Whether a sampler of a loader takes every sample once, in any order, so that ours may stand in its place."""
    if isinstance(sampler, RandomSampler):
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return isinstance(sampler, SequentialSampler | DistributedSampler)


def _overfits() -> bool:
    """Whether Lightning sets the epoch for a trainer that is to overfit, and has promised the same batches every epoch.

    It makes other samplers sequential, but leaves one of batches as it is, and sets nothing but its epoch.
    """
    frame = inspect.currentframe()
    for _ in range(3):  # this function, set_epoch, Lightning's utility; then its loop
        frame = frame.f_back if frame is not None else None
    trainer = getattr(frame.f_locals.get('self'), 'trainer', None) if frame is not None else None
    return bool(getattr(trainer, 'overfit_batches', 0))


def _dataset_of(sampler: Any) -> MixedDataset:
    """The mixed dataset in a dataset, a sampler or a wrapper of one."""
    inner, seen = sampler, 0
    while not isinstance(inner, MixedDataset):
        names = [name for name in ('dataset', 'data_source', 'sampler', '_sampler') if hasattr(inner, name)]
        if isinstance(inner, Subset):
            raise TypeError(
                'MixedBatchSampler: found a Subset of a MixedDataset, which renumbers its samples; take the subset '
                'of the real dataset: MixedDataset(Subset(real, rows), synthetic, ratio)'
            )
        if not names or seen > 8:
            raise TypeError(
                f'MixedBatchSampler: a MixedDataset expected, found {type(sampler).__name__}; wrap the real dataset: '
                'MixedBatchSampler(MixedDataset(real, synthetic, ratio), batch_size)'
            )
        inner, seen = getattr(inner, names[0]), seen + 1
    return inner
