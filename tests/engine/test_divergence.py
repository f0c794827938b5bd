"""A training that diverges says by which step, with which losses, and what to try; nothing of it is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import make_changes
from pairs import make_pairs

from hsiaug.cli import main
from hsiaug.datasets import ChangeDataset, PatchDataset, SceneDataset, SpectraDataset
from hsiaug.engine.divergence import DivergedError, require_finite
from hsiaug.samples import SampleSpec
from hsiaug.scenes import Scene, Split
from hsiaug.systems import TrainingData
from hsiaug.systems.saved import TRAINING_FOLDER
from hsiaug.trainers import (
    ChangeDetectorConfig,
    ClassifierConfig,
    SceneClassifierConfig,
    SegmenterConfig,
    fit_generator,
    patch_encoder,
    train_change_detector,
    train_nn1d,
    train_scene_classifier,
    train_segmenter,
)

SMALL: dict[str, Any] = {'channels': 8, 'encoder': 'mit_tiny', 'batch_size': 2, 'learning_rate': 1e30, 'steps': 5}
ABUNDANCES = {'iterations': 2, 'network': {'channels': [8, 16]}, 'batch_size': 2}
UNMIXING = {'endmembers': 3, 'widths': [8, 8, 12, 8, 8], 'steps': 5, 'inputs': 'all', 'learning_rate': 1e30}
VAE = {'vae_iterations': 5, 'diffusion_iterations': 2, 'vae_channels': 4, 'unet_channels': [8, 16], 'vae_lr': 1e30}


def downstream(kind: str, scene: Scene, split: Split) -> Callable[[], Any]:
    pairs, changes = make_pairs(6), make_changes(6)
    if kind == 'nn1d':
        return lambda: train_nn1d(SpectraDataset(scene, split), ClassifierConfig(steps=5, hidden=8, lr=1e30))
    if kind == 'segmenter':
        return lambda: train_segmenter(PatchDataset(pairs.x, pairs.y, pairs.spec), SegmenterConfig(**SMALL))
    if kind == 'change detector':
        return lambda: train_change_detector(
            ChangeDataset(changes.x, changes.y, changes.spec), ChangeDetectorConfig(**SMALL)
        )
    if kind == 'patch encoder':
        return lambda: patch_encoder.train_patch_encoder(pairs.x, pairs.y, 3, steps=5)
    images = SceneDataset(pairs.x, torch.arange(6) % 3, SampleSpec('scene', 8, ('a', 'b', 'c'), size=(16, 16)))
    return lambda: train_scene_classifier(images, SceneClassifierConfig(steps=5, batch_size=2, learning_rate=1e30))


@pytest.mark.parametrize('kind', ['nn1d', 'segmenter', 'change detector', 'scene classifier', 'patch encoder'])
def test_downstream_networks(kind: str, scene: Scene, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_encoder, '_LEARNING_RATE', 1e30)
    with pytest.raises(FloatingPointError, match=r'diverged by step 5: loss .*; lower .*(lr|rate) \(1e\+30\)'):
        downstream(kind, scene, split)()


@pytest.mark.parametrize(
    ('kind', 'settings'),
    [
        ('spectral_gan', {'iterations': 5, 'lr': 1e30}),
        ('spectral_gan', {'iterations': 5, 'lr': 1e30, 'members': 2}),
        ('patch_gan', {'iterations': 5, 'lr': 1e30}),
        ('two_stream_diffusion', VAE),
        ('unmixing_fusion', {'unmixing': UNMIXING, 'abundances': ABUNDANCES, 'mask_steps': 2}),
        ('change_editing', {'painter': VAE, 'clusters': 2, 'composites': 0}),
    ],
)
def test_generators(data: TrainingData, kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    given = {'spectral_gan': data, 'change_editing': make_changes(16)}.get(kind) or make_pairs(16)
    with pytest.raises(FloatingPointError, match=r'diverged .*[52]: .*; lower .*no checkpoint was written yet'):
        fit_generator(kind, given, settings, folder=tmp_path)
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == []


def test_weights_are_looked_at_beside_losses() -> None:
    network = torch.nn.Linear(2, 2)
    require_finite('it diverged', {'loss': 0.5}, {'network': network}, 'lr (1)')
    network.weight.data[0, 0] = float('inf')
    require_finite('it diverged', {'loss': 0.5}, {}, 'lr (1)')
    with pytest.raises(DivergedError, match=r'it diverged: loss 0.5, weights nan; lower lr \(1\), and check the data'):
        require_finite('it diverged', {'loss': 0.5}, {'network': network}, 'lr (1)')


def test_the_command_line_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'run'
    options = {'iterations': 5, 'hidden': 8, 'lr': '1e30'}
    settings = [f'--settings.{name}={value}' for name, value in options.items()]
    with pytest.raises(SystemExit) as stopped:
        main(['train', f'--out={out}', '--generator=spectral_gan', *settings])
    assert stopped.value.code == 2
    assert "hsiaug: training diverged in stage 'gan' by step 5" in capsys.readouterr().err
    assert not (out / 'model.safetensors').exists()
    assert not list((out / TRAINING_FOLDER).glob('*.safetensors'))
