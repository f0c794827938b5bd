"""The labels of a scene: found in the cube's own file or in another, as integers or as text."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import LABEL_KEYS, NUMERIC, Content, SceneFileError, Variable, as_path, existing, leaf, without_axis_of_one
from .formats import open_content
from .labels import clean_labels, names_for, numbered


@dataclass(frozen=True)
class FileLabels:
    """Labels (H, W), (T, h, w) or (N,), and names of their classes."""

    values: np.ndarray
    names: Mapping[int, str]


def read_labels(
    content: Content,
    labels: str | os.PathLike[str] | None,
    key: str | None,
    cube: Variable,
    nodata: float | None,
    ignore: Sequence[int] | None,
    class_names: Mapping[int, str] | None,
    unlabelled: int,
) -> FileLabels | None:
    """The labels and the class names of their file; None where nothing is labelled."""
    dimensions = {2: (1, 2), 4: (3,)}.get(cube.ndim, (2,))
    if labels is not None and not as_path(labels, 'labels').is_file() and content.name(str(labels)) is not None:
        labels, key = None, str(labels)
    if labels is not None:
        if not Path(labels).exists() and Path(labels).name == str(labels):  # may be meant as a variable
            raise FileNotFoundError(
                f'labels {str(labels)!r} are neither a file nor a variable of {content.file}, which holds: '
                f'{sorted(content.variables)}'
            )
        source = open_content(existing(labels, 'labels'), 'labels')
        variable = source.find(key, LABEL_KEYS, dimensions, 'labels', 'labels_key', NUMERIC + 'US')
        return _clean(source, variable, source.facts.nodata, dimensions, ignore,
                      class_names, content, unlabelled)  # fmt: skip
    key = _usual_labels(content, cube) if key is None else key
    if key is None:
        return None
    found = content.find(key, (), dimensions, 'labels', 'labels_key')
    return _clean(content, found, None, dimensions, ignore, class_names, content, unlabelled)


def _clean(
    source: Content,
    variable: Variable,
    nodata: float | None,
    dimensions: tuple[int, ...],
    ignore: Sequence[int] | None,
    class_names: Mapping[int, str] | None,
    cube: Content,
    unlabelled: int,
) -> FileLabels:
    values = without_axis_of_one(variable.read(), dimensions)
    where = f'{source.file}: labels'
    if values.dtype.kind in 'US':
        return FileLabels(*numbered(values))
    names = class_names or names_for(values, source.facts.class_names)
    labels = clean_labels(values, where, nodata, ignore, names, unlabelled)
    if source is not cube and source.facts.measured is not None and source.facts.measured.shape == labels.shape:
        labels = np.where(source.facts.measured, labels, labels.dtype.type(unlabelled))
    return FileLabels(labels, names or names_for(values, cube.facts.class_names))


def _usual_labels(content: Content, cube: Variable) -> str | None:
    """Name of the labels' variable in the cube's own file; None, and a warning of what may be one, if none is."""
    pixels = {cube.shape} if cube.ndim == 2 else {cube.shape[:-1], (*cube.shape[:-3], *cube.shape[-2:])}
    if cube.ndim == 2:
        pixels |= {cube.shape[:1], (cube.shape[0], 1), (1, cube.shape[0])}

    def one_each(variable: Variable) -> bool:
        shape = variable.shape
        return shape in pixels or (1 in (*shape[:1], *shape[-1:]) and not pixels.isdisjoint((shape[1:], shape[:-1])))

    others = {name: v for name, v in content.variables.items() if v is not cube}
    named = [n for use in LABEL_KEYS for n in others if leaf(n) == use] + [n for n in others if leaf(n).endswith('_gt')]
    for name in named:
        fits, kind = one_each(others[name]), others[name].dtype.kind
        if fits and kind == 'O':
            raise SceneFileError(
                f'{content.file}: {name!r} holds Python objects, which are never read; save the labels as integers or '
                'as text of a fixed length'
            )
        # Text of another shape is a list of names; y may be a coordinate, a mask be one of values.
        sure = leaf(name) not in ('target', 'y', 'mask') and kind in NUMERIC
        if sure or (fits and kind in NUMERIC + 'US'):
            return name
    left = [name for name, v in others.items() if v.dtype.kind in NUMERIC and len(v.shape) > 1 and one_each(v)]
    left += [name for name in named if name not in left and others[name].dtype.kind in NUMERIC]
    if left:
        found = ', '.join(f'{name} {others[name].shape}' for name in left)
        warnings.warn(
            f'{content.file}: no labels are read; if any of {found} holds them, say so: labels_key={left[0]!r}',
            stacklevel=4,
        )
    return None
