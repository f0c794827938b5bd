"""The commands of ``hsiaug``, each a module of its own but the one about all others, and how one is run."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentError

from ..named_configs import with_config_files
from ..scenes.config import SceneConfig
from ..workers import WorkerDiedError
from . import listing
from .ablate import ablate
from .demo import demo
from .evaluate import evaluate
from .guard import out_of_memory, terminated_like_interrupted
from .parser import make_parser, parse
from .ratio import ratio
from .report import report
from .reproduce import reproduce
from .sample import sample
from .train import train

LONGEST = 4000
"""Characters of an error that are printed: a value that somebody else wrote may be any length."""
PACKAGE = str(Path(__file__).parents[1])


def completion(shell: Literal['bash', 'zsh']) -> None:
    """Print a shell script that completes commands, options and their choices.

    Save it as ~/.local/share/bash-completion/completions/hsiaug for bash, or as _hsiaug in a folder on the fpath of
    zsh.

    Args:
        shell: bash or zsh.
    """
    if find_spec('shtab') is None:
        raise ValueError("completion needs the package shtab; pip install 'hsiaug[completion]'")
    script = make_parser({f.__name__: f for f in FUNCTIONS}).get_completion_script(f'shtab-{shell}')
    # Most values are paths, which the options take as text: where nothing else is known, bash offers files.
    print(script.replace('complete -o bashdefault -F', 'complete -o bashdefault -o default -F'))


FUNCTIONS: tuple[Callable[..., None], ...] = (
    demo, train, sample, evaluate, ratio, ablate, report, reproduce, listing.list, completion,
)  # fmt: skip


def run(arguments: Sequence[str]) -> None:
    """Run a command. A user's mistake gives one line on standard error and exit status 2, not a traceback."""
    arguments = [*arguments]
    if arguments[0] == 'list' and len(arguments) > 2 and not any(one.startswith('-') for one in arguments[1:3]):
        arguments[2] = f'--name={arguments[2]}'
    try:
        with terminated_like_interrupted(), _warnings_in_one_line():
            arguments = with_config_files(arguments)
            command, settings = parse({f.__name__: f for f in FUNCTIONS}, arguments)
            command(**settings)
    except BrokenPipeError:
        raise
    except (ArgumentError, ValueError, OSError, ImportError, MemoryError, RecursionError) as error:
        _give_up(error)
    except RuntimeError as error:
        if not (out_of_memory(error) or isinstance(error, WorkerDiedError)):
            raise
        _give_up(error)


def _give_up(error: Exception) -> NoReturn:
    """Print what is wrong, and exit."""
    print(f'hsiaug: {_as_typed(str(error)) or type(error).__name__}', file=sys.stderr)
    raise SystemExit(2) from error


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """The package's warnings to users are printed as its errors are."""

    def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
        if category is UserWarning and filename.startswith(PACKAGE):
            print(f'hsiaug: warning: {_as_typed(str(message))}', file=sys.stderr)
        else:
            plain(message, category, filename, *rest)

    with warnings.catch_warnings():
        plain, warnings.showwarning = warnings.showwarning, show  # type: ignore[assignment]
        yield


def _as_typed(said: str) -> str:
    """A message in one line, arguments in Python as options."""
    said = ' '.join(said[:LONGEST].split())
    said = said.replace('on scene.as_one_class(), in a config scene.one_class: true', 'with --scene.one_class=true')
    said = said.replace("on_rare='drop'", "--split.settings='{on_rare: drop}'")
    names = '|'.join(field.name for field in fields(SceneConfig))
    # Arguments of a call, as of a class that is named, stay what they are.
    option = re.compile(rf"\w\([^()]*\)|(?<![\w.-])(?:{names})=(?=['\[\d-])")
    return option.sub(lambda found: found[0] if found[0].endswith(')') else f'--scene.{found[0]}', said)
