"""Pictures and losses that a training leaves in its folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from weights import same

from hsiaug.engine.loss_log import read_losses
from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData
from hsiaug.systems.fit import fit_generator
from hsiaug.systems.pictures import Pictures

PARTS = {
    'spectral_gan': ('critic', 'classifier', 'generator'),
    'without labels': ('critic', 'generator'),
    'patch_gan': ('discriminator', 'generator'),
}
SHORT = {'iterations': 5, 'batch_size': 8}


def images() -> TrainingData:
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(12) % 2
    image = label[:, None, None, None] * 0.3 + 0.1 * torch.rand((12, 4, 8, 8), generator=rng)
    spec = SampleSpec('scene', 4, classes=('soil', 'field'), size=(8, 8))
    return TrainingData(spec, image, label, image[:0], image[:0], label[:0])


@pytest.mark.parametrize('kind', ['spectral_gan', 'patch_gan', 'without labels'])
def test_a_training_draws_its_samples_and_learns_the_same(
    kind: str, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pictures.__init__, '__defaults__', (3,))
    settings = dict(SHORT)
    if kind == 'patch_gan':
        data = images()
    elif kind == 'without labels':
        data = replace(data, y=data.y[:0], val_y=data.val_y[:0])
        settings |= {'conditional': False, 'select_every': 0}
    name = 'patch_gan' if kind == 'patch_gan' else 'spectral_gan'
    silent = fit_generator(name, data, settings)
    drawn = fit_generator(name, data, settings, folder=tmp_path, losses=tmp_path / 'losses.csv')
    (picture,) = tmp_path.glob('*.png')
    assert picture.name == 'samples_3.png'
    assert imread(picture).std() > 0.05
    curves = read_losses(tmp_path / 'losses.csv')
    assert [(loss, len(curve)) for (_, loss), curve in curves.items()] == [(loss, 5) for loss in PARTS[kind]]
    assert same(silent, drawn)
