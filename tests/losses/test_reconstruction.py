import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from hsiaug.functional import spectral_angle
from hsiaug.losses import kl_divergence, mask_loss, spectral_reconstruction, value_width


@pytest.fixture
def images() -> tuple[torch.Tensor, ...]:
    """Normalised output and target (2, 7, 3, 4) in float64, and the mean and spread of their bands."""
    rng = torch.Generator().manual_seed(0)
    output, target = torch.randn((2, 2, 7, 3, 4), generator=rng, dtype=torch.float64)
    mean, std = 5 + torch.rand((7, 1, 1), generator=rng, dtype=torch.float64), torch.arange(1, 8.0)[:, None, None] / 5
    return output, target, mean, std.double()


def test_angle_is_that_of_physical_spectra(images: tuple[torch.Tensor, ...]) -> None:
    output, target, mean, std = images
    l1 = ((output - target) * std).abs().mean() / 4  # of values that span 4
    angle = spectral_angle(output * std + mean, target * std + mean, dim=1).mean()
    assert float(spectral_reconstruction(output, target, mean, std, 4.0, 0.1)) == pytest.approx(float(l1 + 0.1 * angle))
    assert float(spectral_reconstruction(output, target, mean, std, 4.0, 0.0)) == pytest.approx(float(l1))
    of_scores = spectral_angle(output, target, dim=1).mean()
    assert abs(float(of_scores - angle)) > 0.5  # so the test would notice an angle of z-scores


def test_width_is_that_of_nearly_all_values() -> None:
    x = torch.linspace(2, 6, 10_000)
    x[5] = 1000.0  # a glint
    assert value_width(x.view(10, 10, 10, 10)) == pytest.approx(4, rel=0.01)
    assert value_width(torch.full((4, 3, 2, 2), 7.0)) == 1.0


def test_gradient_is_that_of_finite_differences(images: tuple[torch.Tensor, ...]) -> None:
    output, target, mean, std = images
    output.requires_grad_(True)
    loss = spectral_reconstruction(output, target, mean, std, 4.0, 3.0)
    (gradient,) = torch.autograd.grad(loss, output)
    flat, step = output.detach().flatten(), 1e-6
    for index in range(0, flat.numel(), 5):
        shift = torch.zeros_like(flat)
        shift[index] = step
        ends = [
            spectral_reconstruction((flat + sign * shift).view_as(output), target, mean, std, 4.0, 3.0)
            for sign in (1, -1)
        ]
        slope = float(ends[0] - ends[1]) / (2 * step)
        assert float(gradient.flatten()[index]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_angle_in_single_precision_and_at_its_edges() -> None:
    spectrum, other = torch.rand(1, 50, 1, 1) + 0.5, torch.randn(1, 50, 1, 1)
    zero, one = torch.zeros(50, 1, 1), torch.ones(50, 1, 1)
    for size in (0.004, 0.01, 0.1):
        near = spectrum + size * other
        found = spectral_reconstruction(near, spectrum, zero, one, 1.0, 1.0) - (near - spectrum).abs().mean()
        assert float(found) == pytest.approx(float(spectral_angle(near, spectrum, dim=1)), rel=0.02)
    for edge in (spectrum, torch.zeros_like(spectrum), -spectrum):
        output = edge.clone().requires_grad_(True)
        loss = spectral_reconstruction(output, spectrum, zero, one, 1.0, 1.0)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(output.grad).all()
    dark = spectral_reconstruction(torch.zeros_like(spectrum), spectrum, zero, one, 1.0, 1.0) - spectrum.mean()
    assert float(dark) == pytest.approx(math.pi / 2, rel=1e-4)


@pytest.mark.parametrize('kind', ['cross_entropy', 'l1'])
def test_ignored_pixels_are_in_no_loss(kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 4, 4), generator=rng, requires_grad=True)
    mask = torch.randint(3, (2, 4, 4), generator=rng)
    counts = torch.rand((2, 4, 4), generator=rng) < 0.5
    loss = mask_loss(logits, torch.where(counts, mask, 255), counts, kind)  # type: ignore[arg-type]
    loss.backward()
    picked = logits.detach().movedim(1, -1)[counts]
    hot = torch.nn.functional.one_hot(mask[counts], 3)
    expected = cross_entropy(picked, mask[counts]) if kind == 'cross_entropy' else (picked - hot).abs().mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    seen = logits.grad.abs().sum(dim=1)
    assert (seen[~counts] == 0).all()
    assert (seen[counts] > 0).all()
    nothing = mask_loss(logits, mask, torch.zeros_like(counts), kind)  # type: ignore[arg-type]
    assert float(nothing) == 0
    with pytest.raises(ValueError, match="choose from 'cross_entropy', 'l1'"):
        mask_loss(logits, mask, counts, 'dice')  # type: ignore[arg-type]


def test_kl_is_that_of_torch() -> None:
    mean, logvar = torch.randn(2, 5, 4, 3, 3)
    posterior = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(dim=1)
    assert torch.allclose(kl_divergence(mean, logvar), expected, rtol=1e-4)
    assert float(kl_divergence(torch.zeros(1, 4), torch.zeros(1, 4))) == 0


@pytest.mark.parametrize('unit', [1.0, 1e4], ids=['reflectance', 'counts'])
def test_the_angle_weighs_as_in_the_text_whatever_the_unit(unit: float) -> None:
    """Errors like those of Table 4 (RMSE 0.025, 0.1 rad) give it some 30 % of the loss; beside z-scores it had 5 %."""
    rng = torch.Generator().manual_seed(0)
    level = torch.linspace(0.1, 0.4, 10)[:, None, None]
    target = (level + 0.05 * torch.randn(4, 10, 16, 16, generator=rng)).clamp(0.01, 1)
    target[:, :, 0, :2] = torch.tensor([0.0, 1.0])  # values from 0 to 1
    output = target + 0.025 * torch.randn(target.shape, generator=rng)
    mean, std = target.mean(dim=(0, 2, 3))[:, None, None], target.std(dim=(0, 2, 3))[:, None, None]
    scores = [(image - mean) / std for image in (output, target)]
    whole, alone = (
        float(spectral_reconstruction(*scores, mean * unit, std * unit, unit, weight)) for weight in (0.1, 0.0)
    )
    assert 0.2 < 1 - alone / whole < 0.4
    assert alone == pytest.approx(0.025 * (2 / torch.pi) ** 0.5, rel=0.05)
