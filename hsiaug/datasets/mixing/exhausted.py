"""The length of an epoch: what happens if a source runs out, and whether samplers know of a new length."""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import ge, gt
from typing import Literal, NoReturn

from torch.utils.data import DistributedSampler

from ...ratio import Mode, Schedule
from ...settings import check_value
from ..shared import SharedInt

Exhausted = Literal['error', 'repeat', 'first_exhausted', 'all_exhausted']
"""What to do if an epoch asks for more samples than a dataset of synthetic ones holds.

``'error'``: raise an error. ``'repeat'``: use samples again, none twice before each was used once.
``'first_exhausted'``: end the epoch, at its ratio, before the first source runs out, with other real samples in every
epoch. ``'all_exhausted'``: continue the epoch, at its ratio, until all real samples and as many samples as each source
holds have been used; shorter ones repeat. A generator never runs out.
"""
_AHEAD = 10_000  # epochs in which a schedule may fall to 0


def require_policy(
    owner: str,
    policy: Exhausted,
    replacement: bool = False,
    mode: Mode = 'append',
    schedules: Sequence[Schedule] = (),
    epoch_size: int | None = None,
    batches: bool = False,
) -> Exhausted:
    """The policy, if it is valid; ``batches`` tells whether batches of another loader are mixed.

    Raises:
        ValueError: if it is unknown, an epoch could never end under it, or it would change a fixed length.
    """
    check_value(owner, 'on_exhausted', policy, Exhausted)
    check_value(owner, 'epoch_size', epoch_size, int | None)
    if replacement and policy not in ('error', 'repeat'):
        raise ValueError(f'{owner}: replacement=True is on_exhausted="repeat", found {policy!r} as well; give one')
    if batches and epoch_size is not None:
        raise ValueError(f'{owner}: epoch_size={epoch_size}, but the loader of real samples fixes the length')
    if policy in ('error', 'repeat'):
        return 'repeat' if replacement else policy
    if batches or mode == 'replace' or epoch_size is not None:
        why = 'the loader of the real samples' if batches else "mode='replace'" if epoch_size is None else 'epoch_size'
        raise ValueError(
            f'{owner}: on_exhausted={policy!r} changes the length of an epoch, which {why} fixes; choose "error" or '
            '"repeat"'
        )
    if policy == 'all_exhausted':
        for schedule in schedules:
            if (never := next((epoch for epoch in range(_AHEAD) if schedule(epoch) == 0), None)) is not None:
                raise ValueError(
                    f'{owner}: on_exhausted="all_exhausted" with the ratio {schedule}, which is 0 in epoch {never}: '
                    'such an epoch would never end; choose another policy, or ratios above 0'
                )
    return policy


def real_samples(
    policy: Exhausted, real: int, held: Sequence[float], ratios: Sequence[float], counts: Callable[[int], list[int]]
) -> int:
    """Number of the ``real`` real samples in an epoch in append mode.

    The sources hold (K,) ``held`` samples, infinitely many for a generator; ``counts`` maps a number of real samples to
    those of each source.
    """
    if policy in ('error', 'repeat'):
        return real
    if policy == 'all_exhausted':
        needed = [size if ratio > 0 and math.isfinite(size) else 0 for size, ratio in zip(held, ratios, strict=True)]
        most = max(math.ceil(size / (ratio or 1)) for size, ratio in zip(needed, ratios, strict=True))
        return bisect_left(range(max(real, most)), True, real, key=lambda n: all(map(ge, counts(n), needed)))
    n = bisect_left(range(real + 1), True, key=lambda n: any(map(gt, counts(n), held))) - 1
    if n < 1:
        raise ValueError(
            f'on_exhausted="first_exhausted" leaves no real sample: the sources hold {list(held)} samples for ratios '
            f'{list(ratios)}; make them longer, lower the ratio, or choose another policy'
        )
    return n


class KnownLength:
    """Length known to samplers, of a dataset whose length a schedule changes from epoch to epoch.

    The sampler of ``shuffle=True`` asks for it at every epoch. A sampler over fixed indices or weights never does: it
    would miss new samples, or exceed the end. A ``DistributedSampler`` does, but keeps its first total: it would repeat
    samples, or fail. Both get an error that names the schedule. User code that has asked for the length counts as
    knowing it.
    """

    def __init__(self, owner: str, schedule: Schedule, length: int) -> None:
        self.owner, self.schedule = owner, schedule
        self._known = SharedInt(length)  # workers compare it

    def tell(self, length: int) -> None:
        """Note that someone knows the current length."""
        self._known.value = length

    def tell_caller(self, length: int) -> None:
        """Note that the caller of ``len`` knows it; to be called from ``__len__`` itself.

        Raises:
            ValueError: if the caller is a ``DistributedSampler`` that divides an epoch by another length.
        """
        # torch reads the length again to divide an epoch; nothing else shows that it keeps its first total.
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
