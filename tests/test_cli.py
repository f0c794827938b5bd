import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import yaml

from hsiaug.cli import main
from hsiaug.scenes import SimulatedScene
from hsiaug.trainers.spectral_gan import SpectralGANConfig

GAN = '--settings={iterations: 3, hidden: 8}'
CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, scene = tmp_path_factory.mktemp('scene'), SimulatedScene(32, 32, classes=3)
    cube, labels = folder / 'PaviaU.mat', folder / 'PaviaU_gt.mat'
    scipy.io.savemat(cube, {'paviaU': scene.cube})
    scipy.io.savemat(labels, {'paviaU_gt': scene.labels})
    return cube, labels


def test_steps_one_by_one(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / 'gan'
    scene = [f'--scene.path={files[0]}', f'--scene.labels={files[1]}']
    main(['train', f'--out={run}', *scene, '--split.settings={fraction: 0.2}', GAN])
    samples = tmp_path / 's.npz'
    main(['sample', str(run), '--count=30', f'--out={samples}', '--labels=uniform'])
    with np.load(tmp_path / 's.npz', allow_pickle=False) as out:
        assert np.bincount(out['label']).tolist() == [10, 10, 10]
        assert out['image'].shape == (30, 100)
        assert json.loads(str(out['record']))['provenance']['split'] is not None
    main(['evaluate', str(run), '--per_class=20'])
    printed = capsys.readouterr().out
    assert 'real→fake' in printed
    assert (run / 'figures' / 'class_spectra.png').stat().st_size > 10_000
    assert (run / 'figures' / 'interpolation_within.png').exists()
    assert 'mSAD' in (run / 'README.md').read_text()


def test_ablate_by_config_and_report_again(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / 'pavia'
    main([
        'ablate', f'--config={CONFIGS / "ablate_spectra.yaml"}', f'--scene.path={files[0]}',
        f'--scene.labels={files[1]}', f'--out={run}', '--seeds=2', '--ratios=[1]', '--workers=1', '--per_class=[12]',
        '--arms=[{name: mixup, generator: mixup, settings: {partners: across}}]',
        '--classifiers=[{name: linear_svm, c: [1.0]}]', '--split.settings={on_rare: drop}',
    ])  # fmt: skip
    table = capsys.readouterr().out
    assert 'PaviaU, halves, 12 per class, linear_svm' in table
    assert 'no basis for claims' in table
    first = (run / 'report.md').read_bytes()
    main(['report', str(run)])
    assert (run / 'report.md').read_bytes() == first


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, message in (
        (['ablate', f'--out={tmp_path / "x"}', '--scene.path=nowhere.mat'], 'nowhere.mat does not exist'),
        (['report', str(tmp_path)], 'holds no plan.json'),
        (['ablate', f'--out={tmp_path / "x"}', '--ratios=[-1]'], 'finite number >= 0'),
        (['train', f'--out={tmp_path / "x"}', '--generator=ganerator'], 'unknown generator'),
        (['sample', str(tmp_path), f'--out={tmp_path / "s.npz"}'], 'holds no config.json'),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(args)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert 'Traceback' not in error
    assert not (tmp_path / 's.npz').exists()


@pytest.mark.parametrize('config', sorted(CONFIGS.glob('*.yaml')), ids=lambda p: p.stem)
def test_configs_parse(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = 'train' if 'audebert' in config.stem else 'ablate'
    with pytest.raises(SystemExit) as stopped:
        main([command, f'--config={config}', f'--out={tmp_path}', '--print_config'])
    assert not stopped.value.code
    assert 'strategy' in capsys.readouterr().out


def test_published_setting_is_the_papers() -> None:
    settings = yaml.safe_load((CONFIGS / 'audebert2018.yaml').read_text())['settings']
    assert SpectralGANConfig(**settings) == SpectralGANConfig.paper()


def test_quick_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['ablate', '--quick', '--print_config'])
    assert 'quick: true' in capsys.readouterr().out
