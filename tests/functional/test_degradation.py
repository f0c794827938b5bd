import math

import pytest
import torch

from hsiaug.functional.degradation import FACTORS, degrade, mtf_sigma, upsample


def waves(size: int, period: float) -> torch.Tensor:
    """(1, 1, size, size) waves along the rows, around the middle of each period."""
    phase = 2 * math.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / period
    return phase.cos().expand(1, 1, size, size)


@pytest.mark.parametrize('factor', FACTORS)
@pytest.mark.parametrize('mtf', [0.2, 0.4])
def test_blur_has_its_mtf(factor: int, mtf: float) -> None:
    # At half of Nyquist the transfer of a Gaussian is the fourth root of that at Nyquist; this one can be sampled.
    period = 4 * factor
    low = degrade(waves(16 * period, period), factor, mtf)
    inner = slice(8, -8)
    phase = 2 * math.pi * (torch.arange(low.shape[-1], dtype=torch.float64) + 0.5) / 4
    amplitude = low[0, 0, 20, inner] @ phase.cos()[inner] / (phase.cos()[inner].square().sum())
    assert float(amplitude) == pytest.approx(mtf**0.25, abs=0.01)
    assert mtf == pytest.approx(math.exp(-2 * (math.pi * mtf_sigma(factor, mtf) / (2 * factor)) ** 2))


@pytest.mark.parametrize('factor', FACTORS)
def test_grids_are_aligned(factor: int) -> None:
    side = 12 * factor
    ramp = torch.arange(side, dtype=torch.float64).expand(1, 2, side, side)
    low = degrade(ramp, factor)
    # A ramp keeps its values where it is blurred symmetrically: those at the centres of the coarse pixels.
    centres = (torch.arange(12, dtype=torch.float64) + 0.5) * factor - 0.5
    assert torch.allclose(low[0, 1, 5, 4:-4], centres[4:-4], atol=1e-9)
    assert torch.allclose(degrade(ramp.mT, factor)[0, 1, 4:-4, 5], centres[4:-4], atol=1e-9)
    back = upsample(low, factor)
    assert back.shape == ramp.shape
    inner = (..., slice(6 * factor - 1, 6 * factor + 1))
    assert torch.allclose(back[inner], ramp[inner], atol=1e-6)
    image = torch.rand(1, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(degrade(image.flip(-1), factor), degrade(image, factor).flip(-1))


def test_constant_stays_and_noise_is_as_told() -> None:
    image = torch.full((40, 2, 32, 32), 7.0)
    assert torch.allclose(degrade(image, 4), torch.full((40, 2, 8, 8), 7.0), atol=1e-5)
    low = degrade(image, 4, noise=torch.tensor([0.5, 2.0]), rng=torch.Generator().manual_seed(1))
    assert low.std(dim=(0, 2, 3)).tolist() == pytest.approx([0.5, 2.0], rel=0.05)
    again = degrade(image, 4, noise=torch.tensor([0.5, 2.0]), rng=torch.Generator().manual_seed(1))
    assert torch.equal(low, again)


def test_mistakes() -> None:
    image = torch.zeros(1, 1, 10, 12)
    with pytest.raises(ValueError, match='10 x 12 pixels do not divide by the factor 4; crop the image to 8 x 12'):
        degrade(image, 4)
    with pytest.raises(ValueError, match=r'one of \(2, 3, 4, 5\), found 1'):
        degrade(image, 1)
    with pytest.raises(ValueError, match='between 0 and 1, found 1'):
        degrade(image, 2, mtf=1.0)
    with pytest.raises(ValueError, match='noise must not be negative'):
        degrade(image, 2, noise=-1.0)
    with pytest.raises(ValueError, match='upsample'):
        upsample(image, 6)
