import math

import pytest
import torch

from hsiaug.metrics.super_resolution import spectral_information_divergence, super_resolution_scores


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Two bands, 2 and 4 everywhere; predicted 3 and 4 in the left half."""
    target = torch.tensor([2.0, 4.0]).view(1, 2, 1, 1).repeat(1, 1, 12, 12)
    predicted = target.clone()
    predicted[:, 0, :, :6] = 3
    return predicted, target


def test_scores_by_hand() -> None:
    predicted, target = images()
    scores = super_resolution_scores(predicted, target, factor=4, peak=8.0)
    assert scores.mrae == pytest.approx(0.5 / 4)  # half of half the values are wrong by a half
    assert scores.psnr == pytest.approx(10 * math.log10(64 / 0.25))
    assert scores.sam == pytest.approx((math.atan2(4, 2) - math.atan2(4, 3)) / 2, rel=1e-6)
    # bands: RMSE √½ over mean 2, and 0
    assert scores.ergas == pytest.approx(100 / 4 * math.sqrt((0.5 / 4) / 2), rel=1e-6)
    p, q = (3 / 7, 4 / 7), (1 / 3, 2 / 3)
    sid = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert scores.sid == pytest.approx(sid / 2)
    assert scores.sid_sum == pytest.approx(sid / 2 * 144)
    assert scores.ssim < 1


def test_a_perfect_image() -> None:
    target = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = super_resolution_scores(target, target, factor=2)
    assert (scores.mrae, scores.sid, scores.sam, scores.ergas) == (0, 0, 0, 0)
    assert scores.ssim == pytest.approx(1)
    assert scores.psnr == math.inf
    noisy = [
        target + level * torch.randn(target.shape, generator=torch.Generator().manual_seed(1)) for level in (0.02, 0.1)
    ]
    little, much = (super_resolution_scores(image, target, factor=2) for image in noisy)
    for name in ('mrae', 'sid', 'sid_sum', 'sam', 'ergas'):
        assert 0 < getattr(little, name) < getattr(much, name)
    assert little.psnr > much.psnr
    assert 1 > little.ssim > much.ssim


def test_zeros_and_negatives_leave_scores_finite() -> None:
    target = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    target[:, :, 0, 0] = 0
    predicted = target.clone()
    predicted[:, :, 1, 1] = -0.1
    scores = super_resolution_scores(predicted, target, factor=2)
    assert all(math.isfinite(v) for v in (scores.mrae, scores.sid, scores.sam, scores.ergas))
    a = torch.tensor([[0.0, 1.0, 1.0]])
    assert float(spectral_information_divergence(a, a)) == 0
    assert torch.allclose(spectral_information_divergence(a, 5 * a), torch.zeros(1), atol=1e-4)


def test_mistakes() -> None:
    predicted, target = images()
    with pytest.raises(ValueError, match='must have one shape'):
        super_resolution_scores(predicted[..., :11], target, 2)
    with pytest.raises(ValueError, match='11 pixels'):
        super_resolution_scores(predicted[..., :8], target[..., :8], 2)
    with pytest.raises(ValueError, match='predicted images hold NaN'):
        super_resolution_scores(predicted * torch.nan, target, 2)
    with pytest.raises(ValueError, match='peak must be positive'):
        super_resolution_scores(predicted, -target, 2)
    with pytest.raises(ValueError, match='factor must be above 0'):
        super_resolution_scores(predicted, target, 0)
    with pytest.raises(ValueError, match='n above 0'):
        super_resolution_scores(predicted[:0], target[:0], 2)
