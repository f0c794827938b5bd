"""Training data that are not what their spec says, and draws that no generator can make."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import toy_training

from hsiaug.samples import SpecMismatchError
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import fit_generator


def spectra() -> TrainingData:
    data = toy_training('spectrum', 30)
    return replace(data, val_x=data.x[:3], val_y=data.y[:3])


@pytest.mark.parametrize('kind', ['duplicate', 'gaussian', 'variability', 'noise'])
@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        ({'x': lambda d: d.x[:, :4]}, ValueError, r'spectra must be \(N, 5\) with labels \(N\), found \(30, 4\)'),
        ({'y': lambda d: d.y[:20]}, ValueError, r'found \(30, 5\) and \(20,\)'),
        ({'y': lambda d: d.y + 1}, ValueError, r'labels hold the values \[3\], but the 3 classes are 0 to 2'),
        ({'y': lambda d: d.y.float()}, TypeError, 'labels must be whole numbers, found torch.float32'),
        ({'x': lambda d: d.x.index_fill(0, torch.tensor(3), torch.nan)}, ValueError, '1 of 30 spectra hold NaN'),
        ({'x': lambda d: d.x.numpy()}, TypeError, 'must be tensors, found ndarray'),
    ],
)
def test_data_that_are_not_those_of_their_spec(
    kind: str, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    data = spectra()
    with pytest.raises(error, match=message):
        fit_generator(kind, replace(data, **{name: f(data) for name, f in change.items()}))


@pytest.mark.parametrize('kind', ['gaussian', 'gain_offset', 'variability', 'spectral_gan', 'pseudo_label'])
def test_samples_may_be_any_numbers(kind: str) -> None:
    data = spectra()
    data = replace(data, x=(1000 * data.x).round(), unlabelled=(1000 * data.x).round())
    settings = {'spectral_gan': {'iterations': 2, 'hidden': 8}, 'pseudo_label': {'confidence': 0.0}}.get(kind, {})
    settings |= {'teachers': 1, 'teacher': {'steps': 2, 'hidden': 8}} if kind == 'pseudo_label' else {}
    expected = fit_generator(kind, data, settings).sample(4, seed=0)['image']
    for dtype in (torch.int32, torch.float64):
        other = replace(data, x=data.x.to(dtype), unlabelled=data.unlabelled.to(dtype), y=data.y.to(torch.uint8))
        assert torch.equal(fit_generator(kind, other, settings).sample(4, seed=0)['image'], expected)


@pytest.mark.parametrize('kind', ['gaussian', 'spectral_gan'])
def test_one_sample_is_enough(kind: str, recwarn: pytest.WarningsRecorder) -> None:
    data = spectra()
    settings = {'iterations': 2, 'hidden': 8} if kind == 'spectral_gan' else {}
    one = replace(data, spec=replace(data.spec, classes=('a',)), x=data.x[:1], y=data.y[:1] * 0)
    made = fit_generator(kind, one, settings).sample(3, seed=0)['image']
    assert torch.allclose(made, data.x[:1].expand(3, -1), atol=1e-4)
    assert not recwarn.list
    with pytest.raises(ValueError, match='pseudo_label: labelled samples are needed to train the teachers, found none'):
        fit_generator('pseudo_label', replace(data, x=data.x[:0], y=data.y[:0], unlabelled=data.x))


def test_labels_may_be_any_whole_numbers() -> None:
    generator = fit_generator('noise', spectra())
    expected = generator.sample(3, torch.tensor([0, 1, 2]), seed=0)
    for labels in ([0, 1, 2], np.array([0, 1, 2], dtype=np.uint8), torch.tensor([0, 1, 2], dtype=torch.int16)):
        assert torch.equal(generator.sample(3, labels, seed=0)['image'], expected['image'])  # type: ignore[arg-type]
    for wrong in (torch.tensor([0.0, 1.7]), torch.tensor([True, False])):
        with pytest.raises(ValueError, match='labels must be whole numbers'):
            generator.sample(2, wrong)


@pytest.mark.parametrize('n', [-1, 2.0, '3', True])
def test_a_number_of_samples_is_one(n: Any) -> None:
    with pytest.raises(ValueError, match='Noise: n must be'):
        fit_generator('noise', spectra()).sample(n)


@pytest.mark.parametrize('seed', [1 << 63, -(1 << 63) - 1])
def test_a_seed_has_64_bits(seed: int) -> None:
    with pytest.raises(TypeError, match='at most 64 bits'):
        fit_generator('noise', spectra()).sample(1, seed=seed)


def test_samples_are_those_of_the_spec() -> None:
    generator = fit_generator('duplicate', spectra())
    generator.spec = replace(generator.spec, bands=7)  # as an edited config.json says
    with pytest.raises(SpecMismatchError, match=r'makes images of \(5,\), its spec says \(7,\)'):
        generator.sample(2)


@pytest.mark.parametrize(
    ('drawn', 'error', 'message'),
    [
        (lambda x: x, TypeError, 'Own: _draw must return tensors by name, found Tensor'),
        (
            lambda x: {'images': x},
            TypeError,
            r"9 samples of 'image' must be drawn, found NoneType among \['images",
        ),
        (lambda x: {'image': x.numpy()}, TypeError, "9 samples of 'image' must be drawn, found ndarray"),
        (lambda x: {'image': x[1:]}, TypeError, r"9 samples of 'image' must be drawn, found \(8, 5\)"),
        (
            lambda x: {'image': x, 'label_prob': x[:, :2]},
            SpecMismatchError,
            r'label_probs of \(2,\), its spec',
        ),
    ],
)
def test_what_a_generator_of_ones_own_draws_is_looked_at(drawn: Any, error: type[Exception], message: str) -> None:
    class Own(Generator):
        def _draw(self, labels: Tensor, rng: torch.Generator) -> Any:
            return drawn(torch.rand(len(labels), self.spec.bands, generator=rng))

    with pytest.raises(error, match=message):
        Own(spectra().spec).sample(9, seed=0)


@pytest.mark.parametrize('kind', ['gaussian', 'spectral_gan', 'patch_gan'])
def test_a_class_that_is_ignored_may_be_lacking(kind: str) -> None:
    data = toy_training('scene', 20) if kind == 'patch_gan' else spectra()
    counts, settings = data.y > 0, {} if kind == 'gaussian' else {'iterations': 2, 'calibrate': True}
    rest = replace(data, spec=replace(data.spec, ignore_index=0), x=data.x[counts], y=data.y[counts])
    assert fit_generator(kind, rest, settings).sample(20, seed=0)['label'].unique().tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"no training sample of \['\w+'\] to learn from"):
        fit_generator(kind, replace(rest, spec=data.spec), settings)
