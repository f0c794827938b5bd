"""The ratio as a probability, for libraries that gate each sample by itself."""

from __future__ import annotations

import torch

from ..ratio import Constant, Schedule, as_schedule, synthetic_fraction


class MixProbability:
    """Probability that a sample is replaced: p as it is, or what a ratio means in the current epoch.

    Args:
        owner: name of the transform, for errors.
        ratio: synthetic samples per real one, or a schedule of it.
        p: the fraction that is synthetic.

    Raises:
        ValueError: if not exactly one of them is given, or the one is out of range.
    """

    def __init__(self, owner: str, ratio: float | Schedule | None, p: float | None) -> None:
        if (ratio is None) == (p is None):
            raise ValueError(
                f'{owner}: give either ratio (synthetic samples per real one) or p (the fraction that is synthetic), '
                f'found ratio={ratio}, p={p}'
            )
        if p is not None and (isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1):
            raise ValueError(f'{owner}: p must lie in [0, 1] (the fraction that is synthetic), found {p!r}')
        self.p, self.ratio = p, None if ratio is None else as_schedule(ratio)
        # In shared memory, so that persistent workers see the epoch change.
        self._epoch = torch.zeros((), dtype=torch.int64, device='cpu').share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Follow the schedule to an epoch, in all workers."""
        self._epoch.fill_(epoch)

    @property
    def value(self) -> float:
        """The probability in the current epoch."""
        return float(self.p or 0) if self.ratio is None else synthetic_fraction(self.ratio(int(self._epoch)))

    def __repr__(self) -> str:
        """As it was given."""
        if self.ratio is None:
            return f'p={self.p:g}'
        return f'ratio={self.ratio.ratio:g}' if isinstance(self.ratio, Constant) else f'ratio={self.ratio}'


class GatedByRatio:
    """What a library's transform needs for its gate ``p`` to follow a ratio; stands before the library's base class."""

    def _set_probability(self, ratio: float | Schedule | None, p: float | None) -> None:
        self.probability = MixProbability(type(self).__name__, ratio, p)

    @property
    def p(self) -> float:
        """Probability that a sample is gated in the current epoch."""
        return self.probability.value

    @p.setter
    def p(self, value: float) -> None:
        # The library's constructor writes what was just read; anything else is the user's own constant.
        if value != self.probability.value:
            self._set_probability(None, value)

    def set_epoch(self, epoch: int) -> None:
        """Follow a schedule of the ratio to an epoch, in data-loader workers too."""
        self.probability.set_epoch(epoch)
