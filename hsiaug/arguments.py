"""What a config file or a saved folder says that a class is to be made with, checked before it is made."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pydantic

from .records import as_record


def checked_arguments(
    maker: Callable[..., Any],
    settings: Mapping[str, Any] | None,
    where: str,
    error: type[Exception] = ValueError,
    given: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The settings, each known to ``maker`` and of the type that it is annotated with; no number is NaN or infinite.

    Args:
        maker: class or function that takes them by name.
        settings: as YAML, JSON or a caller has them; numpy's scalars become Python's.
        where: they stand, for messages.
        error: raised where they do not fit.
        given: arguments of the maker that are no settings.

    Raises:
        ValueError: or ``error``, naming each setting that does not fit, what was found and what was expected.
    """
    if not isinstance(settings, Mapping | None):
        raise error(f'{where}: settings by name were expected, found {settings!r}')
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in (settings or {}).items()}
    if wrong := [path for name, value in plain.items() for path in not_finite(value, str(name))]:
        raise error(f'{where}: {", ".join(wrong[:5])} must be finite, found NaN or infinity')
    record, needed = _record(maker, given)
    if missing := sorted(needed - set(plain)):
        raise error(f'{where}: {", ".join(missing)} must be given')
    # What is no data, such as a tensor that a caller gives, is for the maker to check.
    known = {field.name: field.type for field in dataclasses.fields(record)}
    for name, value in plain.items():
        if get_origin(known.get(name)) is Literal and value not in (choices := get_args(known[name])):
            raise error(f'{where}: unknown {name} {value!r}; choose from {choices}')
    as_record(record, {n: value for n, value in plain.items() if _is_data(value) or n not in known}, where, error)
    return plain


def not_finite(value: Any, path: str) -> Iterator[str]:
    """Where in nested settings a number is NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from not_finite(inner, f'{path}.{name}')
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from not_finite(inner, f'{path}.{number}')


@cache
def _record(maker: Callable[..., Any], given: tuple[str, ...]) -> tuple[type, frozenset[str]]:
    """A dataclass of what ``maker`` takes by name, and what it can't do without."""
    written = inspect.isclass(maker) and '__dataclass_fields__' not in vars(maker)  # its __init__, by hand
    hints = get_type_hints(maker.__init__ if written else maker)  # type: ignore[misc]
    types: dict[str, Any] = {}
    needed: set[str] = set()
    for name, parameter in inspect.signature(maker).parameters.items():
        if name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        types[name] = hints.get(name, Any)
        if parameter.default is parameter.empty:
            needed.add(name)
    fields: list[Any] = [(name, _checkable(hint), dataclasses.field(default=None)) for name, hint in types.items()]
    return dataclasses.make_dataclass(f'Settings_{getattr(maker, "__name__", "")}', fields), frozenset(needed)


def _checkable(hint: Any) -> Any:
    """The annotation where pydantic can check it; anything goes for tensors and arrays.

    A maker that wants a dataclass may make it itself of what a config file says, with defaults of its own.
    """
    if dataclasses.is_dataclass(hint):
        return hint | Mapping[str, Any]
    try:
        pydantic.TypeAdapter(hint)
    except pydantic.errors.PydanticUserError:
        return Any
    return hint


def _is_data(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


__all__ = ['checked_arguments', 'not_finite']
