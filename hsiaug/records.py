"""Records in JSON: written whole or not at all, and read as what they are: data that may come from anywhere.

A folder that somebody else wrote holds ``config.json``, ``bank.json``, ``run.json``. Reading one never imports,
unpickles or calls anything that it names, and never allocates what it merely declares.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import pydantic

T = TypeVar('T')

LARGEST_RECORD = 64 << 20
"""Bytes of JSON that are read at most."""
PLAUSIBLE_BYTES = 256 << 20
PLAUSIBLE_RATIO = 200
"""A file may declare up to :data:`PLAUSIBLE_BYTES` of values, or this many times its own size."""


def read_json(path: str | os.PathLike[str], what: str, error: type[Exception] = ValueError) -> dict[str, Any]:
    """The JSON object in a file; an ``error`` says where it is not ``what`` was expected."""
    file = Path(path)
    if (size := file.stat().st_size) > LARGEST_RECORD:
        raise error(f'{file} is not {what}: it has {size} bytes, at most {LARGEST_RECORD} are read')
    try:
        found = json.loads(file.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as reason:  # torn, no JSON, no UTF-8, or nested without end
        raise error(f'{file} is not {what}: {_in_short(reason)}; is it complete?') from reason
    if not isinstance(found, dict):
        raise error(f'{file} is not {what}: a JSON object was expected, found {type(found).__name__}')
    return found


def as_record(cls: type[T], data: Any, where: str, error: type[Exception] = ValueError) -> T:
    """A dataclass from JSON-ready data, every field checked against its annotation, nested dataclasses too.

    Lists become tuples where tuples are wanted and text becomes paths; nothing else is converted: text is not a number,
    and ``true`` is not 1. An ``error``, which says ``where`` the data was found, names field, value and what was
    expected.
    """
    problems = [f'unknown field {name!r}; choose from {known}' for name, known in _unknown(cls, data)]
    if not problems:
        try:
            return pydantic.TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except pydantic.ValidationError as reason:
            problems = [_problem(found) for found in reason.errors(include_url=False, include_context=False)]
        except (ValueError, TypeError, RecursionError) as reason:
            problems = [_in_short(reason)]
    raise error(f'{where}: ' + '; '.join(problems[:5]))


@contextmanager
def written_whole(path: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary file to write to, which replaces ``path`` in the end: a reader finds all of it or nothing.

    Args:
        path: of the file; its folder exists.
        durable: wait for the disk, so that this holds even if the machine loses power.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        if durable:
            with temporary.open('rb') as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any, durable: bool = False) -> None:
    """Write JSON whole or not at all; ``durable`` as for :func:`written_whole`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path, durable) as temporary:
        temporary.write_text(json.dumps(data, indent=1))


def json_ready(value: Any) -> Any:
    """A value in JSON, the same for equal values: settings that decide on a result, for keys and records.

    Dataclasses become objects, tuples and arrays lists, numbers of numpy plain ones, NaN and paths text; functions are
    named by where they are defined, partial ones by their arguments too, and anything else is given as text.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_ready(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): json_ready(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((json_ready(one) for one in value), key=str)
    if hasattr(value, 'tolist'):  # of numpy and torch
        return json_ready(value.tolist())
    if isinstance(value, list | tuple):
        return [json_ready(one) for one in value]
    if isinstance(value, partial):
        return [json_ready(value.func), json_ready(value.args), json_ready(value.keywords)]
    if hasattr(value, '__qualname__'):
        return f'{value.__module__}.{value.__qualname__}'
    plain = value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)


def short_digest(value: Any) -> str:
    """16 hex digits that are the same for equal values, see :func:`json_ready`."""
    return hashlib.sha256(json.dumps(json_ready(value), sort_keys=True).encode()).hexdigest()[:16]


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def require_plausible(declared: int, stored: int, what: str, error: type[Exception] = ValueError) -> None:
    """Refuse ``what`` declares far more bytes of values than the file has, before anything is allocated."""
    if declared > max(PLAUSIBLE_BYTES, PLAUSIBLE_RATIO * stored):
        raise error(
            f'{what} declares {declared / 2**20:,.0f} MiB of values and holds {stored / 2**20:,.1f} MiB; a file like '
            'that is not read. If it is what it says, store it without compression or holes'
        )


def _problem(found: Any) -> str:
    place = '.'.join(map(str, found['loc'])) or 'value'
    return f'{place}: {found["msg"]}, found {_in_short(repr(found["input"]))}'


def _unknown(annotation: Any, data: Any) -> list[tuple[str, list[str]]]:
    """Fields of mappings that stand where dataclasses are expected, and that these do not have."""
    if get_origin(annotation) in (Union, UnionType):
        if any(get_origin(choice) in (dict, Mapping) for choice in get_args(annotation)):
            return []  # any fields will do
        choices = [choice for choice in get_args(annotation) if dataclasses.is_dataclass(choice)]
        return min((_unknown(choice, data) for choice in choices), key=len, default=[])
    if not (dataclasses.is_dataclass(annotation) and isinstance(data, Mapping)):
        return []
    hints = get_type_hints(annotation)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(annotation)}
    wrong = [(str(name), sorted(fields)) for name in data if name not in fields]
    return wrong + [pair for name in data if name in fields for pair in _unknown(fields[name], data[name])]


def _in_short(message: object) -> str:
    text = str(message)
    return text if len(text) <= 300 else text[:299] + '…'


def in_markdown(name: str) -> str:
    """A name that anybody may have chosen, as plain text on one line of Markdown, in tables too."""
    return re.sub(r'([\\`*_\[\]#~|])', r'\\\1', ' '.join(name.split())).replace('<', '&lt;')
