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
import scipy.io
from snippets import examples

import hsiaug

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
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


@pytest.fixture(scope='module')
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment into which the wheel is installed, built from the source archive."""
    folder = tmp_path_factory.mktemp('installed')
    with tarfile.open(build(source, 'sdist', folder)) as tar:
        tar.extractall(folder / 'unpacked', filter='data')
    (unpacked,) = (folder / 'unpacked').iterdir()
    wheel = build(unpacked, 'wheel', folder)
    # The dependencies are those of this environment: what is installed is the wheel alone.
    venv.create(folder / 'env', with_pip=True)
    site = next((folder / 'env' / 'lib').glob('python*')) / 'site-packages'
    (site / 'dependencies.pth').write_text('\n'.join(p for p in sys.path if p.endswith('site-packages')))
    run(
        folder / 'env/bin',
        folder,
        'python -m pip install --quiet --no-deps --no-index --ignore-installed ' + str(wheel),
    )
    where = run(folder / 'env/bin', folder, "python -c 'import hsiaug; print(hsiaug.__file__)'")
    assert str(site) in where
    return folder / 'env/bin'


def run(binaries: Path, folder: Path, command: str, given: str = '') -> str:
    """What a command prints that is typed into a shell in a folder, by one who has only this environment."""
    done = subprocess.run(
        ['bash', '-ec', command], cwd=folder, input=given, capture_output=True, text=True, check=False,
        env={'PATH': f'{binaries}:/usr/bin:/bin', 'HOME': str(folder), 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
    return done.stdout


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, 'hsiaug --version') == f'hsiaug {hsiaug.__version__}\n'
    run(installed, tmp_path, 'hsiaug train --generator variability --out generator')
    run(installed, tmp_path, 'hsiaug sample generator --count 50 --out bank')
    assert (tmp_path / 'bank' / 'bank.json').is_file()


@pytest.mark.slow
def test_the_readme_leads_to_a_training_on_mixed_data(installed: Path, tmp_path: Path) -> None:
    """All examples in Python, pasted in their order, in an empty folder."""
    pasted = '\n'.join(source for _, source in examples(README))
    assert 'SemanticSegmentationTask' in pasted
    run(installed, tmp_path, 'python -', pasted)
    assert list(tmp_path.glob('lightning_logs/version_0/checkpoints/*.ckpt'))


@pytest.mark.slow
def test_the_readme_leads_to_a_verdict_on_a_scene(installed: Path, tmp_path: Path) -> None:
    """All commands that the README tells to type, in their order, in a folder that holds a scene."""
    scene = hsiaug.SimulatedScene(48, 48, classes=4)
    scipy.io.savemat(tmp_path / 'PaviaU.mat', {'paviaU': scene.cube})
    scipy.io.savemat(tmp_path / 'PaviaU_gt.mat', {'paviaU_gt': scene.labels})
    blocks = re.findall(r'^```(.*?)\n(.+?)^```', README, re.M | re.DOTALL)
    typed = [line for language, block in blocks if not language for line in block.splitlines()]
    shorter = {'ratio': ' --trials 2 --folds 2 --share 0.2'}  # the verdict is not shortened
    said = {
        line: run(installed, tmp_path, line.partition('#')[0] + shorter.get(line.split()[1], ''))
        for line in typed
        if line.startswith('hsiaug ')
    }
    assert [line.split()[1] for line in said] == ['ablate', 'train', 'evaluate', 'sample', 'evaluate', 'ratio']
    verdict, *_, choice = (text.strip().splitlines()[-1] for text in said.values())
    assert re.match(
        r'Mixing in 2 synthetic samples per real one \(variability, first\) .*\(10 seeds\)\. Recommended: ', verdict
    )
    assert choice == 'choice: runs/ours/ratio.json'
    for file in ('pavia/report.html', 'ours/README.md', 'bank/bank.json', 'bank_evaluation.html', 'ours/ratio.json'):
        assert (tmp_path / 'runs' / file).is_file(), file
