import pytest
import torch

from hsiaug.metrics.frechet import frechet_distance
from hsiaug.metrics.masks import class_indicators, class_shares, cooccurrence, mask_features, total_variation

IGNORE = 255
MASK = torch.tensor([[[0, 0, 1], [0, IGNORE, 1]]])


def test_shares_leave_ignored_pixels_out() -> None:
    assert class_shares(MASK, 3, IGNORE).tolist() == pytest.approx([3 / 5, 2 / 5, 0])
    assert class_indicators(MASK, 3, IGNORE)[0, :, 1, 1].tolist() == [0, 0, 0]
    for dtype in (torch.uint8, torch.float32):  # as masks come from files and from networks
        assert torch.equal(class_indicators(MASK.to(dtype), 3, IGNORE), class_indicators(MASK, 3, IGNORE))
    assert class_shares(torch.full((1, 2, 2), IGNORE), 3, IGNORE).isnan().all()


def test_cooccurrence_by_hand() -> None:
    # Pairs that count: 0-0 and 0-1 in the first row, 0-0 and 1-1 between the rows.
    expected = torch.tensor([[2, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]).double() / 4
    torch.testing.assert_close(cooccurrence(MASK, 3, IGNORE), expected)
    # No pair across two patches.
    apart = cooccurrence(torch.stack([torch.zeros(2, 2), torch.ones(2, 2)]).long(), 2)
    assert apart.tolist() == [[0.5, 0], [0, 0.5]]


def test_total_variation() -> None:
    p, q = torch.tensor([0.5, 0.5, 0]), torch.tensor([0.25, 0.25, 0.5])
    assert total_variation(p, q) == pytest.approx(0.5)
    assert total_variation(p, p) == 0
    assert total_variation(torch.tensor([1.0, 0]), torch.tensor([0, 1.0])) == 1


def test_features_by_hand() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.int64)
    mask[0, :, 4:] = 1
    found = mask_features(mask, 2)[0]
    quadrants, clumps, border = found.split([8, 2, 2])
    assert quadrants.tolist() == pytest.approx([1, 0, 1, 0, 0, 1, 0, 1])  # upper left, upper right, lower left, ...
    assert clumps.tolist() == pytest.approx([0.5, 0.5])
    assert border.tolist() == pytest.approx([8 / 112] * 2)  # 8 of 2 * 7 * 8 pairs


def test_features_ignore_what_does_not_count() -> None:
    mask = torch.zeros(2, 16, 16, dtype=torch.int64)
    mask[:, :, 6:] = 1
    mask[1, 8:] = IGNORE
    whole, half = mask_features(mask, 2, IGNORE)
    assert half[:8].tolist() == [0.75, 0, 6 / 16, 6 / 16, 0.25, 1, 10 / 16, 10 / 16]  # the lower half is unknown
    torch.testing.assert_close(half[8:], whole[8:], atol=2e-3, rtol=0)  # 8 of 232 pairs, 16 of 480
    assert mask_features(torch.full((1, 16, 16), IGNORE), 2, IGNORE).tolist() == [[0.0] * 12]


def blobs(n: int, seed: int) -> torch.Tensor:
    """(n, 16, 16) masks: a rectangle of class 1 or 2 in the upper half of class 0."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.zeros(n, 16, 16, dtype=torch.int64)
    for mask in masks:
        top, left, label = (int(torch.randint(low, high, (), generator=rng)) for low, high in ((0, 3), (0, 10), (1, 3)))
        mask[top : top + 5, left : left + 6] = label
    return masks


def test_features_tell_layouts_of_equal_shares_apart() -> None:
    real, same = (mask_features(blobs(200, seed), 3) for seed in (0, 1))
    floor = frechet_distance(real, same)
    upside_down = mask_features(blobs(200, 1).flip(1), 3)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    scattered = mask_features(blobs(200, 1).flatten(1)[:, order].reshape(200, 16, 16), 3)
    relabelled = mask_features((blobs(200, 1) - 1).abs(), 3)
    for other in (upside_down, scattered, relabelled):
        assert frechet_distance(real, other) > 20 * floor


def test_values_beyond_the_classes() -> None:
    with pytest.raises(ValueError, match=r'classes 0 to 1 or the ignore index 255, found \[-1, 2\]'):
        class_shares(torch.tensor([[[0, 2], [-1, IGNORE]]]), 2, IGNORE)
    with pytest.raises(ValueError, match=r'found \[255\]'):
        cooccurrence(torch.tensor([[[0, IGNORE]]]), 2)
