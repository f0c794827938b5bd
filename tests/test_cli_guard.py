"""Around every command: what is told is data, folders are checked first, and an end is one line."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import torch
from commands import refused
from jsonargparse import ArgumentError

from hsiaug.cli import main
from hsiaug.cli.guard import require_writable
from hsiaug.cli.parser import parse
from hsiaug.cli.train import train
from hsiaug.named_configs import read_yaml
from hsiaug.workers import WorkerDiedError

SMALL = ('--scene.simulated={height: 24, width: 24, classes: 3}', '--split.settings={fraction: 0.2}')


def test_nested_settings_join_those_of_the_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / 'mine.yaml'
    config.write_text('generator: unmixing_fusion\nsettings: {masks: soft, unmixing: {steps: 9, endmembers: 4}}\n')
    parsed = {'train': train}

    def settings(*options: str) -> Any:
        return parse(parsed, ['train', f'--config={config}', *options])[1]['settings']

    found = settings('--settings.unmixing.endmembers=7', '--settings.unmixing.tv_weight', '1e-4', '--settings.a.b.c=x')
    assert found == {
        'masks': 'soft',
        'unmixing': {'steps': 9, 'endmembers': 7, 'tv_weight': 1e-4},
        'a': {'b': {'c': 'x'}},
    }
    assert settings('--settings.unmixing={steps: 3}')['unmixing'] == {'steps': 3}  # as a whole, as ever
    with pytest.raises(ArgumentError, match='expected one argument'):
        settings('--settings.unmixing.endmembers')
    assert "--settings.masks is 'soft', which has no 'a'" in refused(
        capsys, 'train', f'--config={config}', '--settings.masks.a=1'
    )
    with pytest.raises(SystemExit):
        main(['train', f'--config={config}', '--settings.unmixing.endmembers=7', '--print_config'])
    printed = read_yaml(capsys.readouterr().out)['settings']
    assert printed == {'masks': 'soft', 'unmixing': {'steps': 9, 'endmembers': 7}}


@pytest.mark.parametrize('name', ['mine.yaml', 'mine.conf'])
def test_a_key_that_stands_twice_is_refused(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / name
    config.write_text('seed: 1\nscene:\n  unit: mm\n  name: a\n  unit: cm\nout: x\n')
    assert "key 'unit' occurs twice, in lines 3 and 5" in refused(capsys, 'train', f'--config={config}')
    assert "key 'a' occurs twice" in refused(capsys, 'train', '--settings={a: 1, a: 2}')


BOMB = 'a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n' + ''.join(
    f'{after}: &{after} [{", ".join([f"*{before}"] * 8)}]\n' for before, after in zip('abcdefg', 'bcdefgh', strict=True)
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generator, and a bank of it, to be read."""
    folder = tmp_path_factory.mktemp('trained')
    main(['train', f'--out={folder / "gan"}', '--generator=noise', *SMALL])
    main(['sample', str(folder / 'gan'), '--count=30', f'--out={folder / "bank"}'])
    return folder


