import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from hsiaug.samples import SampleSpec
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.spectral_gan.model import Calibration, SpectralGAN, SpectralSpace

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


def three_classes(spectra: torch.Tensor) -> TrainingData:
    y = torch.arange(len(spectra)) % 3
    x = spectra * (1 + 0.3 * y[:, None])
    return TrainingData(SPEC, x, y, x[:0], x[:0], y[:0])


def test_joint_calibration_gives_classes_their_correlations(spectra: torch.Tensor) -> None:
    data, errors = three_classes(spectra), {}
    for calibration in get_args(Calibration):
        generator = SpectralGAN(SPEC, hidden=16, space='pca', components=5, calibration=calibration)
        generator.space.fit(data.x)
        torch.nn.init.normal_(generator.network.linears[-1].weight)  # of some size in every dimension
        generator.calibrate(data, samples=20_000)
        errors[calibration] = []
        for label in range(3):
            fake = generator.sample(8000, torch.full((8000,), label), seed=5)['image']
            codes = [generator.space.encode(x) for x in (data.x[data.y == label], fake)]
            covariances = [torch.cov(code.T) for code in codes]
            errors[calibration].append(float((covariances[1] - covariances[0]).norm() / covariances[0].norm()))
    assert max(errors['joint']) < 0.2, errors
    assert min(errors['marginal']) > 2 * max(errors['joint'])  # correlations are the network's


def test_joint_calibration_does_not_stretch_rounding(spectra: torch.Tensor) -> None:
    """Where the network hardly varies, a GPU would draw other samples than a CPU."""
    data, drawn = three_classes(spectra), []
    for factor in (1.0, 1.0 + 1e-6):
        torch.manual_seed(0)
        generator = SpectralGAN(SPEC, hidden=8, space='unit', calibration='joint')  # of rank 8 in 20 bands
        generator.space.fit(data.x)
        with torch.no_grad():
            generator.network.linears[0].weight.mul_(factor)
        generator.calibrate(data)
        drawn.append(generator.sample(50, seed=5)['image'])
    assert float((drawn[0] - drawn[1]).abs().max() / drawn[0].abs().max()) < 5e-4


def test_generators_saved_before_there_were_two_calibrations_open(spectra: torch.Tensor, tmp_path: Path) -> None:
    generator = SpectralGAN(SPEC, hidden=16, space='pca', components=5)
    generator.space.fit(spectra)
    generator.calibrate(three_classes(spectra))
    folder = generator.save_pretrained(tmp_path / 'gan')
    config = json.loads((folder / 'config.json').read_text())
    del config['settings']['calibration']
    (folder / 'config.json').write_text(json.dumps(config))
    opened = Generator.from_pretrained(folder)
    assert torch.equal(opened.sample(3, seed=1)['image'], generator.sample(3, seed=1)['image'])


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


def test_one_band_has_a_variance() -> None:
    spec = SampleSpec('spectrum', 1, ('a', 'b'))
    y = torch.arange(40) % 2
    x = y[:, None] + 0.1 * torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    generator = SpectralGAN(spec, hidden=8, space='pca', components=1, calibration='joint')
    generator.space.fit(x)
    generator.calibrate(TrainingData(spec, x, y, x[:0], x[:0], y[:0]))
    drawn = generator.sample(2000, torch.ones(2000, dtype=torch.int64), seed=0)['image']
    assert float(drawn.mean()) == pytest.approx(float(x[y == 1].mean()), abs=0.02)
    assert float(drawn.std()) == pytest.approx(float(x[y == 1].std()), rel=0.1)
