"""Learning rates over a training: each schedule gives the factor of a step, out of how many there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int, int], float]
"""Factor of the learning rate at a step, counted from 0, given the number of steps."""


def constant(step: int, steps: int) -> float:
    """The learning rate as it is."""
    return 1.0


@dataclass(frozen=True)
class WarmUp:
    """A linear rise over the first steps, then the learning rate as it is."""

    length: int = 20  # steps of the rise

    def __call__(self, step: int, steps: int) -> float:
        """The factor of a step."""
        return min(1.0, (step + 1) / self.length)


@dataclass(frozen=True)
class Cosine:
    """A fall to zero along a cosine, after a linear rise."""

    warm_up: int = 0  # steps of the rise; 0 for none

    def __call__(self, step: int, steps: int) -> float:
        """The factor of a step."""
        rise = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class Staircase:
    """The learning rate multiplied by a factor after each of several equal parts."""

    factor: float = 0.5  # of each part
    parts: int = 4  # that the training is divided into

    def __call__(self, step: int, steps: int) -> float:
        """The factor of a step."""
        return self.factor ** (self.parts * step // steps)


@dataclass(frozen=True)
class Polynomial:
    """A linear rise over a share of the steps, times a polynomial fall to zero over all of them."""

    warm_up: float = 0.0  # share of the steps
    power: float = 0.9  # of the fall

    def __call__(self, step: int, steps: int) -> float:
        """The factor of a step."""
        return min((step + 1) / max(self.warm_up * steps, 1), 1.0) * (1 - step / steps) ** self.power


@dataclass(frozen=True)
class OneCycle:
    """A rise along a cosine, then a fall along another to almost zero, as in torch's ``OneCycleLR``.

    Smith and Topin (2019), Super-Convergence, https://arxiv.org/abs/1708.07120.
    """

    rise: float = 0.3  # share of the steps

    def __call__(self, step: int, steps: int) -> float:
        """The factor of a step."""
        return self.between(1 / 25, 1.0, 1 / 25e4, step, steps)

    def between(self, first: float, middle: float, last: float, step: int, steps: int) -> float:
        """A value that goes from the first to the middle one while the rate rises, and to the last while it falls."""
        turn = self.rise * steps - 1
        rises = step <= turn
        start, end, share = (
            (first, middle, step / turn) if rises else (middle, last, (step - turn) / (steps - 1 - turn))
        )
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
