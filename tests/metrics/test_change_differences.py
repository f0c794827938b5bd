import math
import sys

import pytest
import torch
from torch import Tensor

from hsiaug.metrics import ChangeDifferences, between_halves, change_differences


def triplets(difference: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Of differences (N, C, H, W) and masks (N, H, W)."""
    first = torch.randn(difference.shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([first, first + difference], dim=1), mask[:, None]


def test_distances_by_hand() -> None:
    mask = torch.tensor([[[0, 0, 1, 1, 255]]])
    real = triplets(torch.tensor([[[[0.0, 2.0, 10.0, 14.0, 99.0]], [[0.0, 4.0, 5.0, 5.0, 99.0]]]]), mask)
    fake = triplets(torch.tensor([[[[1.0, 1.0, 12.0, 16.0, -9.0]], [[0.0, 4.0, 5.0, 6.0, -9.0]]]]), mask)
    found = change_differences(real, fake, ignore_index=255)
    # unchanged, band 1: {0, 2}, of standard deviation 1, against {1, 1}; band 2 the same on both sides
    assert found.unchanged == pytest.approx((1 + 0) / 2, abs=1e-5)
    # changed, band 1: {10, 14}, of standard deviation 2, moved by 2
    rest = 0.5 / 1e-12  # band 2 does not vary at all on the real side: any deviation is infinitely rare there
    assert found.changed == pytest.approx((2 / 2 + rest) / 2, rel=1e-4)
    # one step in each kind: 2 and 4 (no spread) against 0 and 4; the step across kinds counts for neither
    assert found.unchanged_texture == pytest.approx((2 / 1e-12 + 0) / 2, rel=1e-4)


def test_steps_tell_smooth_from_noisy_differences() -> None:
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn((20, 3, 16, 16), generator=rng)
    smooth = noise[:, :, :1, :1].expand(-1, -1, 16, 16)  # the same distribution, the same everywhere in a patch
    mask = torch.zeros((20, 16, 16), dtype=torch.int64)
    many = torch.randn((400, 3, 1, 1), generator=rng).expand(-1, -1, 16, 16)
    found = change_differences(triplets(noise, mask), triplets(many, mask[:1].expand(400, -1, -1)))
    assert found.unchanged < 0.1
    # steps of white noise are normal with their own standard deviation as unit: E|N(0, 1)| away from no steps
    assert found.unchanged_texture == pytest.approx(math.sqrt(2 / math.pi), rel=0.02)
    assert math.isnan(found.changed)
    assert change_differences(triplets(smooth, mask), triplets(smooth, mask)).unchanged == pytest.approx(0, abs=1e-5)


def test_sterile_pairs_are_as_far_as_the_real_differences_are_large() -> None:
    noise = 7 * torch.randn((30, 2, 12, 12), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(12) < 3).long().expand(30, 12, 12)
    real, none = triplets(noise, mask), triplets(torch.zeros_like(noise), mask)
    found = change_differences(real, none)
    assert (found.unchanged, found.changed) == pytest.approx((math.sqrt(2 / math.pi),) * 2, rel=0.05)
    halves = between_halves(real, repeats=3)
    assert 0 < halves.unchanged < 0.08
    assert halves == between_halves(real, repeats=3)
    assert halves != between_halves(real, repeats=3, seed=1)


def test_many_pixels_are_thinned_without_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(3)
    real, fake = (
        triplets(s * torch.randn((40, 2, 16, 16), generator=rng), torch.zeros(40, 16, 16).long()) for s in (1, 2)
    )
    whole = change_differences(real, fake)
    monkeypatch.setattr(sys.modules['hsiaug.metrics.change_fidelity'], 'MOST', 3000)  # the function has its name
    thinned = change_differences(real, fake)
    assert thinned.unchanged == pytest.approx(whole.unchanged, rel=0.1)
    assert thinned.unchanged == change_differences(real, fake).unchanged
    assert thinned.unchanged != whole.unchanged


def test_mistakes_are_named() -> None:
    image, mask = triplets(torch.zeros(4, 3, 5, 5), torch.zeros(4, 5, 5, dtype=torch.int64))
    assert isinstance(change_differences((image, mask), (image, mask)), ChangeDifferences)
    with pytest.raises(ValueError, match=r'synthetic triplets must be \(N, 2, C, H, W\) with masks \(N, 1, H, W\), fo'):
        change_differences((image, mask), (image, mask[:, 0]))
    with pytest.raises(ValueError, match='3 real bands but 2 synthetic ones'):
        change_differences((image, mask), (image[:, :, :2], mask))
    with pytest.raises(ValueError, match='subtract 1 if 2 means changed'):
        change_differences((image, mask + 1 + torch.eye(5).long()), (image, mask))
    with pytest.raises(ValueError, match='at least 2 triplets are needed, found 1'):
        between_halves((image[:1], mask[:1]))
