from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from toys import toy_spec
from zooms import class_of, plateaus

from hsiaug.functional.degradation import degrade, upsample
from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData
from hsiaug.systems.msrresgan.model import MSRResGAN
from hsiaug.trainers import fit_generator

SIZE = 12


def bicubic(data: TrainingData, **settings: Any) -> MSRResGAN:
    """With interpolation for a network, nothing is trained and all else can be checked."""
    generator = fit_generator('msrresgan', data, {'network': 'bicubic', **settings})
    assert isinstance(generator, MSRResGAN)
    return generator


@pytest.mark.parametrize('factor', [2, 3])
def test_zoomed_masks_follow_images(factor: int) -> None:
    data = plateaus()
    generator = bicubic(data, factor=factor)
    state = torch.get_rng_state()
    batch, again = generator.sample(60, seed=1), generator.sample(60, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch['image'], again['image'])
    assert torch.equal(batch['mask'], again['mask'])
    assert batch['image'].shape == (60, 5, SIZE, SIZE)
    assert 'label' not in batch
    agree = (class_of(batch['image']) == batch['mask']).float()
    assert agree.mean() > 0.85  # all but the borders, which interpolation blurs
    assert (class_of(batch['image']) == batch['mask'].flip(-1)).float().mean() < 0.8
    # the mask is made of squares of one class
    cells = batch['mask'].unfold(1, factor, factor).unfold(2, factor, factor).flatten(3)
    assert torch.equal(cells.amin(-1), cells.amax(-1))


def test_zoom_is_a_window_of_the_sample() -> None:
    data = plateaus()
    generator = bicubic(data, factor=2)
    batch = {'image': data.x, 'mask': data.y, 'synthetic': torch.zeros(6, dtype=torch.bool)}
    zoomed = generator.augment(batch, seed=0)
    windows = set()
    for i in range(6):
        found = [
            (t, u)
            for t in range(7)
            for u in range(7)
            if torch.allclose(
                zoomed['image'][i : i + 1], upsample(data.x[i : i + 1, :, t : t + 6, u : u + 6], 2), atol=1e-5
            )
        ]
        assert len(found) == 1
        (t, u) = found[0]
        small = data.y[i, t : t + 6, u : u + 6]
        assert torch.equal(zoomed['mask'][i], small.repeat_interleave(2, 0).repeat_interleave(2, 1))
        windows.add((t, u))
    assert len(windows) > 3
    assert zoomed['synthetic'] is batch['synthetic']


def test_windows_hold_the_class_asked_for() -> None:
    data = plateaus(8)
    data.y[:] = 0
    data.y[3, 0, 0] = 2
    data.y[5, SIZE - 1, 4] = 2
    generator = bicubic(data, factor=3)
    batch = generator.sample(40, torch.full((40,), 2), seed=0)
    assert (batch['mask'] == 2).flatten(1).any(dim=1).all()
    assert len({mask.numpy().tobytes() for mask in batch['mask']}) > 3


def test_jitter_degrades_and_restores_and_leaves_masks() -> None:
    data = plateaus()
    generator = bicubic(data, factor=2, augmentation='jitter', mtf=0.2)
    batch = generator.augment({'image': data.x, 'mask': data.y}, seed=0)
    assert torch.equal(batch['mask'], data.y)
    assert torch.allclose(batch['image'], upsample(degrade(data.x, 2, 0.2), 2), atol=1e-5)
    noisy = bicubic(data, factor=2, augmentation='jitter', mtf=0.2, noise=0.5)
    rest = noisy.augment({'image': data.x}, seed=0)['image'] - batch['image']
    assert 0.2 < float(rest.std() / noisy.scale) < 0.6


@pytest.mark.parametrize('augmentation', ['zoom', 'jitter'])
def test_patches_need_not_divide_by_the_factor(augmentation: str) -> None:
    """As 64 pixels at the text's factor of 5: interpolated first, then cut."""
    data = plateaus(20)
    generator = bicubic(data, factor=5, augmentation=augmentation)
    batch = generator.augment({'image': data.x, 'mask': data.y}, seed=0)
    assert batch['image'].shape == data.x.shape
    assert batch['mask'].shape == data.y.shape
    agree = (class_of(batch['image']) == batch['mask']).float().mean()
    if augmentation == 'zoom':
        assert agree > 0.8
        wanted = torch.arange(60) % 3
        held = generator.sample(60, wanted, seed=0)['mask'] == wanted[:, None, None]
        assert held.flatten(1).any(dim=1).all()
    else:
        wide = torch.nn.functional.pad(data.x, (0, 3, 0, 3), mode='replicate')
        assert torch.allclose(batch['image'], upsample(degrade(wide, 5), 5)[..., :SIZE, :SIZE], atol=1e-5)


