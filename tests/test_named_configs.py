"""Configurations are found by name, from a checkout and from an installed package."""

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hsiaug import named_configs
from hsiaug.ablation.arms import spectral_arms
from hsiaug.cli import main
from hsiaug.cli.config import read_config, read_train
from hsiaug.named_configs import config_names, find_config, published_config, read_yaml, with_config_files
from hsiaug.scenes import Scene
from hsiaug.systems.fit import fit_generator, require_settings, training_data
from hsiaug.systems.training import trainer_of
from hsiaug.tasks import TASKS

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'configs').glob('*.yaml'))


def test_names_are_those_of_the_folder() -> None:
    assert config_names() == [file.stem for file in FILES]
    assert 'audebert2018' in config_names()


def test_a_name_is_a_file_wherever_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('audebert2018', 'audebert2018.yaml', 'configs/audebert2018.yaml'):
        assert find_config(name).read_bytes() == (ROOT / 'configs' / 'audebert2018.yaml').read_bytes()
    (tmp_path / 'audebert2018.yaml').write_text('seed: 3\n')  # one's own file comes first
    assert find_config('audebert2018.yaml') == Path('audebert2018.yaml')
    for name in ('audebert', 'other/audebert2018.yaml', '../configs/audebert2018', 'audebert2018.json'):
        with pytest.raises(FileNotFoundError, match=f'no config file {name}; give a file, or one of .*audebert2018'):
            find_config(name)


def test_options_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(named_configs.FOLDER / 'audebert2018.yaml')
    assert with_config_files(['train', '--config', 'audebert2018', '--out', 'x']) == [
        'train', '--config', file, '--out', 'x',
    ]  # fmt: skip
    assert with_config_files(['train', '--config=audebert2018']) == ['train', f'--config={file}']
    assert with_config_files(['train', '--config']) == ['train', '--config']


def test_the_command_line_takes_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(['train', '--config', 'no_such', '--out', 'run'])
    assert 'no config file no_such; give a file, or one of' in capsys.readouterr().err
    with pytest.raises(SystemExit):  # found and read: what is missing is the data
        main(['train', '--config', 'audebert2018', '--scene.path', 'PaviaU.mat', '--out', 'run'])
    assert 'PaviaU.mat' in capsys.readouterr().err


def test_a_wheel_holds_them_and_finds_them(tmp_path: Path) -> None:
    source = tmp_path / 'source'
    for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    (source / 'configs').symlink_to(ROOT / 'configs')
    (source / 'hsiaug').mkdir()
    for name in ('__init__.py', 'named_configs.py'):
        (source / 'hsiaug' / name).write_bytes((ROOT / 'hsiaug' / name).read_bytes())
    code = f'from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.endswith('.yaml')}
        archive.extractall(tmp_path / 'site')
    assert held == {f'hsiaug/configs/{file.name}' for file in FILES}
    code = 'from hsiaug.named_configs import *; print(find_config("audebert2018"), *config_names())'
    found = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path / 'site', env={'PYTHONPATH': '.'}, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    path, *names = found.stdout.split()
    assert (tmp_path / 'site' / path).samefile(tmp_path / 'site' / 'hsiaug' / 'configs' / 'audebert2018.yaml')
    assert names == config_names()


def test_a_config_takes_what_another_says() -> None:
    lent = read_yaml('<<: !config specdm\nsettings: {<<: !config specdm.settings, sad_weight: 0, lr: 1e-4}\n')
    specdm = published_config('specdm')
    assert lent == {**specdm, 'settings': {**specdm['settings'], 'sad_weight': 0, 'lr': 1e-4}}
    for path, message in (('specdn.settings', "no configuration 'specdn'; choose from .*specdm"),
                          ('specdm.setting', "'specdm' has no such key")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            read_yaml(f'settings: !config {path}')


def train_files() -> list[Path]:
    return [file for file in FILES if 'generator' in read_config(file, file.name)]


@pytest.mark.parametrize('file', train_files(), ids=lambda file: file.stem)
def test_settings_of_generators_are_known(file: Path) -> None:
    trained = read_train(file)
    require_settings(trained.generator, trained.settings)
    trained.split.splitter()


@pytest.mark.parametrize(
    ('name', 'generator'),
    [
        ('audebert2018', 'spectral_gan'),
        ('msrresgan', 'msrresgan'),
        ('specdm', 'two_stream_diffusion'),
        ('specdm_change', 'two_stream_diffusion'),
    ],
)
def test_published_settings_are_those_of_the_code(name: str, generator: str) -> None:
    trainer, found = trainer_of(generator), read_train(find_config(name)).settings
    assert trainer is not None
    assert found is not None
    assert trainer.settings(generator, found) == trainer.config.paper()


def labelled(counts: tuple[int, ...]) -> Scene:
    """A scene with so many pixels of each class, scattered."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(1, len(counts) + 1), counts), np.zeros(2000, int)])
    labels = np.concatenate([labels, np.zeros(-len(labels) % 100, int)])
    labels = rng.permutation(labels).reshape(-1, 100)
    return Scene('fields', rng.random((*labels.shape, 6)).astype(np.float32), labels)


PINES = (46, 1428, 830, 237, 483, 730, 28, 478, 20, 972, 2455, 593, 205, 1265, 386, 93)
BOTSWANA = (270, 101, 251, 215, 269, 269, 259, 203, 314, 248, 305, 181, 268, 95)


@pytest.mark.parametrize('counts', [PINES, BOTSWANA], ids=['Indian Pines', 'Botswana'])
def test_audebert_trains_on_scenes_with_rare_classes(counts: tuple[int, ...]) -> None:
    trained, scene = read_train(find_config('audebert2018')), labelled(counts)
    split = trained.split.splitter()(scene, 0)
    data = training_data(scene, split)
    assert data.spec.num_classes == len(counts)
    # all of the 3 % trains, and each class is there
    assert torch.bincount(data.y).tolist() == [max(1, round(0.03 * n)) for n in counts]
    assert len(data.val_x) == 0
    brief = {**(trained.settings or {}), 'iterations': 2, 'hidden': 8, 'batch_size': 16}
    assert fit_generator(trained.generator, data, brief).sample(3, seed=0)['image'].shape == (3, 6)


def test_the_published_gan_has_arms_of_its_own() -> None:
    published = read_config(find_config('audebert2018_table2'), 'Table 2')['arms']
    assert [arm['name'] for arm in published] == ['GAN, published', 'ss-GAN, published']
    assert not {arm['name'] for arm in published} & {arm.name for arm in spectral_arms()}
    trainer = trainer_of('spectral_gan')
    assert trainer is not None
    for arm in published:
        expected = replace(trainer.config.paper(), semi_supervised=arm['name'].startswith('ss'))
        assert trainer.settings('spectral_gan', arm['settings']) == expected
    assert (expected.space, expected.optimiser, expected.hidden, expected.ema, expected.calibrate) == (
        'unit', 'rmsprop', 512, 0.0, False,
    )  # fmt: skip


@pytest.mark.parametrize('name', ['specdm_table5', 'specdm_change_table5'])
def test_studies_of_specdm_train_what_is_published(name: str) -> None:
    study, trainer = read_config(find_config(name), name), trainer_of('two_stream_diffusion')
    assert trainer is not None
    two, single = (trainer.settings('two_stream_diffusion', arm['settings']) for arm in study['arms'])
    assert (two, single) == (trainer.config.paper(), trainer.config.paper().plain())
    task = TASKS['change' if 'change' in name else 'segmentation']
    assert list(map(task.model, study['models']))
