"""Settings are checked in one place, before anything is made of them: names, types, that numbers are finite, ranges.

What is checked follows from annotations. Text is not a number, ``true`` is not 1 and NaN is not a number that could be
computed with; numbers of numpy are numbers, and lists stand for tuples. Messages name the setting, what was expected
and what was found. A dataclass of settings calls :func:`check_settings` when it is made.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        high = math.inf if self.high is None else self.high
        above = self.low < value if self.open_low else self.low <= value
        return above and (value < high if self.open_high else value <= high)

    def __str__(self) -> str:
        if self.high is None:
            return f'{"above" if self.open_low else "at least"} {self.low:g}'
        return f'in {"(" if self.open_low else "["}{self.low:g}, {self.high:g}{")" if self.open_high else "]"}'


ANY = Range(-math.inf)
COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_low=True)
BETWEEN = Range(0, 1, open_low=True, open_high=True)
SHARE = Range(0, 1, open_high=True)
"""Of the steps, of samples, of an average: 1 would leave nothing."""


def check_settings(config: Any, **ranges: Range) -> None:
    """Check a dataclass of settings in its ``__post_init__``; numbers of numpy become Python's, lists tuples if wanted.

    Nested ones check themselves. ``ranges`` are those of its numbers, by name, where they are not :data:`COUNT` and
    :data:`NOT_NEGATIVE`.
    """
    cls: Any = type(config)
    hints = _hints(cls)
    for name in (field.name for field in dataclasses.fields(config)):
        hint = hints.get(name, Any)
        value = check_value(cls.__name__, name, getattr(config, name), hint, ranges.get(name))
        if isinstance(value, list | tuple | np.ndarray) and any(get_origin(one) is tuple for one in _choices(hint)):
            value = _plain(value)  # JSON or YAML wrote it, or numpy
        object.__setattr__(config, name, value)


def check_arguments(cls: type, settings: Mapping[str, Any], ranges: Mapping[str, Range] | None = None) -> None:
    """Check settings against what a class takes; those that it does not take are let pass.

    Any finite number will do where ``ranges`` have none for it.
    """
    hints = _hints(cls)
    for name, value in settings.items():
        check_value(cls.__name__, name, value, hints.get(name, Any), (ranges or {}).get(name, ANY))


def checked_arguments(
    maker: Callable[..., Any],
    settings: Mapping[str, Any] | None,
    where: str,
    error: type[Exception] = ValueError,
    given: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Settings of a config file or a saved folder, each known to ``maker`` and of the type that it is annotated with.

    A dataclass may be given as a mapping, of which ``maker`` makes it, with defaults of its own. An ``error``, which
    says ``where`` the settings stand, is raised for each that does not fit, must be given, or is NaN or infinite
    anywhere within. ``given`` are arguments of the maker that are not settings. Returns the settings, numbers of numpy
    as Python's.
    """
    if not isinstance(settings, Mapping | None):
        raise error(f'{where}: settings by name were expected, found {settings!r}')
    hints = _hints(maker)
    settings = {name: _as_choice(value, hints.get(name, Any)) for name, value in (settings or {}).items()}
    takes = {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(maker).parameters.items()
        if name not in given and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    if missing := sorted(name for name, needed in takes.items() if needed and name not in settings):
        raise error(f'{where}: {", ".join(missing)} must be given')
    problems = [f'unknown field {name!r}; choose from {sorted(takes)}' for name in settings if name not in takes]
    for name, value in settings.items():
        hint = hints.get(name, Any)
        if any(map(dataclasses.is_dataclass, _choices(hint))):
            hint = hint | Mapping[str, Any]
        found = _problem(name, value, hint, ANY)
        problems += [found] if found else [f'{path} must be finite, found NaN or infinity'
                                           for path in not_finite(value, str(name))]  # fmt: skip
    if problems:
        raise error(f'{where}: {"; ".join(problems[:5])}')
    return {name: _scalar(value) for name, value in settings.items()}


def check_value(who: str, name: str, value: Any, hint: Any, range_: Range | None = None) -> Any:
    """The setting of ``who``, checked against its annotation, a number of numpy as Python's.

    Without a range, whole numbers must be a :data:`COUNT` and others :data:`NOT_NEGATIVE`.
    """
    value = _as_choice(value, hint)
    if problem := _problem(name, value, hint, range_):
        raise ValueError(f'{who}: {problem}')
    return _scalar(value)


def leaves(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """What nested settings hold, each with where it stands."""
    if isinstance(value, Mapping | list | tuple):
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from leaves(inner, f'{path}.{name}')
    else:
        yield path, value


def not_finite(settings: Any, path: str) -> list[str]:
    """Where in nested settings a number is NaN or infinite."""
    return [
        where
        for where, value in leaves(settings, path)
        if isinstance(value, float | np.floating) and not math.isfinite(value)
    ]


def _problem(name: str, value: Any, hint: Any, range_: Range | None) -> str | None:
    """What is wrong with a setting, if anything is."""
    if _fits(value, hint, range_):
        return None
    choices = _choices(hint)
    if get_origin(choices[0]) is Literal:
        return f'unknown {name} {value!r}; choose from {get_args(choices[0])}'
    numbers = [choice for choice in choices if choice in (int, float) and _fits(value, choice, ANY)]
    if numbers:  # of the right type, but out of range
        wanted = [str(_range(numbers[0], range_))]
    else:
        wanted = [_wanted(choice, range_) for choice in choices if choice is not type(None)]
    if type(None) in choices:
        wanted.append('None')
    found = repr(value)
    return f'{name} must be {" or ".join(wanted)}, found {found if len(found) <= 200 else found[:199] + "…"}'


def _fits(value: Any, hint: Any, range_: Range | None) -> bool:
    """Whether a value is what an annotation says, numbers in their range; where that says nothing, anything is."""
    value, origin, args = _scalar(value), get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, choice, range_) for choice in args)
    if hint in (int, float):
        number = isinstance(value, int | hint) and not isinstance(value, bool)
        return number and (hint is int or abs(value) <= sys.float_info.max) and value in _range(hint, range_)
    if origin is Literal:  # of which True would be 1
        return type(value) in map(type, args) and value in args
    if (origin or hint) in (tuple, list, Sequence):
        if not isinstance(value, list | tuple | np.ndarray):
            return False
        each = args if origin is tuple and Ellipsis not in args else (*args, Any)[:1] * len(value)
        return len(each) == len(value) and all(_fits(one, of, range_) for one, of in zip(value, each, strict=True))
    if hint is Path or os.PathLike in (hint, origin):
        return isinstance(value, str | os.PathLike)
    if (origin or hint) is dict:
        return isinstance(value, Mapping)
    try:
        return isinstance(value, type(None) if hint is None else origin or hint)
    except TypeError:  # Any, or what nothing can be checked against
        return True


