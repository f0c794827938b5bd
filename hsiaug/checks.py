"""Checks of numbers that a user gives: text, NaN and numbers out of range are named, not computed with."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any


def require_count(value: Any, what: str, least: int | None = 1) -> int:
    """A whole number of at least ``least``, if that is given, as an int.

    Raises:
        ValueError: for anything else, naming ``what`` and the value.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        bound = '' if least is None else f' of at least {least}'
        raise ValueError(f'{what} must be a whole number{bound}, found {value!r}') from None
    if least is not None and count < least:
        raise ValueError(f'{what} must be at least {least}, found {value!r}')
    return count


def require_number(
    value: Any,
    what: str,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> float:
    """A finite number within bounds, as a float.

    Args:
        value: of the user.
        what: it is, for the message.
        above: that it must exceed.
        least: that it must reach.
        below: that it must not reach.
        most: that it must not exceed.

    Raises:
        ValueError: for anything else, naming ``what``, its bounds and the value.
    """
    bounds = [
        f'{word} {bound:g}'
        for word, bound in (('above', above), ('at least', least), ('below', below), ('at most', most))
        if bound is not None
    ]
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if (
        not math.isfinite(number)
        or (above is not None and number <= above)
        or (least is not None and number < least)
        or (below is not None and number >= below)
        or (most is not None and number > most)
    ):
        expected = ' '.join(['a finite number', ' and '.join(bounds)]).strip()
        raise ValueError(f'{what} must be {expected}, found {value!r}')
    return number


__all__ = ['require_count', 'require_number']
