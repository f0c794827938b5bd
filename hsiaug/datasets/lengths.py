"""Samplers that do not notice that a dataset's length has changed."""

from __future__ import annotations

import sys
from typing import NoReturn

from torch.utils.data import DistributedSampler

from ..ratio import Schedule
from .shared import SharedInt


class KnownLength:
    """The length that samplers know, of a dataset that a schedule makes longer or shorter from epoch to epoch.

    A sampler of ``shuffle=True`` asks for it at every epoch. One made once over indices or weights never does: it would
    leave new samples out, or reach past the end. A ``DistributedSampler`` does, but keeps its first total: it would
    repeat samples, or fail. Both get an error that names the schedule. Code of one's own that has asked for the length
    counts as knowing it.
    """

    def __init__(self, owner: str, schedule: Schedule, length: int) -> None:
        self.owner, self.schedule = owner, schedule
        self._known = SharedInt(length)  # workers compare it

    def tell(self, length: int) -> None:
        """Note that someone knows the current length."""
        self._known.value = length

    def tell_caller(self, length: int) -> None:
        """Note that whoever called ``len`` knows it; to be called from ``__len__`` itself.

        Raises:
            ValueError: if that is a ``DistributedSampler`` which deals an epoch out by another length.
        """
        # torch reads the length anew where it deals out, and nothing else shows that it keeps its first total.
        caller = sys._getframe(2).f_locals.get('self')
        if type(caller) is DistributedSampler and hasattr(caller, 'total_size'):
            ranks = caller.num_replicas
            now = length // ranks * ranks if caller.drop_last else -(-length // ranks) * ranks
            if now != caller.total_size:
                self.refuse(length, f'a DistributedSampler for {caller.total_size} samples on {ranks} ranks')
        self.tell(length)

    def require(self, length: int) -> None:
        """Check that the length is known, before a loader's batch is read.

        Raises:
            ValueError: if nobody has asked for it since it changed.
        """
        if self._known.value != length:
            self.refuse(length, f'a sampler made when there were {self._known.value}')

    def refuse(self, length: int, reader: str) -> NoReturn:
        """Raise the error that names the schedule."""
        raise ValueError(
            f'{self.owner}: this epoch has {length} samples, but is read by {reader}. Make the sampler (or Subset, '
            'ConcatDataset) anew after set_epoch, use MixedBatchSampler or DataLoader(..., shuffle=True), or '
            f"mode='replace', since the length follows the schedule {self.schedule}"
        )