def test_samples_of_other_generators_can_be_altered() -> None:
    data = plateaus()
    other = fit_generator('patch_augment', data, {'kind': 'noise'})
    batch = bicubic(data).augment(other.sample(7, seed=0), seed=1)
    assert (class_of(batch['image']) == batch['mask']).float().mean() > 0.6
    assert bicubic(data).augment({'image': data.x[:0], 'mask': data.y[:0]}, seed=1)['image'].shape == (0, 5, SIZE, SIZE)


def test_batches_of_other_numbers_are_altered_alike() -> None:
    generator, image = bicubic(plateaus()), plateaus().x.mul(200).round()
    expected = generator.augment({'image': image}, seed=0)['image']
    assert torch.equal(generator.augment({'image': image.double()}, seed=0)['image'], expected.double())
    found = generator.augment({'image': image.to(torch.int16)}, seed=0)['image']
    assert found.dtype == torch.float32  # interpolation goes below 0 and between whole numbers
    assert torch.equal(found, expected)


def test_scenes_keep_label_and_centre() -> None:
    data = plateaus(kind='scene')
    data.x[:, :, SIZE // 2, SIZE // 2] = 50.0
    generator = bicubic(data, factor=3)
    labels = torch.tensor([0, 1, 2] * 5)
    held = [label for label in range(3) if (data.y == label).any()]
    labels = labels[torch.isin(labels, torch.tensor(held))]
    batch = generator.sample(len(labels), labels, seed=0)
    assert torch.equal(batch['label'], labels)
    assert (batch['image'].amax(dim=(1, 2, 3)) > 25).all()  # the centre is in every window


def awake(data: TrainingData, **settings: Any) -> MSRResGAN:
    """An untrained generator with random weights in all layers and statistics of normalisation."""
    torch.manual_seed(0)
    generator = MSRResGAN(data.spec, width=4, blocks=1, **settings)
    generator.observe(data)
    for layer in generator.network.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.3)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return generator.eval()


@pytest.mark.parametrize('factor', [2, 3])
@pytest.mark.parametrize('network', ['msrresgan', 'srgan', 'srcnn', 'bicubic'])
def test_no_seams(network: str, factor: int) -> None:
    generator = awake(plateaus(), network=network, factor=factor)
    image = torch.rand(5, 41, 37, generator=torch.Generator().manual_seed(1))
    whole = generator.super_resolve(image, tile=41)
    assert whole.shape == (5, 41 * factor, 37 * factor)
    assert torch.allclose(whole, generator(image[None])[0].detach(), atol=1e-6)
    tiled = generator.super_resolve(image, tile=16)
    assert float((tiled - whole).abs().max()) < 1e-4 * float(whole.abs().max())


def test_values_stay_in_range() -> None:
    data = plateaus()
    data = replace(data, spec=replace(data.spec, value_range=(0.0, 0.5)))
    image = awake(data).sample(4, seed=0)['image']
    assert float(image.min()) >= 0
    assert float(image.max()) == 0.5


def test_mistakes() -> None:
    for shape in ((6, 1, SIZE, SIZE), (6, SIZE, SIZE - 1)):
        with pytest.raises(ValueError, match=r'masks \(6, 12, 12\) are needed with these images, found \(6, '):
            bicubic(plateaus()).augment({'image': plateaus().x, 'mask': torch.zeros(shape, dtype=torch.int64)})
    spec: SampleSpec = toy_spec('segmentation')
    with pytest.raises(ValueError, match="found 'spectrum'"):
        MSRResGAN(toy_spec('spectrum'))
    with pytest.raises(ValueError, match="unknown augmentation 'crop'"):
        MSRResGAN(spec, augmentation='crop')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='found 1'):
        MSRResGAN(spec, factor=1)
    with pytest.raises(ValueError, match='not trained yet'):
        MSRResGAN(spec).sample(1, torch.tensor([0]))
    generator = awake(plateaus())
    with pytest.raises(ValueError, match=r'an image \(5, h, w\) is needed'):
        generator.super_resolve(torch.zeros(4, 20, 20))
    with pytest.raises(ValueError, match='tiles of 3 pixels are smaller than the 5 pixels around them'):
        generator.super_resolve(torch.zeros(5, 20, 20), tile=3)
    with pytest.raises(ValueError, match='NaN'):
        generator.super_resolve(torch.full((5, 20, 20), torch.nan))
    with pytest.raises(ValueError, match=r"images \('n', 5, 12, 12\) are needed"):
        generator.augment({'image': torch.zeros(2, 5, 8, 8)})
