"""The choice of a ratio on validation folds within the training area, with 0 among the choices.

A wrong ratio costs accuracy, and validation on few labels is noisy. Therefore, every candidate is paired with ratio 0
on the same folds and seeds, a race drops the worse half early, and a candidate wins only if it beats ratio 0 by ``k``
standard errors; otherwise nothing is mixed in. Results from other scenes can be used as a prior.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ..ratio import require_ratio
from ..settings import ANY, Range, check_settings, check_value
from ..streams import stream_seed
from ..tasks.base import finite


@dataclass(frozen=True)
class Candidate:
    """A ratio, with or without a gate.

    Args:
        ratio: synthetic samples per real sample.
        threshold: threshold of the gate; None without a gate.
    """

    ratio: float
    threshold: float | None = None

    def __post_init__(self) -> None:
        require_ratio(self.ratio)
        if self.threshold is not None:
            check_value('Candidate', 'threshold', self.threshold, float, ANY)


REAL_ONLY = Candidate(0.0)


class Trial(Protocol):
    """Train a downstream model and score it on data that it was not trained on.

    An attribute ``cost`` says how many plain trainings a call takes; it is 1 where there is none.
    """

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        """Score, higher is better, of a model trained with a candidate.

        Args:
            candidate: ratio and threshold; ratio 0 is the real data alone.
            fold: which fold validates.
            seed: of the deal to folds and of the training; equal seeds make candidates comparable.
        """
        ...


@dataclass(frozen=True)
class Standing:
    """Comparison of a candidate with ratio 0.

    Args:
        candidate: ratio and threshold.
        trials: number of its paired trials, per scene.
        mean: mean paired difference to ratio 0, in units of the score.
        standard_error: standard error of that mean; infinite after a single trial.
    """

    candidate: Candidate
    trials: int
    mean: float
    standard_error: float

    def clears(self, k: float) -> bool:
        """Whether the mean is above 0 and above ``k`` standard errors."""
        return self.mean > (k * self.standard_error if k else 0.0)


@dataclass(frozen=True)
class RatioChoice:
    """The result of a search.

    Args:
        chosen: the candidate to train with; ratio 0 if none was clearly better.
        standings: all candidates, ordered by how far they came in the race, then by their mean.
        k: number of standard errors by which the best had to beat ratio 0.
        trainings: number of trainings.
        cost: their cost in full trainings.
    """

    chosen: Candidate
    standings: tuple[Standing, ...]
    k: float
    trainings: int
    cost: float

    @property
    def ratio(self) -> float:
        """The ratio to train with."""
        return self.chosen.ratio

    @property
    def threshold(self) -> float | None:
        """The gate's threshold to train with."""
        return self.chosen.threshold

    def decided(self, k: float) -> RatioChoice:
        """The choice that another ``k`` would have made from the same race."""
        check_value('RatioChoice', 'k', k, float)
        best = self.standings[0]
        return replace(self, chosen=best.candidate if best.clears(k) else REAL_ONLY, k=k)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary; an infinite standard error is null."""
        found: dict[str, Any] = finite(dataclasses.asdict(self))
        return found

    def __str__(self) -> str:
        """The choice and its reason, in one line."""
        best = self.standings[0]
        gate = '' if best.candidate.threshold is None else f', gate at {best.candidate.threshold:g}'
        return (
            f'ratio {self.ratio:g}: the best other ratio, {best.candidate.ratio:g}{gate}, differs from 0 by '
            f'{best.mean:+.4f} ± {best.standard_error:.4f} (standard error; {self.k:g} times it or more is needed) in '
            f'{best.trials} trials; {self.trainings} trainings at the cost of {self.cost:g} full ones'
        )


@dataclass(frozen=True)
class RatioSearch:
    """Chooses a ratio by a race of candidates on validation folds; call it with a :class:`Trial`.

    Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
    Optimization", AISTATS 2016): all candidates run the first trials, the better half continues until twice as many are
    done, and so on; the best of the last round is compared with ratio 0. Trial t scores fold ``t % folds`` of division
    ``t // folds``, so that more trials than folds repeat the cross-fitting with other folds and seeds.

    Folds of one training area share samples, so the differences of n trials are not independent. Their standard
    error is s·√(1/n + 1/(folds − 1)), where the second term is the ratio of validation to training samples (Nadeau and
    Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003); more trials do not bring it to zero.

    Args:
        ratios: candidates above 0; 0 is always included.
        thresholds: thresholds of a gate, each combined with each ratio; empty without a gate.
        folds: number of folds, at least 2.
        trials: number of trials of the best candidate.
        first: number of trials before the first candidates drop out; if equal to ``trials``, none does.
        k: number of standard errors by which the best mean must exceed 0; otherwise ratio 0 is chosen. On four scenes,
            1 lost less often than 0.5 and gained as much; 2 never mixed anything in.
        seed: seed of the folds and trainings.

    Raises:
        ValueError: if there is no ratio above 0, or a number is out of its range.
    """

    ratios: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0)
    thresholds: tuple[float, ...] = ()
    folds: int = 3
    trials: int = 6
    first: int = 2
    k: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for what in ('ratios', 'thresholds'):
            check_value('RatioSearch', what, getattr(self, what), tuple[Any, ...])
        ratios = [require_ratio(ratio) for ratio in self.ratios]
        if not any(ratios):
            raise ValueError(f'RatioSearch: at least one ratio above 0 expected, found {self.ratios}')
        for threshold in self.thresholds:
            check_value('RatioSearch', 'threshold', threshold, float, ANY)
        if len(set(self.thresholds)) < len(self.thresholds):
            raise ValueError(f'RatioSearch: each threshold once expected, found {self.thresholds}')
        check_settings(self, thresholds=ANY, folds=Range(2), seed=ANY)
        if self.first > self.trials:
            raise ValueError(f'RatioSearch: first must be at most trials, found {self.first} and {self.trials}')

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates above ratio 0, lower ratios first: ties go to them."""
        ratios = sorted({float(ratio) for ratio in self.ratios if ratio > 0})
        return tuple(Candidate(ratio, gate) for ratio in ratios for gate in self.thresholds or (None,))

    def __call__(self, trial: Trial, others: Sequence[RatioChoice] = ()) -> RatioChoice:
        """Choose for one scene.

        Args:
            trial: trains and scores on one fold.
            others: results of searches among the same candidates on at least two other scenes. They are a prior for the
                difference of each candidate: its mean and variance over scenes are combined with this scene's own
                mean, weighted by their variances.
        """
        return self._race([trial], others)

    def pooled(self, trials: Mapping[str, Trial], others: Sequence[RatioChoice] = ()) -> RatioChoice:
        """Choose one candidate for several scenes by their trials, all scenes weighing the same."""
        if not trials:
            raise ValueError('RatioSearch: at least one scene is needed')
        return self._race(list(trials.values()), others)

    def _race(self, trials: list[Trial], others: Sequence[RatioChoice]) -> RatioChoice:
        prior = _prior(self.candidates, others)
        # scores so far, by scene and candidate
        scores: dict[tuple[int, Candidate], list[float]] = {}
        racing, done, goal = list(self.candidates), 0, self.first
        finished: list[Standing] = []
        trainings, cost = 0, 0.0
        while True:
            for t in range(done, goal):
                seed = stream_seed(self.seed, t // self.folds)
                for scene, trial in enumerate(trials):
                    for candidate in (REAL_ONLY, *racing):
                        score = trial(candidate, t % self.folds, seed)
                        where = f'RatioSearch: {candidate} on fold {t % self.folds}'
                        scores.setdefault((scene, candidate), []).append(finite_score(score, where))
                        trainings, cost = trainings + 1, cost + float(getattr(trial, 'cost', 1.0))
            done = goal
            table = [self._standing(candidate, scores, len(trials), prior) for candidate in racing]
            table.sort(key=lambda standing: -standing.mean)  # stable: ties go to the lower ratio
            if done == self.trials:
                break
            stay = -(-len(table) // 2)
            finished = table[stay:] + finished
            racing = [candidate for candidate in racing if candidate in {s.candidate for s in table[:stay]}]
            goal = self.trials if len(racing) == 1 else min(2 * done, self.trials)
        found = RatioChoice(REAL_ONLY, (*table, *finished), self.k, trainings, round(cost, 6))
        return found.decided(self.k)

    def _standing(
        self,
        candidate: Candidate,
        scores: Mapping[tuple[int, Candidate], list[float]],
        scenes: int,
        prior: Mapping[Candidate, tuple[float, float]],
    ) -> Standing:
        pairs = [(scores[scene, candidate], scores[scene, REAL_ONLY]) for scene in range(scenes)]
        n = len(pairs[0][0])
        gains = np.array([np.subtract(mine, real[:n]) for mine, real in pairs])
        mean, variance = float(gains.mean()), variance_of_mean(gains, self.folds)
        if candidate in prior:  # both estimates together, each weighing the inverse of its variance
            expected, uncertain = prior[candidate]
            own, others = 1 / max(variance, 1e-12), 1 / max(uncertain, 1e-12)
            mean, variance = (mean * own + expected * others) / (own + others), 1 / (own + others)
        return Standing(candidate, n, mean, math.sqrt(variance))


def finite_score(value: Any, where: str) -> float:
    """A score as a number."""
    if isinstance(value, bool | str) or value is None or not math.isfinite(float(value)):
        raise ValueError(f'{where}: a finite score expected, found {value!r}')
    return float(value)


def variance_of_mean(gains: np.ndarray, folds: int) -> float:
    """Variance of the mean of paired differences (scenes, n) on so many folds, see :class:`RatioSearch`.

    Infinite where there is nothing to take it from.
    """
    scenes, n = gains.shape
    if n < 2 or folds < 2:
        return math.inf
    return float(gains.var(axis=1, ddof=1).mean()) * (1 / n + 1 / (folds - 1)) / scenes


def _prior(candidates: Sequence[Candidate], others: Sequence[RatioChoice]) -> dict[Candidate, tuple[float, float]]:
    """Mean and variance with which other scenes predict each candidate's difference on a new one."""
    if not others:
        return {}
    if len(others) == 1:
        raise ValueError(
            'RatioSearch: a single other scene does not show the variation between scenes; give two or more'
        )
    tables = [{standing.candidate: standing.mean for standing in other.standings} for other in others]
    if missing := [c for c in candidates if any(c not in table for table in tables)]:
        raise ValueError(f'RatioSearch: the other scenes were searched without {missing}; search the same candidates')
    return {
        c: (
            float(np.mean([table[c] for table in tables])),
            float(np.var([table[c] for table in tables], ddof=1)) * (1 + 1 / len(tables)),
        )
        for c in candidates
    }
