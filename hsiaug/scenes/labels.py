"""Label values of files: which are classes, and which mark pixels without a class."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral

import numpy as np

UNLABELLED = 0
"""Label of pixels without a class, as in the public benchmark scenes."""

_USUAL_IGNORED = (255, 65535)
"""Ignore indices of other tools; far above all other labels they may be classes or mark pixels without one."""


def without_class(
    values: np.ndarray, nodata: float | None = None, ignore: Sequence[float] = (), where: str = 'labels'
) -> np.ndarray:
    """Mask of pixels without a class, whatever the class ids are.

    Negative labels, NaN, what only fits uint64 (a negative label that was cast), ``nodata`` and ``ignore`` mark them.
    """
    if values.dtype.kind not in 'biuf':
        raise ValueError(f'{where} must be integers, found dtype {values.dtype}')
    absent = np.zeros(values.shape, dtype=bool)
    if values.dtype.kind == 'f':
        absent |= ~np.isfinite(values)
    if values.dtype.kind in 'if':
        absent |= values < 0
    if values.dtype == np.uint64:
        absent |= values > np.iinfo(np.int64).max
    for value in (*ignore, *(() if nodata is None else (nodata,))):
        absent |= values == value
    if values.dtype.kind == 'f':
        rest = values[~absent]
        odd = rest[(rest != np.floor(rest)) | (rest >= 2.0**53)]
        if odd.size:
            raise ValueError(
                f'{where} must be integers, found dtype {values.dtype} with {np.unique(odd)[:4].tolist()}; name such '
                'values with ignore if they mark pixels without a class'
            )
    return absent


def as_integers(values: np.ndarray, absent: np.ndarray, fill: int = UNLABELLED) -> np.ndarray:
    """Labels as integers, ``fill`` where there is none; integers that need no change are returned as they are."""
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if not absent.any() and values.dtype.kind in 'iu' and values.dtype != np.uint64:
        return values
    kept = np.where(absent, values.dtype.type(0), values)
    kept = kept.astype(np.int64) if kept.dtype.kind == 'f' or kept.dtype == np.uint64 or fill > 127 else kept
    kept[absent] = fill
    return kept


def clean_labels(
    values: np.ndarray,
    where: str,
    nodata: float | None = None,
    ignore: Sequence[float] | None = None,
    named: Collection[int] = (),
    fill: int = UNLABELLED,
) -> np.ndarray:
    """Labels of a file, with ``fill`` for pixels without a class.

    Those are pixels with the file's own ``nodata`` or a value in ``ignore``; an empty ``ignore`` makes every positive
    value a class, even ``nodata``. ``where`` (the origin of the labels) and ``named`` (values with class names) are
    for messages.
    """
    if ignore is not None and len(ignore) == 0:
        nodata = None
    absent = without_class(values, nodata, ignore or (), where)
    present = values[~absent]
    highest = present.max(initial=UNLABELLED)
    hidden = 0 if nodata is None or not nodata > 0 else int((values == nodata).sum())
    if hidden and (nodata in named or highest >= nodata):
        warnings.warn(
            f'{where}: {nodata:g} looks like a class, but is the nodata value of the file, so its {hidden} pixels '
            'count as unlabelled; if it is a class, give ignore=[], or the values that are to be ignored in a file '
            'without nodata',
            stacklevel=4,
        )
    unclear = ignore is None and fill == UNLABELLED and highest >= min(_USUAL_IGNORED)
    others = np.unique(present[present > UNLABELLED]) if unclear else present[:0]
    for value in _USUAL_IGNORED:
        if value in others and value not in named and len(others) > 1 and value - 1 not in others:
            raise ValueError(
                f'{where}: {value} may be a class, or mark pixels without one, besides '
                f'{others[others != value][:8].tolist()}; give ignore=[{value}] if it marks such pixels, ignore=[] if '
                'it is a class'
            )
    return as_integers(values, absent, fill)


def class_positions(labels: np.ndarray, classes: Sequence[int], absent: int) -> np.ndarray:
    """Class ids as positions in ``classes``, int64; ``absent`` for other ids."""
    ids = np.asarray(classes)
    order = np.argsort(ids)
    place = np.searchsorted(ids[order], labels).clip(max=len(ids) - 1)
    return np.where(ids[order][place] == labels, order[place], absent)


def numbered(text: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Numbers and names of classes given as text: from 1 in sorted order; empty text is unlabelled."""
    text = np.char.strip(np.char.decode(text, 'utf-8', 'replace') if text.dtype.kind == 'S' else text)
    names, numbers = np.unique(text, return_inverse=True)
    first = 0 if names.size and not names[0] else 1
    labels = numbers.reshape(text.shape) + first
    return labels, {i + first: str(name) for i, name in enumerate(names) if name}


def class_names_of(names: np.ndarray | Sequence[str]) -> dict[int, str]:
    """Names whose position is the class id, 0 the unlabelled; for :func:`names_for` labels."""
    found = {i: str(name).strip() for i, name in enumerate(np.asarray(names).reshape(-1))}
    return {i: name for i, name in found.items() if name}


def names_for(labels: np.ndarray | None, names: Mapping[int, str]) -> dict[int, str]:
    """Class names from a list, by position.

    If labels go one beyond the last position, the list has no entry for unlabelled pixels and starts with label 1.
    """
    first = 0
    if 0 in names and labels is not None and labels.dtype.kind in 'biuf' and (labels == max(names) + 1).any():
        first = 1
    return {i + first: name for i, name in names.items() if i + first != UNLABELLED}


def require_names(names: object, where: str) -> None:
    """Check that class names are a mapping of ids; a list might start with 0 or 1."""
    if names is not None and not isinstance(names, Mapping):
        raise ValueError(
            f'{where}: class_names are a mapping of class id to name, found {type(names).__name__}; give '
            'dict(enumerate(names, 1)) if the first is that of label 1'
        )
    if odd := [key for key in names or () if not isinstance(key, Integral)]:
        raise ValueError(
            f'{where}: class ids in class_names must be whole numbers, as labels are, found {odd[:3]}; give '
            '{int(key): name for key, name in names.items()} if JSON has made text of them'
        )


def ignored_values(ignore: Sequence[int] | int | None, where: str) -> tuple[int, ...] | None:
    """Label values to ignore, as a tuple; a single number is accepted."""
    values = np.atleast_1d(np.asarray(() if ignore is None else ignore))
    if values.size and values.dtype.kind not in 'iuf':
        raise ValueError(f'{where}: ignore must be label values, which are numbers, found {ignore!r}')
    return None if ignore is None else tuple(values.tolist())
