import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torchmetrics.functional.classification import multiclass_jaccard_index

from hsiaug.metrics import segmentation_scores


def test_scores_by_hand_with_ignored_pixels_and_an_absent_class() -> None:
    target = torch.tensor([[[0, 0, 0, 1], [1, 1, 255, 255]]])
    predicted = torch.tensor([[[0, 0, 1, 1], [1, 0, 2, 0]]])
    found = segmentation_scores(predicted, target, 4, ignore_index=255)
    # Of 6 pixels that count: class 0 has 2 right, 1 missed, 1 false; class 1 the same; 2 and 3 do not occur.
    assert found.iou[:2] == pytest.approx((2 / 4, 2 / 4))
    assert found.f1_per_class[:2] == pytest.approx((4 / 6, 4 / 6))
    assert all(value != value for value in (*found.iou[2:], *found.f1_per_class[2:]))
    assert (found.miou, found.f1, found.oa) == pytest.approx((0.5, 2 / 3, 4 / 6))


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    target = torch.tensor([0, 0, 0, 0])
    predicted = torch.tensor([0, 0, 0, 2])
    found = segmentation_scores(predicted, target, 3)
    assert found.iou[0] == pytest.approx(3 / 4)
    assert found.iou[1] != found.iou[1]
    assert found.iou[2] == 0
    assert found.miou == pytest.approx(3 / 8)


def test_scores_agree_with_sklearn_over_all_pixels_at_once() -> None:
    rng = torch.Generator().manual_seed(0)
    target, predicted = (torch.randint(5, (6, 9, 7), generator=rng) for _ in range(2))
    found = segmentation_scores(predicted, target, 5)
    flat = (target.reshape(-1).numpy(), predicted.reshape(-1).numpy())
    assert found.iou == pytest.approx(jaccard_score(*flat, average=None))
    assert found.miou == pytest.approx(jaccard_score(*flat, average='macro'))
    assert found.f1 == pytest.approx(f1_score(*flat, average='macro'))
    assert found.oa == pytest.approx(float((target == predicted).float().mean()))


def test_mistakes_are_named() -> None:
    mask = torch.zeros(2, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r'argmax of logits'):
        segmentation_scores(torch.zeros(2, 3, 4, 4), mask, 3)
    with pytest.raises(ValueError, match='every target is ignored'):
        segmentation_scores(mask, mask + 255, 3, ignore_index=255)
    with pytest.raises(ValueError, match=r'target classes must lie in \[0, 3\), found \[0, 255\]'):
        segmentation_scores(mask, torch.where(torch.eye(4) > 0, 255, mask), 3)
    with pytest.raises(ValueError, match=r'predicted classes must lie'):
        segmentation_scores(mask + 3, mask, 3)
    with pytest.raises(ValueError, match=r'must be whole numbers, found torch.float32; take the argmax'):
        segmentation_scores(mask + 0.5, mask, 3)


def test_a_class_that_is_the_ignore_index_counts_in_no_mean() -> None:
    rng = torch.Generator().manual_seed(0)
    target, predicted = (torch.randint(4, (3, 9, 7), generator=rng) for _ in range(2))
    found = segmentation_scores(predicted, target, 4, ignore_index=0)
    assert found.miou == pytest.approx(float(multiclass_jaccard_index(predicted, target, 4, ignore_index=0)))
    assert found.iou[0] != found.iou[0]
