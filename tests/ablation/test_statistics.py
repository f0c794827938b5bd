import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hsiaug.ablation.statistics import (
    choose_ratios,
    holm,
    mean_of_means,
    paired_comparison,
    pooled,
    sign_flip_p,
    summarise,
)


def test_against_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 12), rng.normal(0.5, 1, 12)
    found = paired_comparison(a, b)
    t = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.interval == pytest.approx((t.low, t.high))
    bca = stats.bootstrap((a - b,), np.mean, method='BCa', rng=np.random.default_rng(5)).confidence_interval
    assert found.bca == pytest.approx((bca.low, bca.high), abs=0.05)
    exact = stats.permutation_test(
        (a - b,), lambda x, axis: x.mean(axis=axis), permutation_type='samples', n_resamples=np.inf, vectorized=True
    )
    assert found.p == pytest.approx(exact.pvalue)


@pytest.mark.parametrize('n', [1, 2, 3, 7, 10])
def test_sign_flips_by_brute_force(n: int) -> None:
    for seed in range(5):
        d = np.random.default_rng(seed).integers(-3, 4, n).astype(float)  # with ties and zeros
        sums = [abs(np.dot(s, d)) for s in itertools.product([-1, 1], repeat=n)]
        assert sign_flip_p(d) == pytest.approx(np.mean(np.array(sums) >= abs(d.sum()) - 1e-9))


def test_twenty_seeds_are_exact_and_more_are_close() -> None:
    assert sign_flip_p(np.arange(1.0, 21)) == 2 / 2**20
    d = np.random.default_rng(1).normal(0.3, 1, 25)
    assert sign_flip_p(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)


def test_coverage_and_level_on_simulated_data() -> None:
    rng, covered, rejected, trials = np.random.default_rng(2), 0, 0, 2000
    t = stats.t.ppf(0.975, 9)
    for _ in range(trials):
        d = rng.normal(0.7, 2, 10)
        half = t * d.std(ddof=1) / 10**0.5
        covered += d.mean() - half <= 0.7 <= d.mean() + half
        rejected += sign_flip_p(d - 0.7) <= 0.05
    assert 0.935 < covered / trials < 0.965
    assert rejected / trials < 0.06
    # The function's own interval is that one.
    found = paired_comparison(d, np.zeros(10))
    assert found.interval == pytest.approx((d.mean() - half, d.mean() + half))


def test_nadeau_bengio_by_hand() -> None:
    d = np.array([1.0, 2.0, 3.0])
    half = stats.t.ppf(0.975, 2) * 1.0 * (1 / 3 + 1.0) ** 0.5
    assert paired_comparison(d, np.zeros(3), test_train_ratio=1.0).corrected == pytest.approx((2 - half, 2 + half))