def _as_choice(value: Any, hint: Any) -> Any:
    """The text where digits are a choice, such as ``'32'``, and a command line has made a number of them."""
    if type(value) is int and any(get_origin(one) is Literal and str(value) in get_args(one) for one in _choices(hint)):
        return str(value)
    return value


def _plain(value: Any) -> Any:
    """Lists and arrays as tuples of plain values."""
    value = _scalar(value)
    return tuple(map(_plain, value)) if isinstance(value, list | tuple | np.ndarray) else value


def _scalar(value: Any) -> Any:
    """Numbers of numpy as Python's."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and not value.ndim else value


def _range(hint: type, range_: Range | None) -> Range:
    return range_ or (COUNT if hint is int else NOT_NEGATIVE)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


_WORDS = {bool: 'true or false', str: 'a text', Path: 'a path', os.PathLike: 'a path', Mapping: 'a mapping of settings'}


def _wanted(hint: Any, range_: Range | None) -> str:
    """What an annotation asks for, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if hint in (int, float):
        kind, within = 'a whole number' if hint is int else 'a finite number', _range(hint, range_)
        if math.isinf(within.low):
            return kind
        return f'{kind} {within}' if within.high is not None or within.open_low else f'{kind} of {within}'
    if origin in (tuple, list, Sequence):
        many = origin is not tuple or args[-1] is Ellipsis
        return f'a list of {"" if many else f"{len(args)}, each "}{_wanted(args[0], range_)}'
    if origin is Literal:
        return f'one of {args}'
    return _WORDS.get(origin or hint) or str(getattr(hint, '__name__', hint))


@cache
def _hints(maker: Any) -> dict[str, Any]:
    """Annotations of what a class or a function takes."""
    if inspect.isclass(maker) and '__dataclass_fields__' not in vars(maker):
        maker = maker.__init__  # type: ignore[misc]  # written by hand
    try:
        return get_type_hints(maker)
    except NameError:  # of a class that was made inside a function, or names what only type checkers import
        return {}
