import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from hsiaug.losses.segmentation import edge_loss, edges_of, segmentation_loss


def test_loss_is_the_mean_over_pixels_that_count() -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(3, 4, 5, 6), torch.randint(4, (3, 5, 6))
    mask[0, :2] = 255
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    assert segmentation_loss(logits, mask, 255).item() == pytest.approx(
        cross_entropy(logits, mask, ignore_index=255).item()
    )
    assert segmentation_loss(logits, mask, 255, weights).item() == pytest.approx(
        cross_entropy(logits, mask, weights, ignore_index=255).item()
    )
    assert segmentation_loss(logits[:1], torch.full((1, 5, 6), 255), 255, weights).item() == 0
    assert segmentation_loss(logits, mask.where(mask < 4, 0)).item() == pytest.approx(
        cross_entropy(logits, mask.where(mask < 4, 0)).item()
    )


def test_sample_weights_weigh_samples() -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(3, 4, 5, 6), torch.randint(4, (3, 5, 6))
    alone = [segmentation_loss(logits[i : i + 1], mask[i : i + 1]).item() for i in range(3)]
    found = segmentation_loss(logits, mask, sample_weights=torch.tensor([1.0, 0.0, 3.0])).item()
    assert found == pytest.approx((alone[0] + 3 * alone[2]) / 4, rel=1e-5)


def test_edges_by_hand() -> None:
    mask = torch.tensor([[[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]])
    assert edges_of(mask)[0].tolist() == [[0, 0, 1, 1, 0]] * 3
    mask[0, 0, 0] = 255
    found = edges_of(mask, ignore_index=255)[0]
    nan = found.isnan().tolist()
    assert nan == [[True, True, False, False, False], [True, True, False, False, False], [False] * 5]
    assert found[:, 2:].tolist() == [[1, 1, 0]] * 3
    mask[0, 0, 4] = 255  # beside an edge that is one anyway
    assert edges_of(mask, ignore_index=255)[0, 0, 3] == 1
    assert edges_of(torch.full((1, 3, 3), 255), 255).isnan().all()


def test_edge_loss_gives_edges_and_the_rest_equal_weight() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.int64)
    mask[:, :, 4:] = 1
    edges = edges_of(mask)
    assert 0 < edges.mean() < 0.5
    unsure = torch.zeros(1, 1, 8, 8)
    assert edge_loss([unsure, unsure], mask).item() == pytest.approx(math.log(2))
    right = (20 * edges - 10)[:, None]
    assert edge_loss([right], mask).item() < 1e-3
    # Wrong on all edges, right elsewhere: half of the loss, however few the edges are.
    none = torch.full((1, 1, 8, 8), -10.0)
    assert edge_loss([none], mask).item() == pytest.approx(5, rel=1e-3)
    assert edge_loss([right, none], mask).item() == pytest.approx(2.5, rel=1e-3)


def test_edge_loss_leaves_out_ignored_pixels_and_samples_without_weight() -> None:
    mask = torch.zeros(2, 8, 8, dtype=torch.int64)
    mask[:, :, 4:] = 1
    logits = (20 * edges_of(mask) - 10)[:, None].clone()
    logits[1] *= -1
    assert edge_loss([logits], mask, sample_weights=torch.tensor([1.0, 0.0])).item() < 1e-3
    mask[1] = 255
    assert edge_loss([logits], mask, 255).item() < 1e-3
    assert edge_loss([logits], torch.full_like(mask, 255), 255).item() == 0
