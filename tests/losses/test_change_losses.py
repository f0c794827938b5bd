import pytest
import torch
from segmentation_models_pytorch.losses import LovaszLoss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hsiaug.losses.change import SIDE_WEIGHTS, BinaryChangeLoss, change_loss, lovasz_loss, multi_scale_loss


def batch(n: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits, mask = torch.randn(n, 2, 6, 7), (torch.rand(n, 1, 6, 7) < 0.2).long()
    mask[0, :, :2] = 255
    return logits, mask


def test_change_loss_is_the_weighted_cross_entropy_plus_lovasz() -> None:
    logits, mask = batch()
    weights = torch.tensor([0.5, 3.0])
    plain = change_loss(logits, mask, 255, weights)
    assert plain.item() == pytest.approx(cross_entropy(logits, mask[:, 0], weights, ignore_index=255).item())
    both = change_loss(logits, mask, 255, weights, lovasz=0.75)
    assert both.item() == pytest.approx(plain.item() + 0.75 * lovasz_loss(logits, mask, 255).item())


def test_lovasz_is_the_library_s_and_its_gradient() -> None:
    logits, mask = batch()
    mine, theirs = (logits.clone().requires_grad_() for _ in range(2))
    found = lovasz_loss(mine, mask, 255)
    expected = LovaszLoss('multiclass', ignore_index=255)(theirs, mask[:, 0])
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert mine.grad is not None
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-7)


def test_lovasz_of_a_sure_prediction_is_one_minus_iou() -> None:
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    mask[..., :2, :2] = 1
    predicted = torch.zeros(1, 4, 4, dtype=torch.int64)
    predicted[..., :2, 1:3] = 1  # 2 hits, 2 missed, 2 false
    logits = 40.0 * nn.functional.one_hot(predicted, 2).movedim(-1, 1)
    assert lovasz_loss(logits, mask).item() == pytest.approx(1 - (2 / 6 + 10 / 14) / 2, rel=1e-4)


def test_a_weight_counts_a_sample_as_often() -> None:
    logits, mask = batch()
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0])
    often = torch.tensor([0, 1, 1, 3])
    for lovasz in (0.0, 1.0):
        found = change_loss(logits, mask, 255, None, weights, lovasz)
        assert found.item() == pytest.approx(
            change_loss(logits[often], mask[often], 255, lovasz=lovasz).item(), rel=1e-5
        )
        same = change_loss(logits, mask, 255, None, torch.ones(4), lovasz)
        assert same.item() == pytest.approx(change_loss(logits, mask, 255, lovasz=lovasz).item(), rel=1e-5)


def test_what_does_not_count_has_no_loss_and_no_gradient() -> None:
    logits, mask = batch()
    logits.requires_grad_()
    change_loss(logits, mask, 255, lovasz=1.0).backward()
    assert logits.grad is not None
    assert not logits.grad[0, :, :2].any()
    assert logits.grad[0, :, 2:].all()
    logits.grad = None
    loss = change_loss(logits, torch.full_like(mask, 255), 255, lovasz=1.0)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
    none = change_loss(logits, mask, 255, sample_weights=torch.zeros(4), lovasz=1.0)
    assert none.item() == 0


def test_side_outputs_add_with_their_weights() -> None:
    logits, mask = batch()
    sides = [torch.randn_like(logits) for _ in range(4)]
    parts = [change_loss(x, mask, 255, lovasz=0.5).item() for x in (logits, *sides)]
    expected = sum(w * part for w, part in zip((1.0, *SIDE_WEIGHTS), parts, strict=True))
    assert multi_scale_loss(logits, sides, mask, 255, lovasz=0.5).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match='zip'):
        multi_scale_loss(logits, sides[:3], mask, 255)


def test_the_binary_loss_is_torch_s_without_what_does_not_count() -> None:
    logits, mask = batch()
    logits, whole = logits[:, :1], mask.where(mask < 2, 0)
    weight = torch.tensor(3.0)
    reference = nn.BCEWithLogitsLoss(pos_weight=weight)
    assert BinaryChangeLoss(pos_weight=weight)(logits, whole.float()).item() == pytest.approx(
        reference(logits, whole.float()).item()
    )
    counts = mask < 2
    found = BinaryChangeLoss(255, weight)(logits, mask.float()).item()
    assert found == pytest.approx(reference(logits[counts], whole[counts].float()).item())
    only = BinaryChangeLoss(255)(logits, mask, torch.tensor([0.0, 2.0, 0.0, 0.0])).item()
    assert only == pytest.approx(nn.BCEWithLogitsLoss()(logits[1], whole[1].float()).item())
    # One logit is the difference of two.
    pair = torch.cat([torch.zeros_like(logits), logits], dim=1)
    assert BinaryChangeLoss(255)(logits, mask).item() == pytest.approx(change_loss(pair, mask, 255).item())
