"""Readers: a file of a known format to a :class:`Scene`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from .envi import data_file
from .files import (
    CUBE_KEYS,
    LABEL_KEYS,
    Content,
    Facts,
    SceneFileError,
    Variable,
    existing,
    reading,
    without_axis_of_one,
)
from .labels import UNLABELLED, class_names_of, clean_labels, without_ignored
from .layout import Layout, channels_last
from .matlab import open_hdf5, open_mat
from .numpy_files import open_npy, open_npz
from .raster import open_raster
from .scene import Scene
from .wavelengths import to_nanometres

WAVELENGTH_KEYS = {'wavelength_nm': 'nm', 'wavelengths': None, 'wavelength': None, 'wavelength_um': 'um'}
"""Usual names of band centres, with their unit where the name says it."""

OnBadBands = Literal['error', 'drop']
_LARGEST_SCALE = 1e12
"""A scale or offset beyond this, or a scale below its inverse, would make infinity or zero of stored values."""


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
    ignore: Sequence[int] | None = None,
    layout: Layout | None = None,
    on_bad_bands: OnBadBands = 'error',
) -> Scene:
    """Open a scene from a file.

    MATLAB (``.mat``), other HDF5 (``.h5``), NumPy (``.npz``, ``.npy``), ENVI, GeoTIFF, PNG, JPEG, JPEG 2000 and BMP.
    ``.npy`` and raw ENVI files are memory-mapped. A 4-D cube is read as tiles (T, h, w, C). What files say beyond their
    values is applied: scales, gains and offsets, nodata, masks and alpha bands, bad band lists, class names, band
    centres. What can be read in two ways is an error that names the option that decides.

    Args:
        path: file of the cube; of ENVI images the header will do.
        labels: file of the labels, in any of the formats; or the name of a variable in the cube's own file; None
            looks for the usual names in that file.
        cube_key: variable of the cube; found by name, or as the only array of three dimensions, if None.
        labels_key: variable of the labels, in the labels' file.
        groups_key: variable of the groups, in the cube's file.
        wavelengths: band centres in nm (micrometres are recognised); the file's own if None.
        class_names: class id to name; the file's own if None.
        name: short name; the file's stem if None.
        bands: indices of the bands to use, 0-based; those that the file does not mark as bad if None.
        scale: stored value times ``scale`` is the value in ``unit``; the file's own scale and offset if None.
        unit: physical unit; the file's own if None.
        nodata: stored value that means "no measurement"; the file's own if None.
        ignore: label values of pixels without a class, beside 0, negative ones, NaN and the nodata value of the labels'
            file; an empty one makes every positive value a class, nodata too.
        layout: ``'hwc'`` or ``'chw'``, where the bands are in an array; decided by labels and wavelengths if None.
        on_bad_bands: refuse or drop bands that carry no information.

    Raises:
        FileNotFoundError: if a file is missing.
        SceneFileError: if a variable is missing or ambiguous, a file cannot be read, or can be read in two ways.
        BadBandsError: if bands carry no information and are not to be dropped.
        ValueError: if labels do not fit the cube.
    """
    return read_scene(
        path, labels, cube_key=cube_key, labels_key=labels_key, groups_key=groups_key, wavelengths=wavelengths,
        class_names=class_names, name=name, bands=bands, scale=scale, unit=unit, nodata=nodata, ignore=ignore,
        layout=layout,
    ).checked(on_bad_bands)  # fmt: skip


def read_scene(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None,
    *,
    cube_key: str | None,
    labels_key: str | None,
    groups_key: str | None = None,
    wavelengths: Sequence[float] | np.ndarray | None = None,
    class_names: Mapping[int, str] | None = None,
    name: str | None = None,
    bands: Sequence[int] | np.ndarray | None = None,
    scale: float | None = None,
    unit: str | None = None,
    nodata: float | None = None,
    ignore: Sequence[int] | None = None,
    layout: Layout | None = None,
    unlabelled: int = UNLABELLED,
) -> Scene:
    """A scene whose bands are not checked yet; see :func:`open_scene` for what it takes.

    ``unlabelled`` is the label of pixels without a class: change masks have 255, since 0 is unchanged.
    """
    content = open_content(existing(path, 'cube'), 'cube', bands)
    file, facts = content.file, content.facts
    cube_variable = find_cube(content, cube_key)
    found = _labels(content, labels, labels_key, cube_variable, nodata, ignore, class_names, unlabelled)
    cube = without_axis_of_one(cube_variable.read(), (3, 4)) if cube_variable.ndim > 2 else cube_variable.read()
    cube = cube[:, :, None] if cube.ndim == 2 else cube
    centres = None if wavelengths is None else _given_wavelengths(wavelengths)
    if not facts.channels_last:
        known = facts.wavelengths if centres is None else centres
        cube = channels_last(cube, layout, None if found is None else found.values.shape, known, str(file))
    refuse_doubts(facts, bands=bands, scale=scale, nodata=nodata)
    metadata: dict[str, Any] = {
        'wavelengths': facts.wavelengths if centres is None else centres,
        'class_names': (facts.class_names if found is None else found.names) if class_names is None else class_names,
        'nodata': facts.nodata if nodata is None else nodata,
        'unit': facts.unit if unit is None and scale is None else unit,
        'bands': facts.good_bands if bands is None else np.asarray(bands),
        'measured': facts.measured,
        **scale_and_offset(facts, scale, str(file)),
    }
    metadata['class_names'] = without_ignored(metadata['class_names'], ignore)
    name, values = name or file.stem, None if found is None else found.values
    if cube.ndim == 4:
        return Scene.from_tiles(name, cube, values, **metadata)
    groups = None
    if groups_key is not None:
        groups = without_axis_of_one(content.find(groups_key, (), (2,), 'groups', 'groups_key').read(), (2,))
    return Scene(name, cube, values, groups=groups, **metadata)


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
    ignore: Sequence[int] | None = None,
    on_bad_bands: OnBadBands = 'error',
) -> Scene:
    """Open a spectral library as a scene one pixel wide.

    Args:
        path: ``.npz``, ``.mat`` or ``.h5`` file.
        labels_key: variable of the labels (N,), text or integers; text classes are numbered from 1 in sorted order.
        spectra_key: variable of the spectra (N, C).
        groups_key: variable of the groups (N,), text or integers.
        wavelengths_key: variable of the band centres.
        good_bands_key: variable (C,) that is nonzero for bands to use, such as ENVI's ``bbl``.
        name: short name; the file's stem if None.
        scale: as in :func:`open_scene`.
        unit: as in :func:`open_scene`.
        nodata: as in :func:`open_scene`.
        ignore: as in :func:`open_scene`, for labels that are integers.
        on_bad_bands: as in :func:`open_scene`.

    Raises:
        FileNotFoundError: if the file is missing.
        SceneFileError: if a variable is missing or ambiguous, or the file cannot be read.
        BadBandsError: if bands carry no information and are not to be dropped.
        ValueError: if labels, groups or wavelengths do not fit the spectra.
    """
    content = open_content(existing(path, 'library'), 'library')
    file, facts = content.file, content.facts
    spectra = content.find(spectra_key, CUBE_KEYS, (2,), 'spectra', 'spectra_key').read()

    def column(key: str, what: str) -> np.ndarray:
        return content.find(key, (), (1, 2), what, f'{what}_key').read().reshape(-1)

    labels, class_names = column(labels_key, 'labels'), facts.class_names
    if labels.dtype.kind in 'US':
        names, numbers = np.unique(labels, return_inverse=True)
        labels, class_names = numbers.reshape(-1) + 1, {i + 1: str(n) for i, n in enumerate(names)}
    else:
        labels = clean_labels(labels, f'{file}: labels', None, ignore, class_names)
    groups = None if groups_key is None else np.unique(column(groups_key, 'groups'), return_inverse=True)[1].reshape(-1)
    centres = facts.wavelengths if wavelengths_key is None else to_nanometres(column(wavelengths_key, 'wavelengths'))
    return Scene.from_spectra(
        name or file.stem,
        spectra,
        labels,
        groups,
        class_names=without_ignored(class_names, ignore),
        wavelengths=centres,
        bands=None if good_bands_key is None else np.flatnonzero(column(good_bands_key, 'good_bands')),
        unit=unit,
        nodata=facts.nodata if nodata is None else nodata,
        **scale_and_offset(facts, scale, str(file)),
    ).checked(on_bad_bands)


def open_content(file: Path, what: str, bands: Sequence[int] | np.ndarray | None = None) -> Content:
    """The variables and facts of a file of any known format; of values it reads what the facts need.

    Args:
        file: exists.
        what: it is, for messages.
        bands: in use, if the user says so.

    Raises:
        SceneFileError: if it cannot be read.
    """
    suffix = file.suffix.lower()
    if suffix == '.hdr':
        file = data_file(file)
        suffix = file.suffix.lower()
    where = f'{what} file {file} cannot be read as {suffix or "a raster"}'
    if suffix == '.sli':
        raise SceneFileError(
            f'{where}: ENVI spectral libraries are not read; save spectra (N, C), labels (N,) and wavelengths as .npz'
        )
    with reading(where):
        if suffix == '.npy':
            content = open_npy(file, where)
        elif suffix == '.npz':
            content = open_npz(file, where)
        elif suffix in ('.mat', '.h5', '.hdf5', '.hdf', '.he5'):
            hdf5 = suffix != '.mat' or h5py.is_hdf5(file)
            content = open_hdf5(file, where) if hdf5 else open_mat(file, where)
        else:
            return open_raster(file, where, bands)
        content.facts = _facts_of_variables(content)
    return content


def find_cube(content: Content, key: str | None, argument: str = 'cube_key', what: str = 'cube') -> Variable:
    """The variable of the cube: tiles, an image, or a single band where a file holds no more.

    Raises:
        SceneFileError: if it is missing or ambiguous.
    """
    solid = any(v.ndim in (3, 4) and v.numeric for v in content.variables.values())
    if key is not None:
        solid = (name := content.name(key)) is None or content.variables[name].ndim != 2
    if solid:
        return content.find(key, CUBE_KEYS, (3, 4), what, argument)
    flat = {n: v for n, v in content.variables.items() if n.rsplit('/', 1)[-1] not in LABEL_KEYS and v.ndim == 2}
    single = Content(content.file, flat, content.facts, content.unread)
    try:
        return single.find(key, CUBE_KEYS, (2,), what, argument)
    except SceneFileError:
        return content.find(key, CUBE_KEYS, (3, 4), what, argument)


def refuse_doubts(facts: Facts, **options: Any) -> None:
    """Say what a file notes; an error for what it leaves open, unless the option that decides it is given.

    Raises:
        SceneFileError: naming both readings and the option.
    """
    for notice in facts.notices:
        warnings.warn(notice, stacklevel=4)
    for option, message in facts.doubts.items():
        if options.get(option) is None:
            raise SceneFileError(message)


def scale_and_offset(facts: Facts, scale: float | None, where: str) -> dict[str, Any]:
    """``scale`` and ``offset`` of a scene: exactly what the user says, or what the file does."""
    if scale is None:
        size, shift = np.abs(np.asarray(facts.scale)), np.abs(np.asarray(facts.offset))
        if not (np.all((size >= 1 / _LARGEST_SCALE) & (size <= _LARGEST_SCALE)) and np.all(shift <= _LARGEST_SCALE)):
            raise SceneFileError(
                f'{where} says that values are to be scaled by {facts.scale} and shifted by {facts.offset}, which no '
                'sensor does; give scale'
            )
        return {'scale': facts.scale, 'offset': facts.offset}
    plain = np.all(np.asarray(facts.scale) == 1) and np.all(np.asarray(facts.offset) == 0)
    if not plain and not (np.allclose(facts.scale, scale) and np.all(np.asarray(facts.offset) == 0)):
        warnings.warn(
            f'{where}: scale {scale:g} is used as given; the scale {facts.scale} and offset {facts.offset} of the file '
            'are not',
            stacklevel=4,
        )
    return {'scale': scale, 'offset': 0.0}


@dataclass(frozen=True)
class _Labels:
    values: np.ndarray
    names: Mapping[int, str]


def _labels(
    content: Content,
    labels: str | os.PathLike[str] | None,
    key: str | None,
    cube: Variable,
    nodata: float | None,
    ignore: Sequence[int] | None,
    class_names: Mapping[int, str] | None,
    unlabelled: int,
) -> _Labels | None:
    """The labels and the class names of their file; None where nothing is labelled."""
    dimensions = (3,) if cube.ndim == 4 else (2,)
    if labels is not None and not Path(labels).is_file() and content.name(str(labels)) is not None:
        labels, key = None, str(labels)
    if labels is not None:
        if not Path(labels).is_file() and Path(labels).name == str(labels):  # may be meant as a variable
            raise FileNotFoundError(
                f'labels {str(labels)!r} are neither a file nor a variable of {content.file}, which holds: '
                f'{sorted(content.variables)}'
            )
        source = open_content(existing(labels, 'labels'), 'labels')
        return _clean(source, source.find(key, LABEL_KEYS, dimensions, 'labels', 'labels_key'), source.facts.nodata,
                      dimensions, ignore, class_names or source.facts.class_names, content, unlabelled)  # fmt: skip
    if key is None:
        # Text under a usual name is a list of names, not a map.
        key = next(
            (n for use in LABEL_KEYS for n, v in content.variables.items() if n.split('/')[-1] == use and v.numeric),
            None,
        )
    if key is None:
        return None
    found = content.find(key, (), dimensions, 'labels', 'labels_key')
    return _clean(
        content, found, None, dimensions, ignore, class_names or content.facts.class_names, content, unlabelled
    )


def _clean(
    source: Content,
    variable: Variable,
    nodata: float | None,
    dimensions: tuple[int, ...],
    ignore: Sequence[int] | None,
    names: Mapping[int, str],
    cube: Content,
    unlabelled: int,
) -> _Labels:
    values = without_axis_of_one(variable.read(), dimensions)
    where = f'{source.file}: labels'
    labels = clean_labels(values, where, nodata, ignore, names, unlabelled)
    if source is not cube and source.facts.measured is not None and source.facts.measured.shape == labels.shape:
        labels = np.where(source.facts.measured, labels, labels.dtype.type(unlabelled))
    return _Labels(labels, names or cube.facts.class_names)


def _facts_of_variables(content: Content) -> Facts:
    """What variables of the usual names say."""
    facts = Facts(class_names=_class_names(content))
    for key, unit in WAVELENGTH_KEYS.items():
        name = content.name(key) or next((n for n in content.variables if n.endswith(f'/{key}')), None)
        if name is not None and content.variables[name].numeric:
            facts.wavelengths = to_nanometres(content.variables[name].read(), unit or _text(content, 'units'))
            break
    facts.scale = _scalar(content, 'scale', 1.0) or 1.0
    facts.nodata = _scalar(content, 'nodata', None)
    good = content.variables.get('bbl')
    if good is not None and good.numeric and sum(side > 1 for side in good.shape) == 1:
        facts.good_bands = np.flatnonzero(good.read().reshape(-1))
    return facts


def _scalar(content: Content, key: str, default: float | None) -> Any:
    """A number that the file holds under ``key``; libraries also use such names for columns of text."""
    variable = content.variables.get(key)
    if variable is None or np.prod(variable.shape) != 1 or not variable.numeric:
        return default
    return variable.read().item()


def _text(content: Content, kind: str) -> str | None:
    """The unit of the wavelengths, where a variable says it."""
    variable = next((content.variables[k] for k in (f'wavelength_{kind}', f'wavelengths_{kind}')
                     if k in content.variables), None)  # fmt: skip
    if variable is None or np.prod(variable.shape) != 1 or variable.dtype.kind not in 'US':
        return None
    return str(variable.read().reshape(-1)[0])


def _class_names(content: Content) -> dict[int, str]:
    variable = content.variables.get('class_names')
    return {} if variable is None or variable.dtype.kind not in 'US' else class_names_of(variable.read())


def _given_wavelengths(wavelengths: Sequence[float] | np.ndarray) -> np.ndarray:
    centres = to_nanometres(wavelengths, None)
    if centres is None:
        raise ValueError(f'wavelengths must be band centres in nm, positive and no indices, found {wavelengths}')
    return centres
