import math

import numpy as np
import pytest
import torch
from conftest import make_scene
from scipy.stats import t as student

from hsiaug.quality import Decision, Gates, NoveltyGate, RangeGate, held_out_limit, label_regions
from hsiaug.quality.gate import GateReport
from hsiaug.quality.regions import deal_folds, independent_samples, require_regions, shares_region
from hsiaug.scenes import BitemporalScene, PatchSplitter, RandomSplit, SimulatedScene
from hsiaug.scenes.labelled_patches import LabelledPatchSplitter
from hsiaug.trainers import training_data


def test_limit_is_the_conformal_quantile_where_scores_are_enough() -> None:
    scores = torch.arange(100.0).flip(0)
    assert held_out_limit(scores, 100, 0.05) == 95  # the ceil(101 * 0.95) = 96th smallest
    assert held_out_limit(scores[:19], 19, 0.05) == 99  # of 19 the 19th, which is the largest
    rng = np.random.default_rng(0)
    held, new = torch.from_numpy(rng.exponential(size=(4000, 39))), rng.exponential(size=4000)
    false = [one > held_out_limit(scores, 39, 0.05) for one, scores in zip(new, held, strict=True)]
    assert np.mean(false) == pytest.approx(0.05, abs=0.012)


def test_few_independent_scores_make_a_wide_limit() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = 2.5 + student.ppf(0.95, 3) * scores.numpy().std(ddof=1) * math.sqrt(1 + 1 / 4)
    assert held_out_limit(scores, 4, 0.05) == pytest.approx(expected, rel=1e-6)
    repeated = scores.repeat(10)  # forty scores that say no more than four
    assert held_out_limit(repeated, 4, 0.05) == pytest.approx(expected, rel=1e-6)
    assert held_out_limit(repeated, 40, 0.05) == 4
    rng = np.random.default_rng(0)
    false = [rng.normal() > held_out_limit(torch.from_numpy(rng.normal(size=4)), 4, 0.05) for _ in range(4000)]
    assert np.mean(false) <= 0.06


def test_regions_are_blocks_groups_or_the_samples_themselves() -> None:
    scene = make_scene(height=48, width=40, bands=6)
    pixels = RandomSplit(fraction=0.4)(scene, 0)
    row, column = np.divmod(pixels.train, 40)
    assert np.array_equal(label_regions(scene, pixels).numpy(), row // 8 * 5 + column // 8)
    patches = PatchSplitter(size=8, stride=3)(scene, 0)
    regions = label_regions(scene, patches, block=4)
    assert regions.shape == (len(patches.train), 8, 8)
    for window, (top, left) in zip(regions, patches.train, strict=True):
        for r, c in ((0, 0), (7, 0), (3, 5)):
            assert window[r, c] == (top + r) // 4 * 10 + (left + c) // 4
    scene.groups = np.arange(48 * 40).reshape(48, 40) // 960
    assert set(label_regions(scene, patches).unique().tolist()) <= {0, 1}
    default = require_regions(None, torch.zeros(3, 2, 2), 'gate')
    assert default.tolist() == [[[k, k], [k, k]] for k in range(3)]
    with pytest.raises(ValueError, match='two regions, found 1'):
        require_regions(torch.zeros(3, dtype=torch.int64), torch.zeros(3), 'gate')
    with pytest.raises(ValueError, match=r'shape of the training labels \(3,\), found \(4,\)'):
        require_regions(torch.arange(4), torch.zeros(3), 'gate')


def test_regions_of_pairs_of_dates() -> None:
    simulated = SimulatedScene(40, 40, dates=2, seed=1)
    assert simulated.second_date is not None
    assert simulated.change is not None
    scene = BitemporalScene.from_pairs('pair', [(simulated.cube, simulated.second_date, simulated.change)])
    split = PatchSplitter(size=8, min_pixels=1)(scene, 0)
    assert label_regions(scene, split).shape == (len(split.train), 1, 8, 8)


def test_patches_with_one_label_each() -> None:
    scene = make_scene(height=48, width=40, bands=6)
    split = LabelledPatchSplitter(size=16, patch=6, patch_stride=3)(scene, 0)
    data, regions = training_data(scene, split), label_regions(scene, split)
    corners, labels = split.patches('train')
    assert regions.shape == (len(labels), 6, 6)
    assert regions[5, 2, 4] == (corners[5, 0] + 2) // 6 * 7 + (corners[5, 1] + 4) // 6
    gates = Gates([RangeGate(), NoveltyGate()]).fit(data, regions)
    assert not gates.gates[1].keep({'image': data.x}).any()
    assert gates.gates[0].independent < len(data.x) / 2


def test_folds_hold_whole_regions_once() -> None:
    regions = torch.tensor([[0, 1], [1, 2], [3, 4], [5, 6], [6, 6]])
    folds = list(deal_folds(regions, seed=3))
    assert len(folds) == 5
    assert torch.equal(torch.stack(folds).sum(dim=0), torch.ones(5, 2, dtype=torch.int64))
    assert all(len({bool(v) for v in fold[regions == region]}) == 1 for fold in folds for region in range(7))
    assert len(list(deal_folds(torch.tensor([0, 1, 1]), 0))) == 2


def test_windows_that_share_regions_count_once() -> None:
    regions = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [7, 7]])
    linked = shares_region(regions, regions)
    assert linked.tolist() == [[(abs(i - j) <= 1 and 4 not in (i, j)) or i == j for j in range(5)] for i in range(5)]
    assert independent_samples(regions) == 3  # the first and the third, or the fourth, and the last
    assert independent_samples(torch.tensor([0, 0, 1])) == 3  # spectra share no pixel


def test_reports_count_who_rejects_what() -> None:
    decision = Decision(
        {'a': torch.zeros(4), 'b': torch.zeros(4)},
        {'a': torch.tensor([True, True, False, False]), 'b': torch.tensor([True, False, True, False])},
    )
    assert decision.keep.tolist() == [False, False, False, True]
    assert decision.reasons() == [['a', 'b'], ['a'], ['b'], []]
    report = GateReport(['a', 'b'])
    report.add(decision)
    report.add(decision)
    assert report.to_dict() == {
        'samples': 8, 'kept': 2, 'rejected': {'a': 4, 'b': 4}, 'rejected_by_it_alone': {'a': 2, 'b': 2},
    }  # fmt: skip


def test_mistakes_are_named() -> None:
    for wrong in (0, 1, -0.1):
        with pytest.raises(ValueError, match=r'false_alarm must be in \(0, 1\)'):
            RangeGate(wrong)
    with pytest.raises(ValueError, match='no two of one name'):
        Gates([RangeGate(), RangeGate()])
    with pytest.raises(ValueError, match='at least one gate'):
        Gates([])
    with pytest.raises(RuntimeError, match='RangeGate is not fitted'):
        _ = RangeGate().threshold
