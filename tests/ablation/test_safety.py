import numpy as np
import pytest
from scipy import stats

from hsiaug.ablation.safety import LEVEL, advised_by_others, non_inferiority
from hsiaug.ablation.statistics import PairedComparison, paired_comparison


def bare(d: np.ndarray) -> PairedComparison:
    """A comparison without bootstrap, which takes long."""
    low, high = stats.t.interval(0.95, len(d) - 1, d.mean(), stats.sem(d))
    nothing = (float('nan'), float('nan'))
    return PairedComparison(len(d), d.mean(), d.std(ddof=1), (low, high), nothing, nothing, 1.0, 0, 0)


def test_alone_the_test_is_the_lower_bound_of_the_interval() -> None:
    rng = np.random.default_rng(0)
    for shift in (-1.5, -0.5, -0.2, 0.0, 0.4):
        d = rng.normal(shift, 0.6, 12)
        (found,) = non_inferiority([paired_comparison(d, np.zeros(12))])
        assert found.p == pytest.approx(stats.ttest_1samp(d, -0.5, alternative='greater').pvalue)
        assert found.p_holm == found.p
        assert (found.p <= LEVEL) == (found.comparison.interval[0] > -0.5)


def test_holm_by_hand_over_the_family() -> None:
    rng = np.random.default_rng(1)
    family = [paired_comparison(rng.normal(shift, 0.5, 10), np.zeros(10)) for shift in (0.0, 0.3, -0.4)]
    found = non_inferiority(family, 0.5)
    order = np.argsort([test.p for test in found])
    first, second, third = (found[i] for i in order)
    assert first.p_holm == pytest.approx(min(1, 3 * first.p))
    assert second.p_holm == pytest.approx(min(1, max(3 * first.p, 2 * second.p)))
    assert third.p_holm == pytest.approx(min(1, max(3 * first.p, 2 * second.p, third.p)))
    assert [test.comparison for test in found] == family


@pytest.mark.parametrize(
    ('mean', 'spread', 'n', 'verdict'),
    [
        (0.0, 0.1, 10, 'non-inferior'),
        (1.0, 0.5, 10, 'non-inferior'),
        (-2.0, 0.5, 10, 'inferior'),
        (0.0, 3.0, 10, 'too little power'),
        (-0.4, 0.4, 10, 'not shown'),
        (0.0, 0.1, 9, 'too few seeds (9 of 10)'),
        (-3.0, 0.1, 3, 'too few seeds (3 of 10)'),
    ],
)
def test_verdicts(mean: float, spread: float, n: int, verdict: str) -> None:
    d = np.linspace(-1, 1, n)
    d = mean + spread * d / d.std(ddof=1)
    (found,) = non_inferiority([paired_comparison(d, np.zeros(n))])
    assert found.conclusion == verdict
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, n - 1) * spread / n**0.5)


def test_without_any_spread_the_mean_decides() -> None:
    for shift, p in ((0.0, 0.0), (-0.25, 0.0), (-0.5, 1.0), (-0.75, 1.0)):
        (found,) = non_inferiority([paired_comparison(np.full(10, shift), np.zeros(10))])
        assert found.p == p
    (single,) = non_inferiority([paired_comparison([2.0], [0.0])])
    assert single.p == 1.0
    assert single.conclusion.startswith('too few seeds')


def test_false_claims_in_a_family_at_the_margin_are_as_rare_as_promised() -> None:
    rng, wrong, trials = np.random.default_rng(2), 0, 400
    for _ in range(trials):
        family = [bare(rng.normal(-0.5, 1, 10)) for _ in range(4)]
        wrong += any(test.p_holm <= LEVEL for test in non_inferiority(family))
    assert wrong / trials < 0.05


def test_a_margin_must_be_positive() -> None:
    with pytest.raises(ValueError, match='a positive margin expected, found 0'):
        non_inferiority([], 0)
    assert non_inferiority([]) == []


def test_advice_is_the_best_option_of_the_other_scenes() -> None:
    scores = {
        'a': {0.0: [50.0, 50.0], 1.0: [52.0, 54.0], 2.0: [40.0, 40.0]},  # gains 3 and -10
        'b': {0.0: [90.0, 90.0], 1.0: [89.0, 89.0], 2.0: [91.0, 91.0]},  # -1 and 1
        'c': {0.0: [10.0, 20.0], 1.0: [14.0, 15.0], 2.0: [17.0, 17.0]},  # -0.5 and 2
    }
    # Without a: -0.75 and 1.5. Without b: 1.25 and -4. Without c: 1 and -4.5.
    assert advised_by_others(scores) == {'a': 2.0, 'b': 1.0, 'c': 1.0}


def test_advice_may_be_to_mix_nothing_in_and_ties_go_to_that() -> None:
    scores = {name: {('real', 0.0): [50.0], ('gan', 1.0): [40.0 + gain]} for name, gain in (('a', 20), ('b', 10))}
    assert advised_by_others(scores) == {'a': ('real', 0.0), 'b': ('gan', 1.0)}


def test_advice_needs_other_scenes_with_the_same_options() -> None:
    with pytest.raises(ValueError, match=r"at least two scenes are needed, found \['a'\]"):
        advised_by_others({'a': {0.0: [1.0]}})
    with pytest.raises(ValueError, match=r"must have the options \[0.0, 1.0\], found \{'b'"):
        advised_by_others({'a': {0.0: [1.0], 1.0: [1.0]}, 'b': {0.0: [1.0]}})
