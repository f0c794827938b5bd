"""What the command line says."""

import pytest

from hsiaug.cli import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that fails: one line, no traceback, and exit status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith('hsiaug: ')]
    assert 'Traceback' not in said
    return line
