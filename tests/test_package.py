"""What is released: one version, a wheel that holds what the package reads, an archive from which it can be built."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

import hsiaug

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def build(source: Path, what: str, out: Path) -> Path:
    """Build a wheel or an archive as ``pip`` does, without isolation."""
    if int(version('setuptools').split('.')[0]) < 77:
        pytest.skip(f'the build backend is setuptools>=77, and {version("setuptools")} is installed')
    done = subprocess.run(
        [sys.executable, '-c', BUILD, f'build_{what}', str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, so that nothing is built in the checkout."""
    folder = tmp_path_factory.mktemp('source')
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith('.'):
            shutil.copy(path, folder)
    for name in ('hsiaug', 'configs'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    return folder


def test_one_version() -> None:
    assert 'version' in PROJECT['project']['dynamic']
    assert PROJECT['tool']['setuptools']['dynamic']['version'] == {'attr': 'hsiaug.__version__'}
    assert re.search(r'^version: (.+)$', (ROOT / 'CITATION.cff').read_text(), re.M)[1] == hsiaug.__version__  # type: ignore[index]
    assert re.search(r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(), re.M)[1] == hsiaug.__version__  # type: ignore[index]


def test_torch_is_the_users_own() -> None:
    (torch,) = (line for line in PROJECT['project']['dependencies'] if re.match(r'torch\b', line))
    assert re.fullmatch(r'torch>=\d+\.\d+', torch)  # no upper bound, no build: CPU or any CUDA


def test_the_wheel_holds_what_the_package_reads(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(source, 'wheel', tmp_path)) as wheel:
        names = set(wheel.namelist())
        metadata = Parser().parsestr(wheel.read(next(n for n in names if n.endswith('/METADATA'))).decode())
        scripts = wheel.read(next(n for n in names if n.endswith('/entry_points.txt'))).decode()
    package = ROOT / 'hsiaug'
    read = [p for p in package.rglob('*') if p.is_file() and '__pycache__' not in p.parts]
    assert {f'hsiaug/{path.relative_to(package)}' for path in read} <= names
    assert not {name for name in names if name.split('/')[0] in ('tests', 'benchmarks', 'docs')}
    assert metadata['Version'] == hsiaug.__version__
    assert {line.split(', ')[0] for line in metadata.get_all('Project-URL')} >= {'Documentation', 'Source', 'Issues'}
    assert 'hsiaug = hsiaug.cli:main' in scripts


@pytest.mark.slow
def test_wheel_from_the_archive_is_installed_and_runs_in_an_empty_folder(source: Path, tmp_path: Path) -> None:
    archive = build(source, 'sdist', tmp_path)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / 'unpacked', filter='data')
    (unpacked,) = (tmp_path / 'unpacked').iterdir()
    wheel = build(unpacked, 'wheel', tmp_path)
    # The dependencies are those of this environment: what is installed is the wheel alone.
    venv.create(tmp_path / 'env', with_pip=True)
    python = tmp_path / 'env' / 'bin' / 'python'
    site = next((tmp_path / 'env' / 'lib').glob('python*')) / 'site-packages'
    (site / 'dependencies.pth').write_text('\n'.join(p for p in sys.path if p.endswith('site-packages')))
    empty = tmp_path / 'empty'
    empty.mkdir()

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=empty, capture_output=True, text=True, check=False, env={'PATH': '/usr/bin:/bin'}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(str(python), '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', str(wheel))
    assert str(site) in run(str(python), '-c', 'import hsiaug; print(hsiaug.__file__)')
    hsiaug_command = str(python.with_name('hsiaug'))
    assert run(hsiaug_command, '--version') == f'hsiaug {hsiaug.__version__}\n'
    run(hsiaug_command, 'train', '--generator', 'variability', '--out', 'generator')
    run(hsiaug_command, 'sample', 'generator', '--count', '50', '--out', 'bank')
    assert (empty / 'bank' / 'bank.json').is_file()
