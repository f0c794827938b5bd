"""Paired statistics of a study.

Seeds are paired: split, initialisation and order of samples vary together between seeds and are the same in all arms.
The primary family compares each arm, at its default ratio or else the chosen one, with real data only, in every setting
with enough seeds for a claim, corrected by Holm; everything else is exploratory.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from ..tasks import METRICS
from .plan import REAL

Row = Mapping[str, Any]
Interval = tuple[float, float]

MIN_SEEDS = 10
"""Smallest number of paired seeds for a claim."""
EXACT_SIGN_FLIPS = 20
"""Up to this number of pairs, all sign flips are enumerated."""
_MONTE_CARLO = 100_000
CONFIDENCE = 0.95  # of intervals
CHOSEN = 'chosen'
"""Replaces the ratio in rows of arms whose ratio is chosen on validation data."""


@dataclass(frozen=True)
class PairedComparison:
    """Differences of paired measurements."""

    n: int  # number of pairs
    mean: float  # mean difference, treatment less baseline
    sd: float  # standard deviation of the differences
    interval: Interval  # paired-t interval
    bca: Interval  # bias-corrected and accelerated bootstrap interval, which undercovers at small n
    # Nadeau–Bengio interval, which allows for overlapping splits of one scene; NaN if their sizes are unknown.
    corrected: Interval
    p: float  # two-sided sign-flip p value
    wins: int  # pairs with a positive difference
    losses: int  # pairs with a negative difference

    @property
    def basis_for_claims(self) -> bool:
        """Whether there are enough pairs for a claim."""
        return self.n >= MIN_SEEDS


def paired_comparison(
    treatment: Sequence[float] | np.ndarray,
    baseline: Sequence[float] | np.ndarray,
    test_train_ratio: float | None = None,
) -> PairedComparison:
    """Compare (n,) measurements with those of a baseline for the same seeds.

    Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003: the variance of the mean is
    (1/n + n_test/n_train)·s² where splits of one data set overlap; ``test_train_ratio`` is n_test / n_train.
    """
    a, b = np.asarray(treatment, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(f'paired measurements must have one length, found shapes {a.shape} and {b.shape}')
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError('paired measurements must be finite; a cell without a result has no pair')
    # Values equal up to rounding are ties: sign flips would count a difference of 1e-17.
    d = np.where(np.isclose(a, b, rtol=1e-12, atol=0), 0.0, a - b)
    n, mean, sd = len(d), float(d.mean()), _standard_deviation(d)
    if sd <= 1e-12 * max(1.0, float(np.abs(a).max())):
        sd = 0.0  # differences equal up to rounding have no variance
    interval = bca = _interval(mean, sd / n**0.5, n - 1)
    if sd > 0:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # degenerate resamples of very few pairs
            found = stats.bootstrap(
                (d,), np.mean, confidence_level=CONFIDENCE, method='BCa', n_resamples=9999, rng=np.random.default_rng(0)
            )
        bca = float(found.confidence_interval.low), float(found.confidence_interval.high)
    ratio = math.nan if test_train_ratio is None else test_train_ratio
    corrected = _interval(mean, sd * (1 / n + ratio) ** 0.5, n - 1)
    return PairedComparison(
        n, mean, sd, interval, bca, corrected, sign_flip_p(d), int((d > 0).sum()), int((d < 0).sum())
    )


def compare_cells(cells: Mapping[int, Row], base: Mapping[int, Row], metric: str) -> PairedComparison | None:
    """Comparison of cells with others of the same seeds, in points of a test metric; None without a common seed."""
    seeds = sorted(set(cells) & set(base))
    if not seeds:
        return None
    a, b = ([100 * side[seed]['test'][metric] for seed in seeds] for side in (cells, base))
    sizes = [base[seed]['test_count'] / max(base[seed]['train_real'], 1) for seed in seeds]
    return paired_comparison(a, b, float(np.mean(sizes)))


def _standard_deviation(values: np.ndarray) -> float:
    """NaN of one value alone."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _interval(mean: float, standard_error: float, freedom: float) -> Interval:
    """Student's t interval around a mean; NaN if its standard error is."""
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * standard_error
    return mean - half, mean + half


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, Interval]:
    """Mean of values and its 95 % interval by Student's t; NaN ends of one value alone."""
    d = np.asarray(values, dtype=np.float64)
    mean = float(d.mean())
    return mean, _interval(mean, _standard_deviation(d) / len(d) ** 0.5, len(d) - 1)


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p value of the mean under random signs.

    Exact up to 20 differences: the sums over all signs of one half are looked up against those of the other half, so
    2ⁿ sums cost 2^(n/2) memory. Above that, 100 000 random signs, plus the observed ones.
    """
    d = np.asarray(differences, dtype=np.float64)
    observed = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # sums in a different order differ in the last bits
    if observed <= 0:
        return 1.0
    if len(d) > EXACT_SIGN_FLIPS:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(_MONTE_CARLO, len(d)))
        return float((1 + (np.abs(signs @ d) >= observed).sum()) / (1 + _MONTE_CARLO))
    halves = []
    for half in (d[: len(d) // 2], d[len(d) // 2 :]):
        sums = np.zeros(1)
        for value in half:
            sums = np.concatenate([sums - value, sums + value])
        halves.append(np.sort(sums))
    first, second = halves
    above = len(second) - np.searchsorted(second, observed - first, side='left')
    below = np.searchsorted(second, -observed - first, side='right')
    return float((above + below).sum() / (len(first) * len(second)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Scandinavian Journal of Statistics 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind='stable')
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()


GroupKey = tuple[str, str, str]  # scene, budget, classifier


@dataclass(frozen=True)
class Summary:
    """One line of the result table: an arm at a ratio, or at the ratio chosen on validation data.

    Metrics are in %, differences in points.
    """

    scene: str
    budget: str  # split and label budget
    classifier: str  # downstream classifier
    arm: str
    ratio: float | str  # synthetic samples per real one, or `'chosen'`
    control: bool  # whether the arm is a control
    means: Mapping[str, float]  # mean of each test metric over the arm's seeds
    gain: PairedComparison | None  # primary metric against real only; None for real only itself, or without a pair
    second_gain: PairedComparison | None  # the second metric against real only
    ratios: tuple[float, ...] = ()  # ratio of each seed
    primary: bool = False  # member of the primary family
    p_holm: float | None = None  # p value of `gain`, corrected within the primary family
    default: bool = False  # the ratio is the arm's default

    @property
    def key(self) -> GroupKey:
        """Scene, budget and downstream model; each combination has its own panel and table."""
        return self.scene, self.budget, self.classifier


def by_group(rows: Iterable[Row]) -> dict[GroupKey, list[Row]]:
    """Rows by scene, budget and classifier, in order of appearance."""
    groups: dict[GroupKey, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row['scene'], row['budget'], row['classifier']].append(row)
    return dict(groups)


def choose_ratios(rows: Sequence[Row], arm: str, metric: str = 'oa') -> dict[int, Row]:
    """By seed, the cell with the best validation score among an arm's ratios, including 0 (real only).

    Only validation scores are used. Ties go to the smallest ratio. A seed without the real-only cell or one of the
    arm's ratios, as in an interrupted run, is left out, since it would choose among fewer ratios.
    """
    ratios = {row['ratio'] for row in rows if row['arm'] == arm}
    candidates: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row['arm'] in (REAL, arm):
            candidates[row['seed']].append(row)
    return {
        seed: max(cells, key=lambda row: (row['val'][metric], -row['ratio']))
        for seed, cells in sorted(candidates.items())
        if any(row['arm'] == REAL for row in cells) and ratios == {r['ratio'] for r in cells if r['arm'] == arm}
    }


def summarise(rows: Sequence[Row], metrics: Sequence[str] = METRICS) -> list[Summary]:
    """The result table of finished cells, the primary family corrected by Holm; the first metric is the primary."""
    table = [line for key, cells in by_group(rows).items() for line in _lines(key, cells, metrics)]
    primary = {i: line.gain.p for i, line in enumerate(table) if line.primary and line.gain is not None}
    for i, p in zip(primary, holm(list(primary.values())), strict=True):
        table[i] = replace(table[i], p_holm=p)
    return table


def _lines(key: GroupKey, cells: Sequence[Row], metrics: Sequence[str]) -> Iterator[Summary]:
    """The table of one scene, budget and classifier."""
    real = {row['seed']: row for row in cells if row['arm'] == REAL}

    def line(
        arm: str, ratio: float | str, picked: Mapping[int, Row], control: bool, primary: bool, default: bool = False
    ) -> Summary:
        gain, second = (None if arm == REAL else compare_cells(picked, real, metric) for metric in metrics[:2])
        means = {m: 100 * float(np.mean([row['test'][m] for row in picked.values()])) for m in metrics}
        ratios = tuple(float(row['ratio']) for row in picked.values())
        primary = primary and not control and gain is not None and gain.basis_for_claims
        return Summary(*key, arm, ratio, control, means, gain, second, ratios, primary, default=default)

    if real:
        yield line(REAL, 0.0, real, control=False, primary=False)
    for arm in dict.fromkeys(row['arm'] for row in cells if row['arm'] != REAL):
        mine = [row for row in cells if row['arm'] == arm]
        control = bool(mine[0].get('control'))
        usual = next((row['ratio'] for row in mine if row.get('default')), None)
        for ratio in sorted({row['ratio'] for row in mine}):
            picked = {row['seed']: row for row in mine if row['ratio'] == ratio}
            yield line(arm, ratio, picked, control, ratio == usual, ratio == usual)
        if chosen := choose_ratios(cells, arm, metrics[0]):
            yield line(arm, CHOSEN, chosen, control, usual is None)


@dataclass(frozen=True)
class Pooled:
    """An arm's differences to real only, averaged over scenes with equal weight.

    The intervals reflect the variance between seeds. They are valid for these scenes, not for others.
    """

    gain: float  # mean difference in the primary metric, points
    second_gain: float  # mean difference in the second metric, points
    interval: Interval  # 95 % interval of `gain`
    second_interval: Interval  # 95 % interval of `second_gain`
    scenes: dict[str, tuple[float, float]]  # mean differences of each scene in the two metrics


def mean_of_means(comparisons: Sequence[PairedComparison]) -> tuple[float, Interval]:
    """Unweighted mean of independent mean differences, one per scene, and its interval; NaN for fewer than 2 pairs.

    Degrees of freedom after Satterthwaite, "An Approximate Distribution of Estimates of Variance Components",
    Biometrics Bulletin 2, 1946.
    """
    mean = float(np.mean([c.mean for c in comparisons]))
    variances = np.array([c.sd**2 / c.n for c in comparisons])
    total = float(variances.sum())
    # Without any variance, the interval is the mean.
    freedom = total**2 / float(np.sum(variances**2 / [c.n - 1 for c in comparisons])) if total else 1.0
    return mean, _interval(mean, total**0.5 / len(comparisons), freedom)


def pooled(table: Sequence[Summary]) -> dict[tuple[str, str, str], Pooled]:
    """Mean over scenes of the differences to real only at the chosen ratio, by budget, classifier and arm."""
    scenes: dict[tuple[str, str, str], dict[str, tuple[PairedComparison, PairedComparison]]] = defaultdict(dict)
    for line in table:
        if line.ratio == CHOSEN and line.gain is not None and line.second_gain is not None:
            scenes[line.budget, line.classifier, line.arm][line.scene] = (line.gain, line.second_gain)
    means = {}
    for key, each in scenes.items():
        first, interval = mean_of_means([gain for gain, _ in each.values()])
        second, second_interval = mean_of_means([second for _, second in each.values()])
        own = {scene: (gain.mean, other.mean) for scene, (gain, other) in each.items()}
        means[key] = Pooled(first, second, interval, second_interval, own)
    return means
