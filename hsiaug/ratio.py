"""The ratio: synthetic samples per real sample, constant or a function of the epoch.

r = 0 is the real data alone, r = 5 is five synthetic samples for each real one. The synthetic fraction of a batch is
r / (1 + r). A :class:`Schedule` gives the ratio of each epoch; wherever a ratio is expected, you can pass one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

from .settings import NOT_NEGATIVE, check_value

Mode = Literal['append', 'replace']
_MOST = 1 << 62  # samples of an epoch


def require_ratio(ratio: float, name: str = 'ratio') -> float:
    """Return ``ratio`` as a float if it is a ratio: a number, Python's or numpy's, finite and not negative."""
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not math.isfinite(ratio) or ratio < 0:
        raise ValueError(f'{name} must be a finite number >= 0 (synthetic samples per real sample), found {ratio!r}')
    return float(ratio)


def synthetic_fraction(ratio: float) -> float:
    """Share of synthetic samples, r / (1 + r); 1 for an infinite ratio."""
    return 1.0 if math.isinf(ratio) else ratio / (1 + ratio)


def synthetic_count(seen: int, ratio: float, mode: Mode) -> int:
    """How many synthetic samples belong to ``seen`` real ones (append) or to ``seen`` places (replace).

    The count of a batch is the difference between the counts after and before it, so that what batches hold adds up to
    what the epoch holds. Rounding each batch by itself would be biased.

    Raises:
        ValueError: for an infinite ratio in append mode, or one that asks for more samples than can be numbered.
    """
    if mode == 'replace':
        return math.floor(seen * synthetic_fraction(ratio) + 1e-9)
    if math.isinf(ratio):
        raise ValueError("a synthetic-only epoch (ratio inf) cannot keep all real samples; use mode='replace'")
    if ratio * seen >= _MOST:
        raise ValueError(f'ratio {ratio:g} asks for {ratio * seen:g} synthetic samples; give a smaller one')
    return round(ratio * seen)


def source_counts(seen: int, ratios: Sequence[float], mode: Mode) -> list[int]:
    """How many samples of each source belong to ``seen`` real ones (append) or to ``seen`` places (replace).

    Append rounds the count of each source. Replace rounds that of all sources together, and deals it out among them by
    the method of Sainte-Lague: as ``seen`` grows, no count ever falls, so that batches hold differences. From its exact
    share a source is off by (K - 1) / 2 samples at most, so by one of up to three.

    Raises:
        ValueError: for an infinite ratio in append mode.
    """
    if mode == 'append' or len(ratios) == 1:
        return [synthetic_count(seen, ratio, mode) for ratio in ratios]
    total = synthetic_count(seen, sum(ratios), mode)
    weights = [float(math.isinf(ratio)) for ratio in ratios] if math.isinf(sum(ratios)) else list(ratios)
    # Fewer than each gets in the end, and then one after the other to whoever is owed most.
    counts = [math.floor(max(total - len(weights), 0) * weight / (sum(weights) or 1)) for weight in weights]
    while sum(counts) < total:
        counts[max(range(len(counts)), key=lambda k: weights[k] / (counts[k] + 0.5))] += 1
    return counts


class Schedule:
    """The ratio as a function of the epoch, counted from 0."""

    def __call__(self, epoch: int) -> float:
        """Ratio of an epoch, >= 0; ``inf`` is synthetic samples only, in replace mode."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """A constant ratio."""

    ratio: float

    def __post_init__(self) -> None:
        require_ratio(self.ratio)

    def __call__(self, epoch: int) -> float:
        """The ratio."""
        return float(self.ratio)


@dataclass(frozen=True)
class _Ramp(Schedule):
    """From ``start`` in epoch 0 to ``end`` in epoch ``epochs``, and ``end`` from then on."""

    start: float
    end: float
    epochs: int

    def __post_init__(self) -> None:
        require_ratio(self.start, 'start')
        require_ratio(self.end, 'end')
        check_value(type(self).__name__, 'epochs', self.epochs, int)


class Linear(_Ramp):
    """A ratio that changes from ``start`` in epoch 0 to ``end`` in epoch ``epochs`` linearly, then stays there."""

    def __call__(self, epoch: int) -> float:
        """Ratio of an epoch."""
        return self.start + (self.end - self.start) * min(epoch / self.epochs, 1.0)


class Cosine(_Ramp):
    """A ratio that changes from ``start`` to ``end`` over ``epochs`` along half a cosine, then stays there."""

    def __call__(self, epoch: int) -> float:
        """Ratio of an epoch."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * min(epoch / self.epochs, 1.0))) / 2


@dataclass(frozen=True)
class Step(Schedule):
    """Ratios by the epoch from which they apply, such as ``{0: 2, 10: 0.5, 20: 0}``."""

    ratios: Mapping[int, float]

    def __post_init__(self) -> None:
        if (
            0 not in self.ratios
            or min(self.ratios) < 0
            or not all(isinstance(epoch, Integral) for epoch in self.ratios)
        ):
            raise ValueError(f'Step: the ratio from epoch 0 on must be given, found epochs {sorted(self.ratios)}')
        for ratio in self.ratios.values():
            require_ratio(ratio)

    def __call__(self, epoch: int) -> float:
        """Ratio of an epoch."""
        return float(self.ratios[max(start for start in self.ratios if start <= epoch)])


@dataclass(frozen=True)
class SyntheticFirst(Schedule):
    """``epochs`` of synthetic samples only, then fine-tuning at ``ratio`` (0: real only). For replace mode."""

    epochs: int
    ratio: float = 0.0

    def __post_init__(self) -> None:
        require_ratio(self.ratio)
        check_value('SyntheticFirst', 'epochs', self.epochs, int, NOT_NEGATIVE)

    def __call__(self, epoch: int) -> float:
        """Ratio of an epoch."""
        return math.inf if epoch < self.epochs else float(self.ratio)


@dataclass(frozen=True)
class Together(Schedule):
    """The ratio of several sources together, each on its own schedule."""

    schedules: tuple[Schedule, ...]

    def __call__(self, epoch: int) -> float:
        """Sum of the ratios."""
        return sum(schedule(epoch) for schedule in self.schedules)


def together(schedules: Sequence[Schedule]) -> Schedule:
    """One schedule of the sum of several."""
    if all(isinstance(schedule, Constant) for schedule in schedules) and len(schedules) > 1:
        return Constant(sum(schedule(0) for schedule in schedules))
    return schedules[0] if len(schedules) == 1 else Together(tuple(schedules))


def ratio_in(schedule: Schedule, epoch: int, owner: str) -> float:
    """What a schedule gives for an epoch.

    Raises:
        ValueError: if it is not a ratio.
    """
    ratio = schedule(epoch)
    if not ratio >= 0:
        raise ValueError(f'{owner}: the schedule {schedule} gives {ratio} in epoch {epoch}, expected a ratio >= 0')
    return ratio


def as_schedule(ratio: float | Schedule) -> Schedule:
    """A number as a constant schedule; a schedule as it is.

    Raises:
        ValueError: for anything else.
    """
    if callable(ratio) and not isinstance(ratio, Schedule):
        raise ValueError(f'a ratio is a number or a hsiaug.ratio.Schedule, such as Linear(0, 1, 10), found {ratio!r}')
    return ratio if isinstance(ratio, Schedule) else Constant(require_ratio(ratio))
