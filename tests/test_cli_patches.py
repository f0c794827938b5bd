"""The steps of the command line with image-mask pairs, and with pairs of dates."""

import json
from pathlib import Path

import pytest

from hsiaug.cli import main
from hsiaug.datasets import SyntheticBank

SCENES = {
    'segmentation': '--scene.simulated={height: 64, width: 64, classes: 3, wavelengths: null}',
    'change': '--scene.simulated={height: 64, width: 64, classes: 3, dates: 2, change: 0.1}',
}
SPLITS = {
    'segmentation': ['--split.strategy=patches', '--split.settings={size: 16, stride: 8, regions: halves}'],
    'change': [
        '--split.strategy=change_patches', '--split.settings={size: 16, stride: 8, regions: halves, max_train: 20}',
    ],
}  # fmt: skip
TINY = '{vae_iterations: 5, diffusion_iterations: 5, vae_channels: 8, unet_channels: [16, 32], batch_size: 4}'
NETWORKS = {
    'segmentation': '{model: segformer, encoder: mit_tiny, channels: 16, steps: 4, batch_size: 4}',
    'change': '{model: changeformer-v3, encoder: mit_tiny, channels: 8, steps: 4, batch_size: 4}',
}
SCENE, SPLIT = SCENES['change'], SPLITS['change']
kinds = pytest.mark.parametrize('kind', SCENES)


@kinds
def test_train_evaluate_sample_and_preview(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = tmp_path / 'pairs', [SCENES[kind], *SPLITS[kind]]
    main(['train', f'--out={run}', *data, '--generator=two_stream_diffusion', f'--settings={TINY}'])
    assert f'--split.strategy={json.loads((run / "run.json").read_text())["split"]["strategy"]}' == SPLITS[kind][0]
    main(['evaluate', str(run), '--count=24'])
    printed = capsys.readouterr().out
    said = {'segmentation': ['alignment of mask and image'], 'change': ['Date 2:', '24 synthetic pairs, ']}
    assert all(one in printed for one in said[kind])
    assert (run / 'figures' / 'pairs.png').stat().st_size > 10_000
    main(['sample', str(run), '--count=12', f'--out={tmp_path / "bank"}', '--labels=inverse', '--preview'])
    bank = SyntheticBank.open(tmp_path / 'bank')
    assert bank.spec.kind == kind
    dates = {'segmentation': (), 'change': (2,)}[kind]
    assert bank[0]['image'].shape == (*dates, bank.spec.bands, 16, 16)
    assert bank[0]['mask'].shape[-2:] == (16, 16)
    if kind == 'change':
        assert set(bank[0]['mask'].unique().tolist()) <= {0, 1, 255}
    assert (tmp_path / 'bank_preview.png').stat().st_size > 10_000


@kinds
def test_ablate(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    way = {'segmentation': 'flips', 'change': 'copy_paste'}[kind]
    main([
        'ablate', f'--out={tmp_path}', SCENES[kind], *SPLITS[kind], '--ratios=[1]', '--seeds=2',
        f'--arms=[{{name: {way}, generator: patch_augment, settings: {{kind: {way}}}, labels: real}}]',
        f'--models=[{{name: tiny, config: {NETWORKS[kind]}}}]',
    ])  # fmt: skip
    assert {'segmentation': 'mean mIoU', 'change': 'mean F1'}[kind] in capsys.readouterr().out
    assert len((tmp_path / 'results.jsonl').read_text().splitlines()) == 4
    if kind == 'change':
        page = (tmp_path / 'report.md').read_text()
        assert 'changes-simulated-change_patches%2C_all_labels-tiny.png' in page
        assert 'those of the change class' in page


def test_ratio_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = tmp_path / 'flips', [SCENES['segmentation'], *SPLITS['segmentation']]
    main(['train', f'--out={run}', *data, '--generator=patch_augment', '--settings={kind: flips}'])
    network = f'--model={NETWORKS["segmentation"]}'
    main(['ratio', str(run), '--ratios=[1]', '--folds=2', '--block=1', '--trials=2', network])
    said = capsys.readouterr()
    assert 'differs from 0 by' in said.out
    assert ' trainings [' in said.err  # its progress
    assert json.loads((run / 'ratio.json').read_text())['trainings'] == 4


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (SPLIT, 'split.strategy change_patches is for scenes of two dates'),
        ([SCENE], 'a scene of two dates is split into patches or change_patches, found split.strategy random'),
        (['--models=[siamcrnn]'], "'spectrum' are for the models ['nn1d', 'linear_svm']"),
        ([SCENE, *SPLIT, '--models=[segformer]'], "for the models ['changeformer', "),
        ([SCENE, *SPLIT, '--models=[siamcrnn]', '--detectors=[{name: x}]'], 'detectors'),
        ([SCENE, *SPLIT, '--models=[{name: x, c: [1.0]}]'], "unknown field 'c'"),
        ([SCENE, *SPLIT, '--per_class=[10]'], 'max_train'),
        ([SCENES['segmentation'], *SPLITS['segmentation'], '--per_class=[10]'], 'max_train'),
    ],
)
def test_what_does_not_fit_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(['ablate', f'--out={tmp_path / "x"}', *arguments])
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'x').exists()
