import math

import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from hsiaug.metrics import change_scores


def test_scores_by_hand_with_ignored_pixels() -> None:
    target = torch.tensor([[[[1, 1, 1, 0, 0], [0, 0, 0, 255, 255]]]])
    predicted = torch.tensor([[[[1, 1, 0, 1, 0], [0, 0, 0, 1, 0]]]])
    found = change_scores(predicted, target, ignore_index=255)
    # Of 8 pixels that count: 2 hits, 1 missed, 1 false, 4 rightly unchanged.
    assert (found.precision, found.recall) == pytest.approx((2 / 3, 2 / 3))
    assert (found.f1, found.iou) == pytest.approx((4 / 6, 2 / 4))
    assert (found.mf1, found.miou) == pytest.approx(((4 / 6 + 8 / 10) / 2, (2 / 4 + 4 / 6) / 2))
    assert found.oa == pytest.approx(6 / 8)


def test_scores_agree_with_sklearn_over_all_pixels_at_once() -> None:
    rng = torch.Generator().manual_seed(0)
    target, predicted = ((torch.rand(6, 1, 9, 7, generator=rng) < share).long() for share in (0.1, 0.2))
    found = change_scores(predicted, target)
    flat = (target.reshape(-1).numpy(), predicted.reshape(-1).numpy())
    assert found.precision == pytest.approx(precision_score(*flat))
    assert found.recall == pytest.approx(recall_score(*flat))
    assert (found.f1, found.mf1) == pytest.approx((f1_score(*flat), f1_score(*flat, average='macro')))
    assert (found.iou, found.miou) == pytest.approx((jaccard_score(*flat), jaccard_score(*flat, average='macro')))
    assert found.oa == pytest.approx(float((target == predicted).float().mean()))


def test_means_over_two_classes_flatter_a_rare_change() -> None:
    # 1 % changed, of which a fifth is found, with as many false alarms as hits.
    target, predicted = torch.zeros(2, 10_000, dtype=torch.int64)
    target[:100] = 1
    predicted[:20] = predicted[-20:] = 1
    found = change_scores(predicted, target)
    assert found.f1 == pytest.approx(2 * 20 / (40 + 100))
    assert found.mf1 > 0.64
    assert found.miou > 0.57


def test_what_has_nothing_to_be_measured_on_is_nan() -> None:
    nothing, some = torch.zeros(1, 1, 4, 4, dtype=torch.int64), torch.eye(4, dtype=torch.int64)[None, None]
    found = change_scores(nothing, nothing)
    assert all(math.isnan(x) for x in (found.f1, found.iou, found.precision, found.recall))
    assert (found.mf1, found.miou, found.oa) == (1, 1, 1)  # of the one class there is
    alarms = change_scores(some, nothing)
    assert math.isnan(alarms.recall)
    assert (alarms.f1, alarms.iou, alarms.precision) == (0, 0, 0)
    blind = change_scores(nothing, some)
    assert math.isnan(blind.precision)
    assert (blind.f1, blind.iou, blind.recall) == (0, 0, 0)
    assert blind.miou == pytest.approx(12 / 16 / 2)


def test_mistakes_are_named() -> None:
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match='argmax of logits first, with keepdim'):
        change_scores(torch.zeros(2, 2, 4, 4), mask)
    with pytest.raises(ValueError, match='every target is ignored'):
        change_scores(mask, mask + 255, ignore_index=255)
    with pytest.raises(ValueError, match=r'target masks hold .* found \[1, 2\]; subtract 1'):
        change_scores(mask, torch.where(torch.eye(4) > 0, 2, mask + 1))
    with pytest.raises(ValueError, match=r'found \[0, 255\].*ignore_index=None'):
        change_scores(mask, torch.where(torch.eye(4) > 0, 255, mask))