# --- nothing is imported ----------------------------------------------------------------------------------------------


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the folder that commands run in, and where Python would find it."""
    (tmp_path / 'evil_settings.py').write_text(f'open({str(tmp_path / "ran")!r}, "w").close()\nclass X: pass\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ('command', 'config'),
    [
        ('train', {'scene': {'class_path': 'evil_settings.X'}}),
        ('train', {'scene': {'class_path': 'evil_settings.X', 'init_args': {}}}),
        ('train', {'scene': 'evil_settings.X'}),
        ('train', {'split': {'class_path': 'evil_settings.X'}}),
        ('train', {'class_path': 'evil_settings.X'}),
        ('train', {'split': {'settings': {'class_path': 'evil_settings.X'}}}),
        ('train', {'settings': {'class_path': 'evil_settings.X', 'init_args': {}}}),
        ('train', {'settings': {'hidden': {'class_path': 'evil_settings.X'}}}),
        ('train', {'scene': {'simulated': {'seed': {'class_path': 'evil_settings.X'}}}}),
        ('ablate', {'arms': [{'class_path': 'evil_settings.X'}]}),
        ('ablate', {'arms': ['evil_settings.X']}),
        ('ablate', {'arms': [{'name': 'a', 'generator': 'noise', 'settings': {'class_path': 'evil_settings.X'}}]}),
        ('ablate', {'models': [{'class_path': 'evil_settings.X'}]}),
        ('ablate', {'models': [{'config': {'class_path': 'evil_settings.X'}}]}),
        ('ablate', {'models': ['evil_settings.X']}),
        ('ratio', {'run': 'gan', 'model': {'class_path': 'evil_settings.X'}}),
        ('evaluate', {'run': 'bank', 'real': {'class_path': 'evil_settings.X'}}),
        ('evaluate', {'run': 'bank', 'split': 'evil_settings.X'}),
    ],
    ids=str,
)
def test_a_config_imports_nothing(
    evil: Path, capsys: pytest.CaptureFixture[str], command: str, config: dict[str, Any]
) -> None:
    (evil / 'x.yaml').write_text(json.dumps(config))
    refused(capsys, command, '--config=x.yaml')
    assert 'evil_settings' not in sys.modules
    assert not (evil / 'ran').exists()


@pytest.mark.parametrize(
    'arguments',
    [
        ['train', '--scene=evil_settings.X'],
        ['train', '--scene.class_path=evil_settings.X'],
        ['train', '--scene={class_path: evil_settings.X}'],
        ['ablate', '--arms+=evil_settings.X'],
        ['evaluate', 'bank', '--real=evil_settings.X'],
        ['evaluate', 'bank', '--real.class_path=evil_settings.X'],
    ],
    ids=str,
)
def test_an_option_imports_nothing(evil: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    refused(capsys, *arguments)
    assert 'evil_settings' not in sys.modules
    assert not (evil / 'ran').exists()


@pytest.mark.parametrize(
    'text',
    [
        '{"scene": {"class_path": "evil_settings.X"}}',
        'scene: evil_settings.X',
        'settings: !!python/object/apply:os.system ["touch ran"]',
        'settings: !!python/name:evil_settings.X',
        '[' * 20_000,
        BOMB,
        '\x00',
        'seed: 1.5',
        'scenery: {path: cube.mat}',
    ],
    ids=lambda text: text[:40],
)
def test_real_data_named_by_a_file_imports_nothing(
    evil: Path, trained: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (evil / 'folder').mkdir()
    for file in ('x.yaml', 'folder/run.json'):
        (evil / file).write_text(text)
        said = refused(capsys, 'evaluate', str(trained / 'bank'), f'--real={file.removesuffix("/run.json")}')
        assert 'is no' in said
        assert 'config file of hsiaug' in said
    assert 'evil_settings' not in sys.modules
    assert not (evil / 'ran').exists()


def test_a_config_that_aliases_blow_up_is_refused_at_once(evil: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (evil / 'x.yaml').write_text(BOMB)
    for argument in (['--config=x.yaml'], ['--config', 'x.yaml'], ['--scene', 'x.yaml']):
        assert 'more than' in refused(capsys, 'train', *argument)


def test_other_programs_of_the_process_may_still_name_classes(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, 'train', '--scene=collections.OrderedDict')
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(torch.nn.Module, 'net')
    assert parser.parse_args(['--net=torch.nn.ReLU']).net.class_path.endswith('ReLU')


# --- what a user can cause is one line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['train', '--settings={iterations: .nan}'], 'iterations must be finite'),
        (['train', '--settings={iterations: ten}'], 'iterations'),
        (['train', '--settings={lr: null}'], 'lr'),
        (['train', '--settings={hiden: 3}'], "unknown field 'hiden'"),
        (['train', '--generator=noise', '--settings={level: .nan}'], 'level must be finite'),
        (['train', '--generator=duplicate', '--settings={level: 1}'], "unknown field 'level'"),
        (['train', '--generator=[]'], 'unknown generator'),
        (['train', '--split.settings={fraction: much}'], 'fraction'),
        (['train', '--split.settings={fraction: null}'], 'fraction'),
        (['train', '--scene.simulated={height: tall}'], 'height'),
        (['train', '--scene.simulated={hight: 3}'], 'hight'),
        (['train', '--scene.scale=.nan'], 'scene.scale must be finite'),
        (['train', '--seed=x'], 'seed'),
        (['ablate', '--seeds=0'], 'at least one of seeds'),
        (['ablate', '--ratios=[.nan]'], 'must be finite'),
        (['ablate', '--arms=[{name: a, generator: noise, settings: {level: high}}]'], 'level'),
        (['ablate', '--arms=[{name: a, generator: nose}]'], 'unknown generator'),
        (['ablate', '--arms=[{name: a, generator: noise, training: {hidden: wide}}]'], 'hidden'),
        (
            ['ablate', '--arms=[{name: a, generator: patch_gan}]'],
            "'patch_gan' makes samples of kind 'scene', but those",
        ),
        (['ablate', '--ratios=1'], '--ratios: list in brackets expected, found 1'),
        (
            ['ablate', '--arms=[{name: a, generator: noise, ratios: 1}]'],
            '--arms: ratios: list of float in brackets or null',
        ),
        (['ablate', '--arms=[{nam: a}]'], "--arms: Option 'nam' is not accepted"),
        (
            ['train', '--split.settings=[1]'],
            'mapping in braces expected, found [1]; give single values as --split.settings.NAME',
        ),
        (
            ['train', '--data', 'images'],
            '--data: mapping in braces or null expected, found images; name its class as --data.class_path',
        ),
        (['ablate', '--test=tests'], 'name its class as --test.class_path, its arguments as --test.init_args.NAME'),
        (['train', '--split.strategy=block'], "'labelled_patches' expected, found block; did you mean 'blocks'?"),
        (['train', '--sed=1'], "--sed=1; did you mean '--seed'?"),
        (['evaluate', 'runs/a', '--per-class', '5'], "--per-class 5; did you mean '--per_class'?"),
        (['evaluate', '--run', 'runs/a'], 'leave out --run, and give only its value'),
        (['evaluate'], 'run must be given, such as: hsiaug evaluate runs/bank'),
        (['train', 'a.mat', 'b.mat'], 'unrecognized arguments: a.mat b.mat; see hsiaug train --help'),
        (['train', '--config=verdict'], "hsiaug train has no option 'title'; is the config file for another command?"),
        ([f'--scene={__file__}', 'train'], 'options follow a command'),
        (['train', '--scene', 'cube.mat'], 'give the cube as --scene.path, labels as --scene.labels'),
        (['train', '--split=blocks'], 'give a strategy as --split.strategy'),
        (
            ['train', '--scene.labels=y.mat', '--scene.scale=2'],
            "labels ('y.mat'), scale (2.0) would be passed over, since",
        ),
        (['train', '--scene.benchmark=ksc', '--scene.bands=[1]'], 'bands ((1,)) would be passed over, since benchmark'),
        (['train', '--device=meta'], "unknown device 'meta'; choose cpu"),
        (['train', '--device=mps'], "unknown device 'mps'; choose cpu"),
        (['train', '--scene.simulated={dates: 2}'], 'two dates is split into patches or change_patches, found'),
        (['train', '--split.strategy=change_patches'], 'change_patches is for scenes of two dates'),
        (['ablate', '--split.strategy=change_patches'], 'change_patches is for scenes of two dates'),
        (['evaluate', 'no/such', '--count=0'], 'count must be at least 1, found 0'),
        (['evaluate', 'no/such', '--per_class=0'], 'per_class must be at least 1, found 0'),
        (['sample', 'no/such'], 'no folder no/such'),
        (['nothing'], 'nothing'),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())


# --- folders are checked first ----------------------------------------------------------------------------------------


def no_work(*_: Any, **__: Any) -> Any:
    raise AssertionError('it worked before it looked at the folder')


def full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr('hsiaug.cli.guard.shutil.disk_usage', lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    return folder / 'out'


def read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuses(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    monkeypatch.setattr('hsiaug.cli.guard.tempfile.TemporaryFile', refuses)
    return folder / 'out'


def too_long(folder: Path, _: pytest.MonkeyPatch) -> Path:
    return folder / ('x' * 300)


def a_file(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder / 'file').write_text('mine')
    return folder / 'file'


def below_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return a_file(folder, monkeypatch) / 'out'


def foreign(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder / 'photos').mkdir()
    (folder / 'photos' / 'config.json').write_text('{}')
    return folder / 'photos'


@pytest.mark.parametrize('case', [full, read_only, too_long, a_file, below_a_file, foreign])
@pytest.mark.parametrize('command', ['train', 'ablate', 'demo', 'sample'])
def test_a_folder_that_cannot_be_written_to_is_said_before_any_work(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str,
    case: Callable[[Path, pytest.MonkeyPatch], Path],
) -> None:  # fmt: skip
    for work in (
        'hsiaug.systems.fit.fit_generator',
        'hsiaug.cli.ablate.run_study',
        'hsiaug.systems.Generator.sample',
    ):
        monkeypatch.setattr(work, no_work)
    out = case(tmp_path, monkeypatch)
    before = sorted(tmp_path.rglob('*'))
    arguments = [str(trained / 'gan'), '--count=5'] if command == 'sample' else []
    said = refused(capsys, command, *arguments, f'--out={out}')
    assert str(tmp_path) in said
    assert sorted(tmp_path.rglob('*')) == before


def test_a_bank_that_the_disk_cannot_hold_is_not_begun(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, 'sample', str(trained / 'gan'), f'--count={10**12}', f'--out={tmp_path / "bank"}')
    assert 'No space left on device' in said
    assert not (tmp_path / 'bank').exists()


@pytest.mark.parametrize('command', ['ratio', 'evaluate', 'report'])
def test_commands_that_write_into_what_they_read_look_first(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    shutil.copytree(trained / 'gan', tmp_path / 'gan')
    (tmp_path / 'gan' / 'plan.json').write_text('{}')
    full(tmp_path, monkeypatch)
    assert 'No space left on device' in refused(capsys, command, str(tmp_path / 'gan'))


def test_a_folder_that_can_be_written_to_stays_as_it_was(tmp_path: Path) -> None:
    require_writable(tmp_path / 'a' / 'b')
    assert not list(tmp_path.iterdir())


def test_a_finished_training_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f'--out={tmp_path / "gan"}'
    command = ['train', out, '--generator=noise', *SMALL]
    main(command)
    before = {path: path.read_bytes() for path in (tmp_path / 'gan').iterdir()}
    capsys.readouterr()
    main(command)
    assert 'already holds this training, finished' in capsys.readouterr().out
    said = refused(capsys, *command, '--seed=1', '--settings={level: 0.5}')
    assert 'seed: there 0, here 1' in said
    assert "settings: there None, here {'level': 0.5}" in said
    assert 'choose another folder, or remove it' in said
    assert 'generator: there' in refused(capsys, 'train', out, '--generator=variability', *SMALL)
    assert {path: path.read_bytes() for path in (tmp_path / 'gan').iterdir()} == before
    (tmp_path / 'gan' / 'run.json').unlink()
    assert 'no run.json that says of which run' in refused(capsys, *command)


def test_a_scene_that_has_changed_since_it_was_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out, labels = tmp_path / 'scene.npz', tmp_path / 'noise', np.indices((20, 20)).sum(axis=0) // 4 % 2 + 1
    cube = np.random.default_rng(0).random((20, 20, 4)) + labels[..., None]
    train = ['train', '--generator=noise', f'--scene.path={file}', '--split.settings={fraction: 0.5}', f'--out={out}']
    np.savez(file, cube=cube, gt=labels)
    main(train)
    main(['sample', str(out), '--count=9', f'--out={tmp_path / "bank"}'])
    np.savez(file, cube=cube, gt=np.where(cube[..., 0] > 1.9, labels, 0))
    for command in (
        train,
        ['evaluate', str(out)],
        ['evaluate', str(tmp_path / 'bank'), f'--real={out}'],
        ['ratio', str(out)],
    ):
        said = refused(capsys, *command)
        assert 'scene has changed since' in said
        assert 'labels: there' in said
    file.unlink()
    main(train)
    assert 'already holds this training, finished' in capsys.readouterr().out


@pytest.mark.parametrize('command', ['ablate', 'demo', 'train', 'sample', 'reproduce'])
def test_nothing_is_written_among_the_files_of_others(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    out = tmp_path / 'thesis'
    out.mkdir()
    (out / 'report.md').write_text('years of work')
    arguments = {'sample': [str(trained / 'gan')], 'reproduce': ['audebert2018', '--scale=demo']}
    said = refused(capsys, command, *arguments.get(command, []), f'--out={out}')
    assert 'thesis' in said
    assert 'choose another' in said
    assert [path.name for path in out.iterdir()] == ['report.md']
    assert (out / 'report.md').read_text() == 'years of work'


def test_a_page_goes_over_a_page_only(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / 'mine.html'
    page.write_text('<html>mine</html>')
    real = ['--no_gates', '--per_class=5', f'--real={trained / "gan"}']
    evaluate = ['evaluate', str(trained / 'bank'), f'--out={page}', *real]
    assert 'exists and is not a page of hsiaug' in refused(capsys, *evaluate)
    assert page.read_text() == '<html>mine</html>'
    page.unlink()
    main(evaluate)
    main(evaluate)
    assert page.stat().st_size > 10_000


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('command', ['train', 'ablate'])
def test_a_signal_ends_a_command_with_one_line(tmp_path: Path, command: str, number: int) -> None:
    arguments = {
        'train': ['--settings={iterations: 10000000}'],
        'ablate': ['--arms=[{name: GAN, generator: spectral_gan, settings: {iterations: 10000000}}]', '--workers=1'],
    }
    said, write = os.pipe()

    def work() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stderr = os.fdopen(write, 'w', buffering=1)
        main([command, f'--out={tmp_path / "out"}', *SMALL, *arguments[command]])

    process = multiprocessing.get_context('fork').Process(target=work)
    process.start()
    os.close(write)
    with os.fdopen(said) as told:
        assert told.read(1)  # the progress bar: it works
        time.sleep(0.3)
        assert process.pid is not None
        os.kill(process.pid, number)
        lines = told.read().splitlines()
    process.join(60)
    assert process.exitcode == 1
    assert not any('Traceback' in line for line in lines)
    assert lines[-1].startswith('interrupted; ')


def test_an_occupied_place_of_an_export_is_said_before_anything_is_drawn(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'bank.npz').touch()
    gan, bank = trained / 'gan', tmp_path / 'bank'
    said = refused(capsys, 'sample', str(gan), '--count=30', f'--out={bank}', '--export=npz')
    assert 'bank.npz exists already' in said
    assert not (tmp_path / 'bank').exists()


def test_a_worker_that_dies_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_: Any, **__: Any) -> None:
        raise WorkerDiedError('a worker process has died')

    monkeypatch.setattr('hsiaug.cli.ablate.run_study', died)
    assert refused(capsys, 'ablate', f'--out={tmp_path / "study"}', '--seeds=2') == 'hsiaug: a worker process has died'


@pytest.mark.parametrize(
    ('config', 'named'),
    [
        ('seed:', 'seed'),
        ('devices: null', 'devices'),
        ('scene: {simulated: }', 'scene.simulated'),
        ('split: ~', 'split'),
    ],
)
def test_an_option_without_a_value_is_named(
    config: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'run.yaml').write_text(f'generator: gaussian\n{config}\n')
    said = refused(capsys, 'train', '--config', str(tmp_path / 'run.yaml'), '--out', str(tmp_path / 'out'))
    assert said == f'hsiaug: {named} must have a value, found null; leave it out for its default'


def test_an_interruption_before_the_first_checkpoint_promises_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, losses: Path, **__: Any) -> None:
        losses.parent.mkdir(parents=True)
        losses.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr('hsiaug.systems.fit.fit_generator', interrupted)
    with pytest.raises(SystemExit, match='interrupted; nothing was saved'):
        main(['train', *SMALL, f'--out={tmp_path / "run"}'])
