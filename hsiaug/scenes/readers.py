"""Readers: from a file of a known format to a :class:`Scene`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..settings import ANY, check_value
from .files import (
    CUBE_KEYS,
    LABEL_KEYS,
    NUMERIC,
    Content,
    Facts,
    SceneFileError,
    Variable,
    as_path,
    existing,
    leaf,
    without_axis_of_one,
)
from .formats import open_content
from .labels import (
    UNLABELLED,
    clean_labels,
    ignored_values,
    names_for,
    numbered,
)
from .layout import Layout, channels_last
from .raster import require_one_place
from .scene import Scene
from .wavelengths import given_centres

_LARGEST_SCALE = 1e12
"""A scale or offset beyond this, or a scale below its inverse, would turn stored values into infinity or zero."""


def open_scene(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    cube_key: str | None = None,
    labels_key: str | None = None,
    groups_key: str | None = None,
    wavelengths: Sequence[float] | np.ndarray | None = None,
    class_names: Mapping[int, str] | None = None,
    name: str | None = None,
    bands: Sequence[int] | np.ndarray | None = None,
    scale: float | None = None,
    unit: str | None = None,
    nodata: float | None = None,
    ignore: Sequence[int] | int | None = None,
    layout: Layout | None = None,
    unlabelled: int = UNLABELLED,
    on_bad_bands: Literal['error', 'drop', 'keep'] = 'error',
) -> Scene:
    """Open a scene from a file.

    Formats: MATLAB (``.mat``), other HDF5 (``.h5``), NumPy (``.npz``, ``.npy``), ENVI, GeoTIFF, PNG, JPEG, JPEG 2000
    and BMP. ``.npy`` and raw ENVI files are memory-mapped. A 4-D cube is read as tiles (T, h, w, C), a 2-D one as a
    single band if its labels are (H, W), and as spectra (N, C) if they are (N,). Labels may be text: classes are then
    numbered from 1 in sorted order. Metadata is applied: scales, gains and offsets, nodata, masks and alpha bands, bad
    band lists, class names, band centres. A file that can be read in two ways is an error, which names the option to
    set.

    Args:
        path: file of the cube; for ENVI images, the header works too.
        labels: file of the labels, in any of the formats; or the name of a variable in the cube's file; if None, the
            usual names are searched in that file.
        cube_key: variable of the cube; if None, found by name, or as the only array with three dimensions.
        labels_key: variable of the labels in their file.
        groups_key: variable of the groups in the cube's file, numbers or text: one per pixel, per tile (T,) or per
            spectrum (N,).
        wavelengths: band centres in nm (micrometres are recognised); if None, the file's own.
        class_names: class id to name; if None, the file's own.
        name: short name; if None, the file's stem.
        bands: indices of the bands to use, 0-based; if None, all that the file does not mark as bad.
        scale: factor from stored values to values in ``unit``; if None, the file's own scale and offset.
        unit: physical unit; if None, the file's own.
        nodata: stored value that means "no measurement"; if None, the file's own.
        ignore: label values of pixels without a class, besides 0, negative values, NaN and the nodata value of the
            labels' file; if empty, every positive value is a class, even nodata.
        layout: position of the bands in an array, ``'hwc'``, ``'chw'`` or ``'hcw'``; if None, labels and wavelengths
            decide.
        unlabelled: label of pixels without a class; 255 for change masks, where 0 means unchanged.
        on_bad_bands: whether bands that carry no information raise an error, are dropped, or are kept.

    Raises:
        FileNotFoundError: if a file is missing.
        SceneFileError: if a variable is missing or ambiguous, or a file cannot be read or can be read in two ways.
        BadBandsError: if bands carry no information and are not to be dropped.
        ValueError: if labels do not match the cube, or ``class_names`` is not a mapping.
    """
    ignored = ignored_values(ignore, 'open_scene')
    content = open_content(existing(path, 'cube'), 'cube', bands)
    file, facts = content.file, content.facts
    cube_variable = facts.complete(find_cube(content, cube_key), file)
    values, names = _read_labels(content, labels, labels_key, cube_variable, ignored, class_names, unlabelled)
    if 0 in cube_variable.shape:
        raise SceneFileError(f'{file}: the cube has shape {cube_variable.shape}, and so no values')
    cube = cube_variable.read()
    centres = given_centres(wavelengths, 'open_scene')
    known = facts.wavelengths if centres is None else centres
    if cube.ndim == 2:
        cube, values = _flat_cube(cube, values, known, layout, file)
    else:
        cube = without_axis_of_one(cube, (3, 4))
        if not facts.channels_last:
            cube = channels_last(cube, layout, None if values is None else values.shape, known, str(file))
    refuse_doubts(facts, bands=bands, scale=scale, nodata=nodata)
    metadata: dict[str, Any] = {
        'wavelengths': known,
        'wavelengths_approximate': centres is None and facts.nominal,
        'class_names': names,
        'nodata': facts.nodata if nodata is None else nodata,
        'unit': facts.unit if unit is None and scale is None else unit,
        'bands': facts.good_bands if bands is None else np.asarray(bands),
        'measured': facts.measured,
        **scale_and_offset(facts, scale, str(file)),
    }
    if groups_key is not None:
        metadata['groups'] = _read_groups(content, groups_key, cube)
    make = Scene.from_tiles if cube.ndim == 4 else Scene
    scene = make(name or file.stem, cube, values, **metadata)
    return scene if on_bad_bands == 'keep' else scene.checked(on_bad_bands)


def open_library(
    path: str | os.PathLike[str],
    labels_key: str,
    *,
    spectra_key: str | None = None,
    groups_key: str | None = None,
    wavelengths_key: str | None = None,
    good_bands_key: str | None = None,
    name: str | None = None,
    scale: float | None = None,
    unit: str | None = None,
    nodata: float | None = None,
    ignore: Sequence[int] | int | None = None,
    on_bad_bands: Literal['error', 'drop'] = 'error',
) -> Scene:
    """Open a spectral library as a scene one pixel wide.

    Args:
        path: ``.npz``, ``.mat`` or ``.h5`` file.
        labels_key: variable of the labels (N,), text or integers; text classes are numbered from 1 in sorted order.
        spectra_key: variable of the spectra (N, C).
        groups_key: variable of the groups (N,), text or integers.
        wavelengths_key: variable of the band centres.
        good_bands_key: variable (C,) that is nonzero for bands to use, such as ENVI's ``bbl``.
        name: short name; if None, the file's stem.
        scale: as in :func:`open_scene`.
        unit: as in :func:`open_scene`.
        nodata: as in :func:`open_scene`.
        ignore: as in :func:`open_scene`, for labels that are integers.
        on_bad_bands: as in :func:`open_scene`.

    Raises:
        FileNotFoundError: if the file is missing.
        SceneFileError: if a variable is missing or ambiguous, or the file cannot be read.
        BadBandsError: if bands carry no information and are not to be dropped.
        ValueError: if labels, groups or wavelengths do not match the spectra.
    """
    content = open_content(existing(path, 'library'), 'library')

    def column(key: str | None, what: str) -> np.ndarray | None:
        return None if key is None else content.find(key, (), (1, 2), what, f'{what}_key').read().reshape(-1)

    spectra = content.find(spectra_key, CUBE_KEYS, (2,), 'spectra', 'spectra_key')
    flags = column(good_bands_key, 'good_bands')
    return open_scene(
        path,
        cube_key=next(name for name, variable in content.variables.items() if variable is spectra),
        labels_key=labels_key,
        groups_key=groups_key,
        wavelengths=column(wavelengths_key, 'wavelengths'),
        name=name,
        bands=None if flags is None else np.flatnonzero(flags),
        scale=scale,
        unit=unit,
        nodata=nodata,
        ignore=ignore,
        on_bad_bands=on_bad_bands,
    )


def find_cube(content: Content, key: str | None) -> Variable:
    """The variable of the cube: tiles, an image, or a single band if there is nothing else."""
    flat = {name: v for name, v in content.variables.items() if v.ndim == 2 and leaf(name) not in LABEL_KEYS}
    solid = any(v.ndim in (3, 4) and v.numeric for v in content.variables.values())
    if not solid if key is None else content.name(key) in flat:
        with suppress(SceneFileError):  # what the file holds is said below
            return Content(content.file, flat).find(key, CUBE_KEYS, (2,), 'cube', 'cube_key')
    return content.find(key, CUBE_KEYS, (3, 4), 'cube', 'cube_key')


def refuse_doubts(facts: Facts, **options: Any) -> None:
    """Show the notes of a file; raise an error for its ambiguities unless the deciding option is given."""
    for notice in facts.notices:
        warnings.warn(notice, stacklevel=3)
    for option, message in facts.doubts.items():
        if options.get(option) is None:
            raise SceneFileError(message)


def scale_and_offset(facts: Facts, scale: float | None, where: str) -> dict[str, Any]:
    """``scale`` and ``offset`` of a scene: exactly those of the user or, if not given, of the file."""
    if scale is None:
        size, shift = np.abs(np.asarray(facts.scale)), np.abs(np.asarray(facts.offset))
        if not (np.all((size >= 1 / _LARGEST_SCALE) & (size <= _LARGEST_SCALE)) and np.all(shift <= _LARGEST_SCALE)):
            raise SceneFileError(
                f'{where} says that values are to be scaled by {facts.scale} and shifted by {facts.offset}, which no '
                'sensor does; give scale'
            )
        return {'scale': facts.scale, 'offset': facts.offset}
    if (scale := check_value(where, 'scale', scale, float, ANY)) == 0:
        raise ValueError(f'{where}: a scale of 0 makes all values one; give another')
    plain = np.all(np.asarray(facts.scale) == 1) and np.all(np.asarray(facts.offset) == 0)
    if not plain and not (np.allclose(facts.scale, scale) and np.all(np.asarray(facts.offset) == 0)):
        warnings.warn(
            f'{where}: scale {scale:g} is used as given; the scale {facts.scale} and offset {facts.offset} of the file '
            'are not',
            stacklevel=3,
        )
    return {'scale': scale, 'offset': 0.0}


def _flat_cube(
    cube: np.ndarray, labels: np.ndarray | None, wavelengths: np.ndarray | None, layout: Layout | None, file: Path
) -> tuple[np.ndarray, np.ndarray | None]:
    """A 2-D array as (H, W, 1), or spectra (N, C) as (N, 1, C); labels, wavelengths or ``layout`` decide."""
    if labels is not None:
        if labels.ndim == 1 or (labels.shape != cube.shape and 1 in labels.shape):
            return cube[:, None, :], labels.reshape(-1, 1)
        return cube[:, :, None], labels
    if wavelengths is not None and len(wavelengths) == cube.shape[1] > 1:
        return cube[:, None, :], None
    if layout is not None:
        return cube[:, :, None], None
    raise SceneFileError(
        f'{file}: an array of shape {cube.shape} may be one band (H, W), or {cube.shape[0]} spectra of {cube.shape[1]} '
        "bands, and nothing in the file says which; give layout='hwc' for a band, wavelengths or labels for spectra, "
        'or save a band as (H, W, 1), spectra as (N, 1, bands)'
    )


# --- labels: integers or text, in the file of the cube or in another -------------------------------------------------


def _read_labels(
    content: Content,
    labels: str | os.PathLike[str] | None,
    key: str | None,
    cube: Variable,
    ignore: Sequence[float] | None,
    class_names: Mapping[int, str] | None = None,
    unlabelled: int = UNLABELLED,
) -> tuple[np.ndarray | None, Mapping[int, str]]:
    """Labels (H, W), (T, h, w) or (N,) of their file, None if nothing is labelled, and names of their classes."""
    dimensions, source, nodata = {2: (1, 2), 4: (3,)}.get(cube.ndim, (2,)), content, None
    if labels is not None and not as_path(labels, 'labels').is_file() and content.name(str(labels)) is not None:
        labels, key = None, str(labels)
    if labels is not None:
        if not Path(labels).exists() and Path(labels).name == str(labels):  # may be the name of a variable
            raise FileNotFoundError(
                f'labels {str(labels)!r} are neither a file nor a variable of {content.file}, which holds: '
                f'{sorted(content.variables)}'
            )
        source = open_content(existing(labels, 'labels'), 'labels')
        require_one_place(content, source)
        nodata = source.facts.nodata
    elif key is None and (key := _usual_labels(content, cube)) is None:
        return None, names_for(None, content.facts.class_names) if class_names is None else class_names
    variable = source.find(key, LABEL_KEYS, dimensions, 'labels', 'labels_key', NUMERIC + 'US')
    values = without_axis_of_one(variable.read(), dimensions)
    if values.dtype.kind in 'US':
        with suppress(ValueError):  # whole numbers are no names
            values = values.astype(np.int64)
    if values.dtype.kind in 'US':
        found, names = numbered(values)
    else:
        names = names_for(values, source.facts.class_names) or names_for(values, content.facts.class_names)
        nodata = variable.fill if nodata is None else nodata
        found = clean_labels(values, f'{source.file}: labels', nodata, ignore, class_names or names, unlabelled)
        if source is not content and source.facts.measured is not None and source.facts.measured.shape == found.shape:
            found = np.where(source.facts.measured, found, found.dtype.type(unlabelled))
    return found, names if class_names is None else class_names


def _read_groups(content: Content, key: str, cube: np.ndarray) -> np.ndarray:
    """Groups of the pixels (H, W) or of the tiles (T,) of a cube; text is numbered."""
    of_each = cube.ndim == 4 or cube.shape[1] == 1  # a tile, a spectrum
    groups = content.find(key, (), (1, 2) if of_each else (2,), 'groups', 'groups_key', NUMERIC + 'US').read()
    if groups.dtype.kind in 'US':
        groups = np.unique(groups, return_inverse=True)[1].reshape(groups.shape)
    if cube.ndim == 4:
        return groups.reshape(-1)
    return groups.reshape(cube.shape[:2]) if of_each and groups.size == len(cube) else without_axis_of_one(groups, (2,))


def _usual_labels(content: Content, cube: Variable) -> str | None:
    """Name of the label variable in the file of the cube; None, with a warning of candidates, if there is none."""
    sides = cube.shape
    pixels = {sides, sides[:1], (*sides[:1], 1), (1, *sides[:1])}  # of a band, or of spectra
    if cube.ndim > 2:  # whichever of the last three axes holds the bands
        pixels = {(*sides[:axis], *sides[axis + 1 :]) for axis in range(cube.ndim - 3, cube.ndim)}

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
        # Text of another shape is a list of names; y may be a coordinate, and a mask one of valid values.
        sure = leaf(name) not in ('target', 'y', 'mask') and kind in NUMERIC
        if sure or (fits and kind in NUMERIC + 'US'):
            return name
    group = next(name for name, v in content.variables.items() if v is cube).rpartition('/')[0]
    near = {n: v for n, v in others.items() if v.dtype.kind in NUMERIC and n.rpartition('/')[0] == group}
    left = [n for n, v in near.items() if v.ndim >= min(2, cube.ndim - 1) and (one_each(v) or n in named)]
    if left:
        found = ', '.join(f'{name} {others[name].shape}' for name in left)
        warnings.warn(
            f'{content.file}: no labels are read; if any of {found} holds them, say so: labels_key={left[0]!r}',
            stacklevel=4,
        )
    return None
