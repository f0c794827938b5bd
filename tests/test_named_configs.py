"""Configurations are found by name, from a checkout and from an installed package."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hsiaug import named_configs
from hsiaug.cli import main
from hsiaug.named_configs import config_names, find_config, with_config_files

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
