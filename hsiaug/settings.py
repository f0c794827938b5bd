"""Settings are checked in one place, before anything is made of them: their types, that numbers are finite, ranges.

A dataclass of settings calls :func:`check_settings` when it is made. What is checked follows from its annotations;
ranges are those of most settings, whole numbers from 1 and other numbers from 0, where none is given.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``.

    Args:
        low: lowest number.
        high: highest, or None for no end.
        open_low: without ``low`` itself.
        open_high: without ``high`` itself.
    """

    low: float
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return above and below

    def __str__(self) -> str:
        if self.high is None:
            return f'{"above" if self.open_low else "at least"} {self.low:g}'
        return f'in {"(" if self.open_low else "["}{self.low:g}, {self.high:g}{")" if self.open_high else "]"}'


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_low=True)
SHARE = Range(0, 1, open_high=True)
"""Of the steps, of samples, of an average: 1 would leave nothing."""


def check_settings(config: Any, **ranges: Range) -> None:
    """Check a dataclass of settings.

    Args:
        config: the dataclass, as its ``__post_init__`` has it. Nested dataclasses check themselves.
        ranges: of its numbers, by name, where they are not :data:`COUNT` and :data:`NOT_NEGATIVE`.

    Raises:
        ValueError: naming the field, what was found and what was expected.
    """
    cls: Any = type(config)
    hints = _hints(cls)
    for field in dataclasses.fields(config):
        if isinstance(value := getattr(config, field.name), np.generic):  # JSON has no such numbers
            object.__setattr__(config, field.name, value.item())
        check_value(
            cls.__name__, field.name, getattr(config, field.name), hints.get(field.name, Any), ranges.get(field.name)
        )


def check_arguments(cls: type, settings: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Check settings against the annotations of a class's ``__init__``. Without a range, any finite number will do.

    Raises:
        ValueError: naming the argument, what was found and what was expected.
    """
    hints, anything = _hints(cls.__init__), Range(-math.inf)  # type: ignore[misc]
    for name, value in settings.items():
        check_value(cls.__name__, name, value, hints.get(name, Any), ranges.get(name, anything))


def check_value(who: str, name: str, value: Any, hint: Any, range_: Range | None = None) -> None:
    """Check one setting.

    Args:
        who: takes it, for the message.
        name: of the setting.
        value: found.
        hint: its annotation; what is none of numbers, texts, choices, paths and sequences of these is let pass.
        range_: of its numbers; None for :data:`COUNT` of whole ones and :data:`NOT_NEGATIVE` of others.

    Raises:
        ValueError: naming the setting, what was found and what was expected.
    """
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and type(None) in choices:
        return
    wanted = [_wanted(choice, range_) for choice in choices if choice is not type(None)]
    if any(_fits(value, choice, range_) for choice in choices):
        return
    if get_origin(choices[0]) is Literal:
        raise ValueError(f'{who}: unknown {name} {value!r}; choose from {get_args(choices[0])}')
    number = next((choice for choice in choices if choice in (int, float)), None)
    if number is not None and _is_number(value, number):  # of the right type, but out of range
        wanted = [str(_range(number, range_))]
    if type(None) in choices:
        wanted.append('None')
    raise ValueError(f'{who}: {name} must be {" or ".join(wanted)}, found {_short(value)}')


def _fits(value: Any, hint: Any, range_: Range | None) -> bool:
    if hint is Any:
        return True
    if hint in (int, float):
        return _is_number(value, hint) and value in _range(hint, range_)
    if hint is bool:
        return isinstance(value, (bool, np.bool_))
    if hint is str:
        return isinstance(value, str)
    if hint is Path or hint is os.PathLike or get_origin(hint) is os.PathLike:
        return isinstance(value, (str, os.PathLike))
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        plain = isinstance(value, (str, int, float, bool))
        return plain and any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in args)
    if origin in (tuple, list, Sequence):
        if not isinstance(value, (tuple, list)):
            return False
        if origin is tuple and args[-1] is not Ellipsis:
            return len(value) == len(args) and all(_fits(v, h, range_) for v, h in zip(value, args, strict=True))
        return all(_fits(v, args[0], range_) for v in value)
    if isinstance(hint, type):
        return isinstance(value, hint)
    return not (origin is Mapping and not isinstance(value, Mapping))


def _is_number(value: Any, hint: type) -> bool:
    kind = numbers.Integral if hint is int else numbers.Real
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


def _range(hint: type, range_: Range | None) -> Range:
    return range_ or (COUNT if hint is int else NOT_NEGATIVE)


def _wanted(hint: Any, range_: Range | None) -> str:
    """What a hint asks for, in words."""
    if hint in (int, float):
        kind, within = 'a whole number' if hint is int else 'a finite number', _range(hint, range_)
        if within.low == -math.inf:
            return kind
        return f'{kind} {within}' if within.high is not None or within.open_low else f'{kind} of {within}'
    if hint is bool:
        return 'true or false'
    if hint is str:
        return 'a text'
    origin, args = get_origin(hint), get_args(hint)
    if origin in (tuple, list, Sequence):
        many = origin is not tuple or args[-1] is Ellipsis
        return f'a list of {"" if many else f"{len(args)}, each "}{_wanted(args[0], range_)}'
    if origin is Literal:
        return f'one of {args}'
    if origin is Mapping:
        return 'a mapping of settings'
    if hint is Path or origin is os.PathLike:
        return 'a path'
    return getattr(hint, '__name__', str(hint))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:199] + '…'


@cache
def _hints(owner: Any) -> dict[str, Any]:
    try:
        return get_type_hints(owner)
    except NameError:  # of a class that was made inside a function, or names what only type checkers import
        return {}


__all__ = [
    'COUNT',
    'NOT_NEGATIVE',
    'POSITIVE',
    'SHARE',
    'Range',
    'check_arguments',
    'check_settings',
    'check_value',
]
