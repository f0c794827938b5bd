"""Does mixing do harm? Non-inferiority to real only, and the advice of other scenes.

Finding no harm means nothing if the interval is wide: a comparison is called non-inferior only if it shows
non-inferiority, and one that could not have shown it is named as such.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from .statistics import MIN_SEEDS, PairedComparison, holm

LEVEL = 0.025
"""Level of the one-sided tests: a single one passes if the 95 % interval lies above minus the margin."""

Option = TypeVar('Option', bound=Hashable)


@dataclass(frozen=True)
class NonInferiority:
    """One-sided paired t test of a difference against minus a margin."""

    comparison: PairedComparison  # with real only, in points
    margin: float  # points that may be lost
    p: float  # p value of the hypothesis that at least the margin is lost
    p_holm: float  # the same, corrected within the family

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval, in points."""
        low, high = self.comparison.interval
        return (high - low) / 2

    @property
    def conclusion(self) -> str:
        """The conclusion, in words.

        ``'non-inferior'``; ``'inferior'``: the whole interval is below minus the margin; ``'too few seeds'`` for any
        claim; ``'too little power'``: the interval is so wide that even a difference of 0 would not have passed;
        ``'not shown'``: anything else.
        """
        if not self.comparison.basis_for_claims:
            return f'too few seeds ({self.comparison.n} of {MIN_SEEDS})'
        if self.p_holm <= LEVEL:
            return 'non-inferior'
        if self.comparison.interval[1] < -self.margin:
            return 'inferior'
        return 'too little power' if self.half_width > self.margin else 'not shown'


def non_inferiority(comparisons: Sequence[PairedComparison], margin: float = 0.5) -> list[NonInferiority]:
    """Test whether less than a margin is lost against real only, in points; p values are corrected by Holm.

    After Piaggio et al., "Reporting of Noninferiority and Equivalence Randomized Trials", JAMA 308, 2012: the margin is
    stated beforehand, and the bound of an interval is compared with it, never a p value of no difference.
    """
    if not margin > 0:
        raise ValueError(f'non_inferiority: a positive margin expected, found {margin}')

    def p_value(comparison: PairedComparison) -> float:
        if comparison.n < 2:
            return 1.0
        above = comparison.mean + margin
        if comparison.sd == 0:
            return 0.0 if above > 0 else 1.0
        return float(stats.t.sf(above / (comparison.sd / math.sqrt(comparison.n)), comparison.n - 1))

    p_values = list(map(p_value, comparisons))
    return [
        NonInferiority(comparison, margin, p, corrected)
        for comparison, p, corrected in zip(comparisons, p_values, holm(p_values), strict=True)
    ]


def advised_by_others(scores: Mapping[str, Mapping[Option, Sequence[float]]]) -> dict[str, Option]:
    """For each scene the fixed option, such as a ratio, that is best on average on all other scenes.

    This is what a user would choose who knows other scenes and has no time for a search; its score minus that of a
    choice is the choice's regret. ``scores`` holds the scores over seeds of each scene and option, real only first.
    Options are compared by their differences to real only, so that the level of a scene does not matter; ties go to
    the earlier option.
    """
    if len(scores) < 2:
        raise ValueError(f'advised_by_others: at least two scenes are needed, found {list(scores)}')
    options = list(next(iter(scores.values())))
    if odd := {scene: list(found) for scene, found in scores.items() if set(found) != set(options)}:
        raise ValueError(f'advised_by_others: every scene must have the options {options}, found {odd}')
    gains = {
        scene: np.array([np.mean(found[option]) - np.mean(found[options[0]]) for option in options])
        for scene, found in scores.items()
    }
    return {
        scene: options[int(np.argmax(np.mean([gain for other, gain in gains.items() if other != scene], axis=0)))]
        for scene in scores
    }
