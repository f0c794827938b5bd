"""The steps of the command line with pairs of dates."""

import json
from pathlib import Path

import pytest

from hsiaug.cli import main
from hsiaug.datasets import SyntheticBank

SCENE = '--scene.simulated={height: 64, width: 64, classes: 3, dates: 2, change: 0.1}'
SPLIT = ['--split.strategy=change_patches', '--split.settings={size: 16, stride: 8, regions: halves, max_train: 20}']
TINY = '{vae_iterations: 5, diffusion_iterations: 5, vae_channels: 8, unet_channels: [16, 32], batch_size: 4}'
NETWORK = '{model: changeformer-v3, encoder: mit_tiny, channels: 8, steps: 4, batch_size: 4}'


def test_train_evaluate_sample_and_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / 'pairs'
    main(['train', f'--out={run}', SCENE, *SPLIT, '--generator=two_stream_diffusion', f'--settings={TINY}'])
    assert json.loads((run / 'run.json').read_text())['split']['strategy'] == 'change_patches'
    main(['evaluate', str(run), '--count=24'])
    printed = capsys.readouterr().out
    assert '### Date 2' in printed
    assert '24 synthetic pairs, ' in printed
    assert (run / 'figures' / 'pairs.png').stat().st_size > 10_000
    main(['sample', str(run), '--count=12', f'--out={tmp_path / "bank"}', '--labels=inverse', '--preview'])
    bank = SyntheticBank.open(tmp_path / 'bank')
    assert bank.spec.kind == 'change'
    assert bank[0]['image'].shape == (2, bank.spec.bands, 16, 16)
    assert set(bank[0]['mask'].unique().tolist()) <= {0, 1, 255}
    assert (tmp_path / 'bank_preview.png').stat().st_size > 10_000


def test_ablate_with_pairs_of_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([
        'ablate', f'--out={tmp_path}', SCENE, *SPLIT, '--ratios=[1]', '--seeds=2',
        '--arms=[{name: copy_paste, generator: patch_augment, settings: {kind: copy_paste}, labels: real}]',
        f'--models=[{{name: tiny, config: {NETWORK}}}]',
    ])  # fmt: skip
    assert 'mean F1' in capsys.readouterr().out
    assert len((tmp_path / 'results.jsonl').read_text().splitlines()) == 4
    page = (tmp_path / 'report.md').read_text()
    assert 'changes-simulated-change_patches%2C_all_labels-tiny.png' in page
    assert 'those of the change class' in page


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([SCENE, *SPLIT, '--segmenters=[{name: x}]'], "segmenters are for samples of kind 'segmentation'"),
        (
            [*SPLIT, '--detectors=[{name: x}]'],
            "give 'segmentation'; for these choose models among ['segformer', 'pfsegnet']",
        ),
        ([SCENE, '--detectors=[{name: x}]'], "give 'spectrum'; for these choose models among ['nn1d', 'linear_svm']"),
        ([SCENE, *SPLIT, '--models=[segformer]'], "for the models ['changeformer', "),
        ([SCENE, *SPLIT, '--models=[siamcrnn]', '--detectors=[{name: x}]'], 'models and detectors name downstream'),
        ([SCENE, *SPLIT, '--models=[{name: x, c: [1.0]}]'], "unknown field 'c'"),
        ([SCENE, *SPLIT, '--per_class=[10]'], 'max_train'),
    ],
)
def test_what_does_not_fit_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(['ablate', f'--out={tmp_path / "x"}', *arguments])
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'x').exists()
