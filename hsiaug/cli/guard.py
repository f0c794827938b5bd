"""What every command needs around it: arguments that import nothing, folders that can be written to, a clear end."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace, auto_parser, set_parsing_settings
from jsonargparse._common import parsing_settings  # what set_parsing_settings sets, to set it back

from ..settings import not_finite
from . import DESCRIPTION, EXAMPLES
from .config import read_config
from .listing import without_markup

ROOM = 16 << 20
"""Bytes that a command wants free where it writes, before it begins."""


class Parser(ArgumentParser):
    """A parser whose errors are raised, for one line that says them."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{'exit_on_error': False, **settings})

    def format_help(self, *args: Any, **settings: Any) -> str:
        """The help, in words of the command line."""
        example = EXAMPLES.get((self.prog or '').split()[-1])
        return in_words(without_markup(super().format_help(*args, **settings))) + (
            f'\nexample:\n  {example}\n' if example else ''
        )


WORDS = (
    (r'(--config CONFIG\s+)Path to a configuration file\.', r'\1a YAML file, or one of hsiaug list configs.'),
    (r'Literal\[([^\]]*)\]', r'\1'),
    (r'(?:dict|Mapping)\[str,\s+\w+\]', 'mapping'),
    (r'tuple\[([^\[\]]+),\s+\.\.\.\]', r'list of \1'),
    (r'tuple\[(\w+),\s+\1\]', r'two of \1'),
    (r'Optional\[([^\[\]]*)\]', r'\1 or null'),
    (r'Union\[([^\[\]]*)\]', r'\1'),
    (r'(?:,|\s+\|)\s+null\b', ' or null'),
    (r'\bPath\b', 'path'),
    (r'\bNone\b', 'null'),
)
"""How annotations of Python are said to those who type; line breaks may stand within."""


def in_words(text: str) -> str:
    """A help text without Python's names of types."""
    for pattern, said in WORDS:
        text = re.sub(pattern, said, text)
    return text


def make_parser(commands: Mapping[str, Callable[..., None]]) -> ArgumentParser:
    """The parser of some commands."""
    return auto_parser(dict(commands), prog='hsiaug', description=DESCRIPTION, parser_class=Parser)


def parse(
    commands: Mapping[str, Callable[..., None]], arguments: Sequence[str]
) -> tuple[Callable[..., None], dict[str, Any]]:
    """The command that is meant, and what it is called with.

    No value names a class that is imported: a config file is data, whoever wrote it.

    Raises:
        ArgumentError: for arguments that do not fit.
        ValueError: for nothing (null) where a value is needed, or a number that is NaN or infinite, but for the stored
            value that means "no measurement".
    """
    with _imports_nothing():
        parser = make_parser(commands)
        for value in (argument.partition('=')[2] or argument for argument in arguments):
            if value.endswith(('.yaml', '.yml')) and Path(value).is_file():
                # before jsonargparse, which spells out what aliases repeat
                read_config(Path(value), f'{value} is no config file of hsiaug {arguments[0]}')
        try:
            given = parser.parse_args(list(arguments))
        except ArgumentError as error:
            if (named := re.search(r"Importing '([^']+)' is not allowed", str(error))) is None:
                raise
            raise ValueError(
                f'{named[1]!r} is not imported: options and config files of hsiaug are data, and name no class; give '
                'the fields themselves, as --print_config shows them'
            ) from None
        name = given.subcommand
        given[name] = at_home(given[name])
        if empty := list(nulls(given[name], commands[name])):
            raise ValueError(f'{", ".join(empty)} must have a value, found null; leave it out for its default')
        if wrong := [path for path in not_finite(given[name].as_dict(), '') if not path.endswith('.nodata')]:
            raise ValueError(f'{", ".join(path.lstrip(".") for path in wrong)} must be finite, found NaN or infinity')
        made: Namespace = parser.instantiate(given)[name]
    made.pop('config', None)
    return commands[name], dict(made.items())


def at_home(value: Any) -> Any:
    """A value, at any depth of which paths that begin with ``~/`` are expanded, wherever they were given."""
    if isinstance(value, Namespace):
        made: Any = Namespace
        return made({key: at_home(one) for key, one in vars(value).items()})
    if isinstance(value, dict):
        return {key: at_home(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(at_home, value))
    if isinstance(value, str | Path) and str(value).startswith('~/'):
        return type(value)(Path(value).expanduser())
    return value


def nulls(given: Namespace, maker: Any) -> Iterator[str]:
    """Options that have no value, null in a config file, where what takes them wants one."""
    hints = get_type_hints(maker)
    for name, value in vars(given).items():
        hint = hints.get(name, Any)
        choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if value is None and Any not in choices and type(None) not in choices:
            yield name
        for inner in filter(is_dataclass, choices) if isinstance(value, Namespace) else ():
            yield from (f'{name}.{one}' for one in nulls(value, inner))


@contextmanager
def _imports_nothing() -> Iterator[None]:
    """Meanwhile jsonargparse imports nothing that a value names, but for the package's own dataclasses."""
    before = dict(parsing_settings)
    set_parsing_settings(
        import_path_denylist=['*'], import_path_allowlist=['hsiaug'], instantiate_subclass_spec_in_any=False
    )
    try:
        yield
    finally:
        parsing_settings.clear()
        parsing_settings.update(before)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which batch systems send before they kill, ends a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() != owner:  # a forked worker has nothing to say
            os._exit(128 + number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def require_writable(folder: Path, room: int = 0) -> None:
    """Check that a folder can be written to, and that there is room, before any work is done. Nothing stays behind.

    Args:
        folder: that a command will write to; it need not exist.
        room: bytes that it will write, as far as that is known.

    Raises:
        OSError: if it cannot: it is a file, read-only, on a full disk, ...
    """
    made: list[Path] = []
    try:
        for path in (*reversed(folder.absolute().parents), folder.absolute()):
            if not path.exists():
                path.mkdir()
                made.append(path)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'\0' * (1 << 20))
            file.flush()
            os.fsync(file.fileno())
        free, wanted = shutil.disk_usage(folder).free, ROOM + room
        if free < wanted:
            raise OSError(
                errno.ENOSPC,
                f'{os.strerror(errno.ENOSPC)}: {free / 2**20:,.0f} MiB are free, {wanted / 2**20:,.0f} MiB are needed',
                str(folder),
            )
    finally:
        for path in reversed(made):
            with suppress(OSError):  # another process may use it already
                path.rmdir()


def require_own(folder: Path, mark: str, what: str) -> None:
    """Refuse a folder that holds something else, among which a command would write.

    Args:
        folder: that a command will write to; it need not exist.
        mark: file that its own folders have from the first moment on.
        what: they are, for the message.

    Raises:
        FileExistsError: if it holds files, but not that one.
    """
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if found and mark not in found:
        said = ', '.join(found[:3])
        raise FileExistsError(f'{folder} exists and holds no {what} (found {said}); choose another folder')


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch got no memory, on a GPU or the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
