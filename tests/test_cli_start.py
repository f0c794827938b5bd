"""What the command line answers without loading anything: in half a second, and in 150 MB."""

from __future__ import annotations

import inspect
import resource
import subprocess
import sys

import pytest

from hsiaug import __version__
from hsiaug.cli import COMMANDS, main

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


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    main(['--version'])
    assert capsys.readouterr().out == f'hsiaug {__version__}\n'
