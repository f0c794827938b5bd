import pytest
import torch

from hsiaug.samples import SampleSpec
from hsiaug.systems.spectral_gan.model import SpectralGAN, SpectralSpace

SPEC = SampleSpec('spectrum', 20, ('a', 'b', 'c'))


@pytest.fixture
def spectra() -> torch.Tensor:
    return torch.randn((80, 20), generator=torch.Generator().manual_seed(1)).cumsum(dim=1) * 50 + 300


@pytest.mark.parametrize('space', ['unit', 'pca'])
def test_codes_decode_to_the_spectra(space: str, spectra: torch.Tensor) -> None:
    fitted = SpectralSpace(20, space, components=20)  # type: ignore[arg-type]
    fitted.fit(spectra)
    code = fitted.encode(spectra)
    assert torch.allclose(fitted.decode(code), spectra, rtol=1e-3, atol=0.2)
    if space == 'unit':
        assert code.min() == pytest.approx(0, abs=1e-5)
        assert code.max() == pytest.approx(1, abs=1e-5)
    else:  # whitened
        assert torch.allclose(torch.cov(code.T), torch.eye(20), atol=0.02)


def test_unit_space_keeps_to_the_training_range(spectra: torch.Tensor) -> None:
    generator = SpectralGAN(SPEC, hidden=16)
    generator.space.fit(spectra)
    with torch.no_grad():
        for weight in generator.network.parameters():
            weight.mul_(30)  # drives the sigmoid to both ends
    image = generator.sample(50, seed=0)['image']
    assert image.min() >= spectra.min() - 1e-3
    assert image.max() <= spectra.max() + 1e-3


def test_interpolation_joins_its_ends(spectra: torch.Tensor) -> None:
    generator = SpectralGAN(SPEC, hidden=16)
    generator.space.fit(spectra)
    alphas = torch.tensor([0.0, 0.5, 1.0])
    noise = generator.interpolate((1, 1), alphas, seeds=(0, 1))  # within a class
    classes = generator.interpolate((1, 2), alphas, seeds=(0, 0))  # between classes
    assert torch.allclose(noise[0], classes[0])
    assert torch.allclose(noise[2], generator.interpolate((1, 2), alphas, seeds=(1, 1))[0], rtol=1e-5)
    for path in (noise, classes):
        assert not torch.allclose(path[0], path[1])
        assert not torch.allclose(path[1], path[2])


def test_without_condition_the_label_does_not_matter(spectra: torch.Tensor) -> None:
    images = []
    for conditional in (False, True):
        generator = SpectralGAN(SPEC, hidden=16, conditional=conditional)
        generator.space.fit(spectra)
        images.append([generator.sample(5, torch.full((5,), k), seed=0)['image'] for k in (0, 2)])
    assert torch.equal(*images[0])
    assert not torch.equal(*images[1])
