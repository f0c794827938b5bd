"""A band that hardly varies where a network was trained, and varies elsewhere, costs no accuracy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hsiaug.datasets import ChangeDataset, PatchDataset, SceneDataset, SpectraDataset
from hsiaug.samples import SampleSpec
from hsiaug.scenes import HalvesSplit, Scene
from hsiaug.systems import TrainingData
from hsiaug.systems.spectral_gan.model import SpectralSpace
from hsiaug.trainers import (
    ChangeDetectorConfig,
    ClassifierConfig,
    LinearSVM,
    SceneClassifierConfig,
    SegmenterConfig,
    fit_generator,
    predict,
    predict_changes,
    predict_masks,
    predict_scenes,
    train_change_detector,
    train_nn1d,
    train_scene_classifier,
    train_segmenter,
)

SPREADS = [0.0, 1e-6, 1e-4, 1e-3]


def striped_scene(spread: float, level: float = 0.3, dead: tuple[int, ...] = (6,)) -> tuple[Scene, Any]:
    """Two classes that four of eight bands tell apart; others are dead in the half that is trained on."""
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 3, (40, 40))
    cube = rng.normal(0.3, 0.05, (40, 40, 8)).astype(np.float32)
    cube[..., :4] += 0.1 * (labels == 2)[..., None]
    for band in dead:
        cube[:, :20, band] = level + spread * rng.standard_normal((40, 20))
    scene = Scene('stripes', cube, labels)
    return scene, HalvesSplit()(scene, 0)


@pytest.mark.parametrize('unit', [1.0, 1e4])
@pytest.mark.parametrize('spread', SPREADS)
def test_classifiers_of_spectra(spread: float, unit: float) -> None:
    scene, split = striped_scene(spread)
    scene.cube *= unit
    train, test = (SpectraDataset(scene, split, part) for part in ('train', 'test'))
    x, y = test.tensors()
    model = train_nn1d(train, ClassifierConfig(steps=200, hidden=32))
    assert float(model.scaler(x).abs().max()) < 10
    assert float((predict(model, x) == y).float().mean()) > 0.95
    assert float((LinearSVM().fit(*train.tensors()).predict(x) == y).float().mean()) > 0.95


@pytest.mark.parametrize(('level', 'dead'), [(0.0, (6,)), (6.5, (6,)), (0.3, (4, 5, 6, 7))])
def test_masked_saturated_and_several_dead_bands(level: float, dead: tuple[int, ...]) -> None:
    scene, split = striped_scene(0.0, level, dead)
    x, y = SpectraDataset(scene, split, 'test').tensors()
    model = train_nn1d(SpectraDataset(scene, split), ClassifierConfig(steps=200, hidden=32))
    assert float((predict(model, x) == y).float().mean()) > 0.95


def patches(n: int, spread: float | None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(n, 4, 16, 16) images, in which the first band tells the (n, 16, 16) masks; the third is dead unless None."""
    rng = torch.Generator().manual_seed(seed)
    mask = (torch.rand(n, 4, 4, generator=rng) > 0.5).long().repeat_interleave(4, 1).repeat_interleave(4, 2)
    image = 0.3 + 0.05 * torch.randn(n, 4, 16, 16, generator=rng)
    image[:, 0] += 0.2 * mask
    if spread is not None:
        image[:, 2] = 0.3 + spread * torch.randn(n, 16, 16, generator=rng)
    return image, mask


@pytest.mark.parametrize('spread', [0.0, 1e-4])
def test_networks_of_images(spread: float) -> None:
    (image, mask), (unseen, truth) = patches(12, spread), patches(12, None, 1)
    spec = SampleSpec('segmentation', 4, ('a', 'b'), size=(16, 16), ignore_index=255)
    small: dict[str, Any] = {'channels': 16, 'encoder': 'mit_tiny', 'batch_size': 4, 'upsampling': 4}
    network = train_segmenter(PatchDataset(image, mask, spec), SegmenterConfig(steps=60, **small))
    assert float((predict_masks(network, unseen) == truth).float().mean()) > 0.95

    first, _ = patches(24, spread, 2)
    label = torch.arange(24) % 2
    first[:, 1] += 0.2 * label[:, None, None]
    spec = SampleSpec('scene', 4, ('a', 'b'), size=(16, 16))
    classifier = train_scene_classifier(SceneDataset(first, label, spec), SceneClassifierConfig(steps=30, batch_size=8))
    unseen[:, 1] += 0.2 * (torch.arange(12) % 2)[:, None, None]
    assert float((predict_scenes(classifier, unseen) == torch.arange(12) % 2).float().mean()) > 0.9

    def dates(n: int, spread: float | None, seed: int) -> tuple[Tensor, Tensor]:
        (one, before), (other, after) = patches(n, spread, seed), patches(n, spread, seed + 1)
        return torch.stack([one, other], dim=1), (before != after).long()[:, None]

    spec = SampleSpec('change', 4, ('unchanged', 'changed'), size=(16, 16), ignore_index=255)
    config = ChangeDetectorConfig(steps=80, learning_rate=5e-3, **small)
    detector = train_change_detector(ChangeDataset(*dates(24, spread, 3), spec), config)
    pairs, changed = dates(8, None, 7)
    assert float((predict_changes(detector, pairs) == changed).float().mean()) > 0.9


@pytest.mark.parametrize('kind', ['spectral_gan', 'variability', 'gaussian'])
def test_samples_of_generators_leave_a_dead_band_where_it_is(kind: str) -> None:
    scene, split = striped_scene(0.0)
    parts = {part: SpectraDataset(scene, split, part).tensors() for part in ('train', 'val')}
    (x, y), (val_x, val_y) = parts['train'], parts['val']
    data = TrainingData(SampleSpec('spectrum', 8, ('a', 'b')), x, y, x[:0], val_x, val_y)
    for space in ('pca', 'unit') if kind == 'spectral_gan' else (None,):
        settings = {'iterations': 3, 'hidden': 8, 'space': space} if space else {}
        image = fit_generator(kind, data, settings).sample(200, seed=0)['image']
        assert bool(image.isfinite().all())
        if space != 'unit':
            assert float(image[:, 6].std()) < float(x[:, 5].std())


def test_whitening_knows_no_direction_that_the_spectra_do_not_show() -> None:
    rng = torch.Generator().manual_seed(0)
    x = 0.3 + 0.05 * torch.randn((5, 12), generator=rng)
    x[:, 3] = 0.3
    space = SpectralSpace(12, 'pca', 10)
    space.fit(x)
    unseen = 0.3 + 0.05 * torch.randn((50, 12), generator=rng)
    assert float(space.encode(x).abs().max()) < 3
    assert float(space.encode(unseen).abs().max()) < 50
    assert torch.allclose(space.decode(space.encode(x)), x, atol=1e-5)
