"""The steps of the command line with image-mask pairs."""

import json
from pathlib import Path

import pytest

from hsiaug.cli import main
from hsiaug.datasets import SyntheticBank

SCENE = '--scene.simulated={height: 64, width: 64, classes: 3, wavelengths: null}'
SPLIT = ['--split.strategy=patches', '--split.settings={size: 16, stride: 8, regions: halves}']
TINY = '{vae_iterations: 5, diffusion_iterations: 5, vae_channels: 8, unet_channels: [16, 32], batch_size: 4}'


def test_train_evaluate_sample_and_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / 'pairs'
    main(['train', f'--out={run}', SCENE, *SPLIT, '--generator=two_stream_diffusion', f'--settings={TINY}'])
    assert json.loads((run / 'run.json').read_text())['split']['strategy'] == 'patches'
    main(['evaluate', str(run), '--count=24'])
    assert 'alignment of mask and image' in capsys.readouterr().out
    assert (run / 'figures' / 'pairs.png').stat().st_size > 10_000
    main(['sample', str(run), '--count=20', f'--out={tmp_path / "bank"}', '--labels=inverse', '--preview'])
    bank = SyntheticBank.open(tmp_path / 'bank')
    assert bank.spec.kind == 'segmentation'
    assert bank[0]['mask'].shape == (16, 16)
    assert (tmp_path / 'bank_preview.png').stat().st_size > 10_000


def test_ablate_with_patches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = '{model: segformer, encoder: mit_tiny, channels: 16, steps: 4, batch_size: 4}'
    main([
        'ablate', f'--out={tmp_path}', SCENE, *SPLIT, '--ratios=[1]', '--seeds=2',
        '--arms=[{name: flips, generator: patch_augment, settings: {kind: flips}, labels: real}]',
        f'--segmenters=[{{name: tiny, config: {network}}}]',
    ])  # fmt: skip
    assert 'mean mIoU' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(['ablate', f'--out={tmp_path / "x"}', SCENE, *SPLIT, '--per_class=[10]'])
    assert 'max_train' in capsys.readouterr().err


def test_ratio_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / 'flips'
    main(['train', f'--out={run}', SCENE, *SPLIT, '--generator=patch_augment', '--settings={kind: flips}'])
    network = '{model: segformer, encoder: mit_tiny, channels: 16, steps: 4, batch_size: 4}'
    main(['ratio', str(run), '--ratios=[1]', '--folds=2', '--block=1', '--trials=2', f'--segmenter={network}'])
    assert 'differs from 0 by' in capsys.readouterr().out
    assert json.loads((run / 'ratio.json').read_text())['trainings'] == 4