def test_no_variance() -> None:
    same = paired_comparison([0.9] * 5, [0.9] * 5)
    assert (same.mean, same.interval, same.p) == (0, (0, 0), 1)
    shifted = paired_comparison([1.0] * 5, [0.5] * 5)
    assert shifted.interval == (0.5, 0.5)
    assert shifted.p == pytest.approx(2 / 2**5)
    # Equal but for the last bit: no difference, where a sign flip of 1e-17 would give p = 1/16.
    rounded = paired_comparison([0.1 + 0.2] * 5, [0.3] * 5)
    assert (rounded.mean, rounded.p, rounded.wins, rounded.losses) == (0, 1, 0, 0)
    with pytest.raises(ValueError, match='one length'):
        paired_comparison([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match='finite'):
        paired_comparison([1.0, float('nan')], [1.0, 2.0])
    assert np.isnan(paired_comparison([1.0], [0.0]).interval).all()


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04: x4 = 0.04, x3 = 0.06, x2 = 0.06, x1 = 0.04 -> 0.06
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def cell(arm: str, ratio: float, seed: int, val: float, test: float, control: bool = False) -> dict[str, Any]:
    metrics = {'oa': test, 'aa': test - 0.1, 'kappa': test - 0.2}
    return {
        'cell': f'{arm}{ratio}{seed}', 'scene': 's', 'budget': 'b', 'classifier': 'nn1d', 'arm': arm, 'ratio': ratio,
        'seed': seed, 'control': control, 'train_real': 10, 'test_count': 20, 'val': {'oa': val}, 'test': metrics,
    }  # fmt: skip


def test_ratio_is_chosen_on_validation_alone() -> None:
    rows = [
        cell('real', 0, 0, val=0.8, test=0.5),
        cell('gan', 1, 0, val=0.9, test=0.4),
        cell('gan', 5, 0, val=0.9, test=0.9),
        cell('real', 0, 1, val=0.9, test=0.6),
        cell('gan', 1, 1, val=0.7, test=0.99),
        cell('gan', 5, 1, val=0.7, test=0.99),
        cell('gan', 1, 2, val=0.7, test=0.99),  # no real-only cell: no pair
        cell('gan', 5, 2, val=0.7, test=0.99),
        cell('real', 0, 3, val=0.5, test=0.5),
        cell('gan', 1, 3, val=0.9, test=0.9),  # ratio 5 isn't finished yet: no choice
    ]
    assert {s: c['ratio'] for s, c in choose_ratios(rows, 'gan').items()} == {0: 1, 1: 0}
    for row in rows:
        row['test'] = {'oa': 1 - row['test']['oa'], 'aa': 0.0, 'kappa': 0.0}
    assert {s: c['ratio'] for s, c in choose_ratios(rows, 'gan').items()} == {0: 1, 1: 0}


def test_summary_by_hand() -> None:
    rows = [cell('real', 0, s, 0.5, 0.5 + 0.01 * s) for s in range(10)]
    rows += [cell('gan', 2, s, 0.6, 0.53 + 0.01 * (s + s % 2)) for s in range(10)]
    rows += [cell('few', 2, s, 0.6, 0.5) for s in range(9)]
    rows += [cell('dup', 2, s, 0.6, 0.5, control=True) for s in range(10)]
    table = {(line.arm, line.ratio): line for line in summarise(rows)}
    gan = table['gan', 'chosen']
    assert gan.means['oa'] == pytest.approx(58)
    assert gan.means['aa'] == pytest.approx(48)
    assert gan.gain is not None
    assert gan.gain.mean == pytest.approx(3.5)  # five differences of 3 points, five of 4
    assert gan.gain.sd == pytest.approx(np.sqrt(10 * 0.25 / 9))
    assert gan.gain.wins == 10
    assert gan.gain.p == pytest.approx(2 / 2**10)
    t = stats.t.ppf(0.975, 9)
    half = t * gan.gain.sd * np.sqrt(1 / 10 + 20 / 10)  # 20 test samples, 10 to train
    assert gan.gain.corrected == pytest.approx((3.5 - half, 3.5 + half))
    # The only member of the primary family: no control, a chosen ratio, ten seeds.
    assert gan.p_holm == pytest.approx(2 / 2**10)
    assert [key for key, line in table.items() if line.p_holm is not None] == [('gan', 'chosen')]
    assert table['few', 'chosen'].gain is not None
    assert table['few', 'chosen'].gain.n == 9


def test_holm_runs_over_all_settings() -> None:
    rows = []
    for scene, gain in (('one', 0.05), ('two', 0.0)):
        rows += [{**cell('real', 0, s, 0.5, 0.5), 'scene': scene} for s in range(10)]
        rows += [{**cell('gan', 2, s, 0.6, 0.5 + gain), 'scene': scene} for s in range(10)]
    adjusted = [line.p_holm for line in summarise(rows) if line.p_holm is not None]
    assert adjusted == pytest.approx([2 * 2 / 2**10, 1])


def test_mean_over_scenes_against_welch() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 1, 12), rng.normal(2, 3, 7)
    mean, interval = mean_of_means([paired_comparison(d, np.zeros(len(d))) for d in (a, b)])
    welch = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)  # of the sum: twice the mean
    assert mean == pytest.approx((a.mean() + b.mean()) / 2)
    assert interval == pytest.approx((welch.low / 2, welch.high / 2))
    alone = paired_comparison(a, np.zeros(12))
    assert mean_of_means([alone])[1] == pytest.approx(alone.interval)


def test_pooled_by_hand() -> None:
    rows = []
    for scene, gain, seeds in (('one', 0.05, 2), ('two', 0.01, 3)):
        rows += [{**cell('real', 0, s, 0.5, 0.5), 'scene': scene} for s in range(seeds)]
        rows += [{**cell('gan', 2, s, 0.6, 0.5 + gain), 'scene': scene} for s in range(seeds)]
    means = pooled(summarise(rows))
    assert list(means) == [('b', 'nn1d', 'gan')]
    gan = means['b', 'nn1d', 'gan']
    assert gan.gain == pytest.approx(3)  # scenes count the same, whatever their seeds
    assert gan.scenes['two'] == pytest.approx((1, 1))
