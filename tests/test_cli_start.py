"""What the command line answers without loading anything: in half a second, and in 150 MB."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hsiaug import __version__, cli
from hsiaug.ablation import Arm
from hsiaug.cli import COMMANDS, EXAMPLES, main
from hsiaug.scenes.config import SceneConfig

CODE = """
import sys
from hsiaug.cli import main
try:
    main(sys.argv[1:])
finally:
    peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
    heavy = sorted({'torch', 'numpy', 'torchgeo', 'jsonargparse', 'scipy', 'pandas'} & set(sys.modules))
    print(int(peak.split()[1]) // 1024, *heavy, file=sys.stderr)
"""


@pytest.mark.parametrize('arguments', [[], ['--help'], ['-h'], ['--version'], ['trian']])
def test_it_answers_at_once(arguments: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, '-c', CODE, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == (2 if arguments == ['trian'] else 0)
    megabytes, *heavy = done.stderr.split('\n')[-2].split()
    assert int(megabytes) < 150
    assert not heavy
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5  # seconds of CPU


def test_python_m_is_the_command() -> None:
    for module in ('hsiaug', 'hsiaug.cli'):
        done = subprocess.run([sys.executable, '-m', module, '--version'], capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith(__version__)


def test_the_help_names_every_command_by_its_own_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    from hsiaug.cli.commands import FUNCTIONS

    main(['--help'])
    said = capsys.readouterr().out
    assert [f.__name__ for f in FUNCTIONS] == list(COMMANDS)
    for function in FUNCTIONS:
        first = (inspect.getdoc(function) or '').split('\n')[0]
        assert COMMANDS[function.__name__] == first
        assert first in said


def test_a_typo_is_one_line_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(['trian'])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("hsiaug: unknown command 'trian'; did you mean 'train'? choose from demo, train")
    assert said.count('\n') == 1


def test_an_interruption_while_pytorch_is_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, '_run', interrupted)
    with pytest.raises(SystemExit, match='interrupted; repeat the command'):
        main(['list', 'configs'])


def test_a_terminal_without_utf8_and_a_reader_that_stops() -> None:
    code = "from hsiaug import cli; cli.DESCRIPTION = 'ε' * {}; cli.main(['--help'])"
    ascii_only = {**os.environ, 'PYTHONIOENCODING': 'ascii'}
    done = subprocess.run([sys.executable, '-c', code.format(1)], capture_output=True, check=True, env=ascii_only)
    assert b'\n?\n' in done.stdout
    command = f'\'{sys.executable}\' -c "{code.format(10**6)}" | head -1'
    piped = subprocess.run(['bash', '-c', command], capture_output=True, text=True, check=True)
    assert (piped.stdout.count('\n'), piped.stderr) == (1, 'hsiaug: the output is not read to its end\n')


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    main(['--version'])
    assert capsys.readouterr().out == f'hsiaug {__version__}\n'


@pytest.mark.parametrize('command', list(COMMANDS))
def test_help_speaks_to_those_who_type(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, '--help'])
    assert not stopped.value.code
    said = capsys.readouterr().out
    assert not re.search(r'<class|:(class|func|meth|data):|``|Optional|Union\[|Literal|tuple\[|dict\[|\bNone\b', said)
    assert said.rstrip().endswith(EXAMPLES[command])
    assert EXAMPLES[command].split()[1] == command


@pytest.mark.parametrize('command', list(COMMANDS))
def test_what_an_example_prints_as_config_means_the_same(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, '--print_config'])
        assert not stopped.value.code, arguments
        return capsys.readouterr().out

    first = printed(*EXAMPLES[command].split()[1:])
    (tmp_path / 'mine.yaml').write_text(first)
    monkeypatch.chdir(tmp_path)
    assert printed(command, '--config', 'mine.yaml') == first


def test_lists_say_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for what, name in (
        ('generators', 'variability'), ('tasks', 'change'), ('benchmarks', 'salinas_a'), ('configs', 'specdm')
    ):  # fmt: skip
        main(['list', what])
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line.split(maxsplit=1)) == 2 and not re.search(r':\w+:`|``', line) for line in lines)
        assert name in [line.split()[0] for line in lines]
        if what == 'configs':  # a sentence that is not cut, or the command that the config is for
            assert [line for line in lines if not re.search(r'[.?]$| fit --config ', line)] == []


def test_a_generator_lists_its_settings_with_types_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    from hsiaug.systems.training import trainer_of

    main(['list', 'generators', 'variability'])
    said = capsys.readouterr().out
    assert '  neighbours: int = 10\n      number of unlabelled spectra per training spectrum' in said
    assert 'spec:' not in said
    main(['list', 'generators', 'spectral_gan'])
    said = capsys.readouterr().out
    trainer = trainer_of('spectral_gan')
    assert trainer is not None
    for field in dataclasses.fields(trainer.config):
        assert f'  {field.name}: ' in said
        assert f'{field.name}: ' not in said or f'= {field.default!r}' in said
    with pytest.raises(SystemExit):
        main(['list', 'generators', 'gan'])
    assert 'choose from' in capsys.readouterr().err


@pytest.mark.parametrize('flag', [['--quick'], ['--quick', 'true'], ['--quick=true']])
def test_flags_take_a_value_or_none(flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(['ablate', '--scene.one_class', *flag, '--out=~/runs', '--print_config'])
    assert not stopped.value.code
    found = yaml.safe_load(capsys.readouterr().out)
    assert found['quick'] is found['scene']['one_class'] is True
    assert Path(found['out']).expanduser() == Path.home() / 'runs'


def test_messages_name_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cube = np.random.default_rng(0).random((8, 9, 6), np.float32)
    cube[..., 2:4] = 0
    np.savez(tmp_path / 'dead.npz', cube=cube, gt=1 + np.indices((8, 9)).sum(0) % 2)
    np.savez(tmp_path / 'unlabelled.npz', cube=cube[..., 4:])
    np.savez(tmp_path / 'rare.npz', cube=cube[..., 4:], gt=np.where(np.arange(72).reshape(8, 9) == 40, 2, 1))
    for name, said in (
        ('dead', "Leave them out with --scene.on_bad_bands='drop', or"),
        ('unlabelled', 'Generators that need no labels train with --scene.one_class=true'),
        ('rare', "--split.settings='{on_rare: drop}' to leave such classes out"),
    ):
        with pytest.raises(SystemExit):
            main(['train', f'--scene.path={tmp_path / name}.npz', f'--out={tmp_path / "run"}'])
        assert said in capsys.readouterr().err
    np.savez(tmp_path / 'other.npz', cube=cube[..., 4:], classes=np.ones((8, 9), dtype=int))
    with pytest.raises(SystemExit):
        main(['train', f'--scene.path={tmp_path / "other.npz"}', f'--out={tmp_path / "run"}'])
    assert "say so: --scene.labels_key='classes'\nhsiaug: " in capsys.readouterr().err  # without the code that warns
    main([
        'train', f'--scene.path={tmp_path / "dead.npz"}', '--scene.on_bad_bands=drop', '--generator=noise',
        '--split.settings={fraction: 0.3}', f'--out={tmp_path / "run"}',
    ])  # fmt: skip


COMPLETED = """
source completions
for typed in 'hsiaug ev' 'hsiaug train --generato' 'hsiaug list ' 'hsiaug train --split.strategy b'; do
  IFS=' ' read -ra COMP_WORDS <<< "$typed"; [[ $typed == *' ' ]] && COMP_WORDS+=('')
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  _shtab_hsiaug hsiaug "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
  echo "${COMPREPLY[@]}"
done
complete -p hsiaug
"""


def test_bash_completes_commands_options_and_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('shtab', reason="shtab is missing; pip install 'hsiaug[test]'")
    main(['completion', 'bash'])
    (tmp_path / 'completions').write_text(capsys.readouterr().out)
    done = subprocess.run(['bash', '-c', COMPLETED], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        'evaluate', '--generator', 'generators tasks benchmarks configs', 'blocks',
        'complete -o bashdefault -o default -F _shtab_hsiaug hsiaug',
    ]  # fmt: skip


def test_home_is_expanded_wherever_a_path_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hsiaug.cli import commands

    monkeypatch.setenv('HOME', str(tmp_path))
    found: dict[str, Any] = {}
    monkeypatch.setattr(commands, 'FUNCTIONS', tuple(f for f in commands.FUNCTIONS if f.__name__ != 'ablate'))

    def ablate(
        out: Path, scene: SceneConfig, arms: tuple[Arm, ...], study: Path | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        found.update(out=out, path=scene.path, labels=scene.labels, arm=arms[0].settings, study=study, data=data)

    monkeypatch.setattr(commands, 'FUNCTIONS', (*commands.FUNCTIONS, ablate))
    (tmp_path / 'study.yaml').write_text("""
out: ~/runs
scene: {path: ~/scene.mat, labels: '~not/a/home'}
arms: [{name: GAN, generator: unmixing_fusion, settings: {rgb: ~/rgb, other: [~/a, 3]}}]
data: {class_path: torchgeo.datasets.OSCD, init_args: {root: ~/oscd}}
""")
    main(['ablate', '--config=~/study.yaml', '--study', '~/other'])
    home = str(tmp_path)
    assert found == {
        'out': tmp_path / 'runs',
        'path': f'{home}/scene.mat',
        'labels': '~not/a/home',
        'arm': {'rgb': f'{home}/rgb', 'other': [f'{home}/a', 3]},
        'study': tmp_path / 'other',
        'data': {'class_path': 'torchgeo.datasets.OSCD', 'init_args': {'root': f'{home}/oscd'}},
    }
