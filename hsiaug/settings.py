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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pydantic


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


def not_finite(value: Any, path: str) -> Iterator[str]:
    """Where in nested settings a number is NaN or infinite."""
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        yield path
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from not_finite(inner, f'{path}.{name}')
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from not_finite(inner, f'{path}.{number}')


def _problem(name: str, value: Any, hint: Any, range_: Range | None) -> str | None:
    """What is wrong with a setting, if anything is."""
    try:
        _adapter(hint, range_).validate_python((_plain(value),))
        return None
    except pydantic.ValidationError as error:
        bounds = [
            e for e in error.errors(include_url=False) if e['loc'] == (0,) and e['type'].startswith(_OUT_OF_RANGE)
        ]
    choices = _choices(hint)
    if get_origin(choices[0]) is Literal:
        return f'unknown {name} {value!r}; choose from {get_args(choices[0])}'
    wanted = [_wanted(choice, range_) for choice in choices if choice is not type(None)]
    if bounds:  # of the right type
        wanted = [str(_range(int if int in choices else float, range_))]
    if type(None) in choices:
        wanted.append('None')
    found = repr(value)
    return f'{name} must be {" or ".join(wanted)}, found {found if len(found) <= 200 else found[:199] + "…"}'


_OUT_OF_RANGE = ('greater_than', 'less_than')
_STRICT = pydantic.ConfigDict(strict=True, arbitrary_types_allowed=True)


@cache
def _adapter(hint: Any, range_: Range | None) -> pydantic.TypeAdapter[tuple[Any]]:
    """Of a tuple of one, since pydantic takes no configuration for a dataclass alone."""
    one: Any = tuple[_checkable(hint, range_)]  # type: ignore[misc]
    try:
        return pydantic.TypeAdapter(one, config=_STRICT)
    except pydantic.errors.PydanticUserError:  # an annotation that nothing can be checked against
        return pydantic.TypeAdapter(tuple[Any])


def _checkable(hint: Any, range_: Range | None) -> Any:
    """An annotation as pydantic is to check it: numbers finite and in their range, all sequences tuples."""
    if hint in (int, float):
        within = _range(hint, range_)
        low, high = (None if bound is None or math.isinf(bound) else bound for bound in (within.low, within.high))
        limits = pydantic.Field(
            gt=low if within.open_low else None,
            ge=None if within.open_low else low,
            lt=high if within.open_high else None,
            le=None if within.open_high else high,
            allow_inf_nan=False if hint is float else None,
        )
        return Annotated[hint, limits]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return Union[tuple(_checkable(choice, range_) for choice in args)]  # noqa: UP007
    if origin in (tuple, list, Sequence):
        inner = tuple(one if one is Ellipsis else _checkable(one, range_) for one in args)
        return tuple[inner if origin is tuple else (*inner, ...)]  # type: ignore[misc]
    if origin is Literal:
        return Annotated[Any, pydantic.AfterValidator(partial(_one_of, args))]
    if origin is Mapping:
        return dict
    if hint is Path or os.PathLike in (hint, origin):
        return str | pydantic.InstanceOf[os.PathLike]  # type: ignore[type-arg]
    if dataclasses.is_dataclass(hint):
        return Annotated[hint, pydantic.InstanceOf()]  # type: ignore[type-arg]
    return hint


def _one_of(choices: tuple[Any, ...], value: Any) -> Any:
    """One of the choices of a ``Literal``, among which pydantic takes ``true`` for 1."""
    if type(value) not in map(type, choices) or value not in choices:
        raise ValueError(f'one of {choices} expected')
    return value


def _plain(value: Any) -> Any:
    """Scalars and arrays of numpy as Python's, lists as tuples."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return dict(value) if isinstance(value, Mapping) else value


def _as_choice(value: Any, hint: Any) -> Any:
    """The text where digits are a choice, such as ``'32'``, and a command line has made a number of them."""
    if type(value) is int and any(get_origin(one) is Literal and str(value) in get_args(one) for one in _choices(hint)):
        return str(value)
    return value


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


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
