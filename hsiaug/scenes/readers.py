"""Readers: a file of a known format to a :class:`Scene`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import rasterio
import scipy.io

from .scene import Scene

CUBE_KEYS = ('cube', 'image', 'images', 'tiles', 'spectra', 'data')
LABEL_KEYS = ('gt', 'labels', 'label', 'mask', 'gt_majority')
WAVELENGTH_KEYS = ('wavelength_nm', 'wavelengths', 'wavelength', 'wavelength_um')
_MICROMETRES_BELOW = 100.0  # no sensor has band centres below 100 nm

OnBadBands = Literal['error', 'drop']


class SceneFileError(ValueError):
    """A file that does not hold what was asked for."""


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
    scale: float = 1.0,
    unit: str | None = None,
    nodata: float | None = None,
    on_bad_bands: OnBadBands = 'error',
) -> Scene:
    """Open a scene from a file.

    MATLAB v5 and v7.3 (``.mat``), NumPy (``.npz``, ``.npy``), ENVI and GeoTIFF, and whatever else rasterio reads.
    ``.npy`` and raw ENVI files are memory-mapped. A 4-D cube is read as tiles (T, h, w, C).

    Args:
        path: file of the cube.
        labels: file of the labels, in any of the formats; or the name of a variable in the cube's own file; None
            looks for the usual names in that file.
        cube_key: variable of the cube; found by name, or as the only array of three dimensions, if None.
        labels_key: variable of the labels, in the labels' file.
        groups_key: variable of the groups, in the cube's file.
        wavelengths: band centres in nm (micrometres are recognised); the file's own if None.
        class_names: class id to name; the file's own if None.
        name: short name; the file's stem if None.
        bands: indices of the bands to use, 0-based.
        scale: stored value times ``scale`` is the value in ``unit``; the file's own ``scale`` if left at 1.
        unit: physical unit.
        nodata: stored value that means "no measurement"; the file's own if None.
        on_bad_bands: refuse or drop bands that carry no information.

    Raises:
        FileNotFoundError: if a file is missing.
        SceneFileError: if a variable is missing or ambiguous, or a file cannot be read.
        BadBandsError: if bands carry no information and are not to be dropped.
        ValueError: if labels do not fit the cube.
    """
    file = _existing(path, 'cube')
    content = _read(file, 'cube')
    cube_name = _find(file, content, cube_key, CUBE_KEYS, (3, 4), 'cube', 'cube_key')
    cube = content[cube_name]
    label_array = _labels(file, content, labels, labels_key, cube)
    metadata: dict[str, Any] = {
        'wavelengths': _nanometres(wavelengths if wavelengths is not None else _first(content, WAVELENGTH_KEYS)),
        'class_names': dict(class_names) if class_names is not None else _class_names(content.get('class_names')),
        'scale': _scalar(content, 'scale', 1.0) if scale == 1.0 else scale,
        'nodata': _scalar(content, 'nodata', None) if nodata is None else nodata,
        'unit': unit,
        'bands': None if bands is None else np.asarray(bands),
    }
    name = name or file.stem
    if cube.ndim == 4:
        scene = Scene.from_tiles(name, cube, label_array, **metadata)
    else:
        groups = None
        if groups_key is not None:
            groups = content[_find(file, content, groups_key, (), (2,), 'groups', 'groups_key')]
        scene = Scene(name, cube, label_array, groups=groups, **metadata)
    return scene.checked(on_bad_bands)


def open_library(
    path: str | os.PathLike[str],
    labels_key: str,
    *,
    spectra_key: str | None = None,
    groups_key: str | None = None,
    wavelengths_key: str | None = None,
    good_bands_key: str | None = None,
    name: str | None = None,
    scale: float = 1.0,
    unit: str | None = None,
    nodata: float | None = None,
    on_bad_bands: OnBadBands = 'error',
) -> Scene:
    """Open a spectral library as a scene one pixel wide.

    Args:
        path: ``.npz`` or ``.mat`` file.
        labels_key: variable of the labels (N,), text or integers; text classes are numbered from 1 in sorted order.
        spectra_key: variable of the spectra (N, C).
        groups_key: variable of the groups (N,), text or integers.
        wavelengths_key: variable of the band centres.
        good_bands_key: variable (C,) that is nonzero for bands to use, such as ENVI's ``bbl``.
        name: short name; the file's stem if None.
        scale: as in :func:`open_scene`.
        unit: as in :func:`open_scene`.
        nodata: as in :func:`open_scene`.
        on_bad_bands: as in :func:`open_scene`.

    Raises:
        FileNotFoundError: if the file is missing.
        SceneFileError: if a variable is missing or ambiguous, or the file cannot be read.
        BadBandsError: if bands carry no information and are not to be dropped.
        ValueError: if labels, groups or wavelengths do not fit the spectra.
    """
    file = _existing(path, 'library')
    content = _read(file, 'library')
    spectra = content[_find(file, content, spectra_key, CUBE_KEYS, (2,), 'spectra', 'spectra_key')]
    chosen = {
        what: content[_find(file, content, key, (), (1, 2), what, f'{what}_key')].reshape(-1) if key else None
        for what, key in (
            ('labels', labels_key),
            ('groups', groups_key),
            ('wavelengths', wavelengths_key),
            ('good_bands', good_bands_key),
        )
    }
    labels, class_names = chosen['labels'], _class_names(content.get('class_names'))
    assert labels is not None
    if labels.dtype.kind in 'US':
        names, numbers = np.unique(labels, return_inverse=True)
        labels, class_names = numbers.reshape(-1) + 1, {i + 1: str(n) for i, n in enumerate(names)}
    groups = None if chosen['groups'] is None else np.unique(chosen['groups'], return_inverse=True)[1].reshape(-1)
    wavelengths = chosen['wavelengths'] if wavelengths_key else _first(content, WAVELENGTH_KEYS)
    return Scene.from_spectra(
        name or file.stem,
        spectra,
        labels,
        groups,
        class_names=class_names,
        wavelengths=_nanometres(wavelengths),
        bands=None if chosen['good_bands'] is None else np.flatnonzero(chosen['good_bands']),
        scale=_scalar(content, 'scale', 1.0) if scale == 1.0 else scale,
        unit=unit,
        nodata=_scalar(content, 'nodata', None) if nodata is None else nodata,
    ).checked(on_bad_bands)


def _existing(path: str | os.PathLike[str], what: str) -> Path:
    file = Path(path)
    if not file.is_file():
        beside = sorted(p.name for p in file.parent.iterdir())[:8] if file.parent.is_dir() else 'no such folder'
        raise FileNotFoundError(f'{what} file {file} does not exist; in {file.parent}: {beside}')
    return file


def _read(file: Path, what: str) -> dict[str, np.ndarray]:
    """All arrays of a file by name; a single image is called ``cube``."""
    suffix = file.suffix.lower()
    try:
        if suffix == '.npz':
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        if suffix == '.npy':
            return {'cube': np.load(file, mmap_mode='r', allow_pickle=False)}
        if suffix == '.mat':
            return _read_mat(file)
        return _read_raster(file)
    except MemoryError:
        raise
    except Exception as error:  # what a parser raises on a torn or foreign file is anybody's guess
        raise SceneFileError(
            f'{what} file {file} cannot be read as {suffix or "a raster"}: {error}. Is it complete, and of that '
            'format? Arrays of Python objects are never read'
        ) from error


def _read_mat(file: Path) -> dict[str, np.ndarray]:
    if h5py.is_hdf5(file):  # MATLAB v7.3; its arrays come with their axes reversed
        with h5py.File(file, 'r') as archive:
            arrays = {k: v for k, v in archive.items() if isinstance(v, h5py.Dataset) and v.dtype.kind in 'biuf'}
            return {key: np.transpose(value[()]) for key, value in arrays.items()}
    loaded = scipy.io.loadmat(file)
    return {k: v for k, v in loaded.items() if isinstance(v, np.ndarray) and v.dtype.kind in 'biufU'}


def _read_raster(file: Path) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        # A cube without map coordinates is as good as one with them here.
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        source = rasterio.open(file)
    with source:
        content: dict[str, np.ndarray] = {}
        if source.nodata is not None:
            content['nodata'] = np.array(source.nodata)
        tags = [source.tags(i + 1) for i in range(source.count)]
        header = source.tags(ns='ENVI')
        text = header.get('wavelength') or header.get('wavelength_nm')
        centres = [float(t['wavelength']) for t in tags if 'wavelength' in t]
        if text:
            centres = [float(v) for v in text.strip('{}').split(',')]
        if len(centres) == source.count and source.count > 1:
            content['wavelength_nm'] = np.array(centres)
        cube = _map_envi(file, header, source) if source.driver == 'ENVI' else None
        if cube is None:
            cube = np.moveaxis(source.read(), 0, 2)
        content['cube'] = cube if cube.shape[2] > 1 else cube[:, :, 0]
        return content


def _map_envi(file: Path, header: Mapping[str, str], source: Any) -> np.ndarray | None:
    """(H, W, C) view of a raw ENVI file's memory map; None where the file is not plain.

    Raises:
        ValueError: if the file is shorter than its header says; GDAL would fill it up with zeros.
    """
    dtype = np.dtype(source.dtypes[0])
    dtype = dtype.newbyteorder('>' if header.get('byte_order', '0').strip() == '1' else '<')
    offset = int(header.get('header_offset', '0') or 0)
    height, width, channels = source.height, source.width, source.count
    if header.get('file_compression', '0').strip() != '0':
        return None
    found, expected = file.stat().st_size, offset + height * width * channels * dtype.itemsize
    if found < expected:
        raise ValueError(
            f'{found} bytes, but its header describes {expected}: {height} lines x {width} samples x {channels} bands '
            f'of {dtype.name} after {offset} bytes'
        )
    layouts: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
        'bsq': ((channels, height, width), (1, 2, 0)),
        'bil': ((height, channels, width), (0, 2, 1)),
        'bip': ((height, width, channels), (0, 1, 2)),
    }
    layout = layouts.get(header.get('interleave', '').strip().lower())
    if layout is None:
        return None
    shape, order = layout
    return np.memmap(file, dtype, 'r', offset, shape).transpose(order)


def _find(
    file: Path,
    content: Mapping[str, np.ndarray],
    key: str | None,
    usual: Sequence[str],
    dimensions: tuple[int, ...],
    what: str,
    argument: str,
) -> str:
    """Name of the variable that holds ``what``."""
    found = ', '.join(f'{k} {v.shape}' for k, v in content.items()) or 'nothing'
    shape = ' or '.join(f'{d}-D' for d in dimensions)
    if key is not None:
        if key not in content:
            raise SceneFileError(f'{file} holds no {key!r} for the {what}; it holds: {found}. Name one with {argument}')
        if content[key].ndim not in dimensions:
            raise SceneFileError(f'{file}: {what} {key!r} must be {shape}, found shape {content[key].shape}')
        return key
    fitting = [k for k, v in content.items() if v.ndim in dimensions and v.dtype.kind in 'biuf']
    named = [k for k in usual if k in fitting]
    candidates = named or fitting
    if len(candidates) != 1:
        raise SceneFileError(
            f'{file}: {len(candidates)} arrays could be the {what} ({shape}); it holds: {found}. '
            f'Name one with {argument}'
        )
    return candidates[0]


def _labels(
    file: Path,
    content: Mapping[str, np.ndarray],
    labels: str | os.PathLike[str] | None,
    key: str | None,
    cube: np.ndarray,
) -> np.ndarray | None:
    dimensions = (3,) if cube.ndim == 4 else (2,)
    if labels is not None and not Path(labels).is_file() and str(labels) in content:
        labels, key = None, str(labels)
    if labels is not None:
        if not Path(labels).is_file() and Path(labels).name == str(labels):  # may be meant as a variable
            raise FileNotFoundError(
                f'labels {str(labels)!r} are neither a file nor a variable of {file}, which holds: {sorted(content)}'
            )
        source = _existing(labels, 'labels')
        content = _read(source, 'labels')
        return content[_find(source, content, key, LABEL_KEYS, dimensions, 'labels', 'labels_key')]
    if key is None:
        # Text under a usual name is a list of names, not a map.
        key = next((k for k in LABEL_KEYS if k in content and content[k].dtype.kind in 'biuf'), None)
    return None if key is None else content[_find(file, content, key, (), dimensions, 'labels', 'labels_key')]


def _first(content: Mapping[str, np.ndarray], keys: Sequence[str]) -> np.ndarray | None:
    return next((content[k].reshape(-1) for k in keys if k in content), None)


def _scalar(content: Mapping[str, np.ndarray], key: str, default: float | None) -> Any:
    """A number that the file holds under ``key``; libraries also use such names for columns of text."""
    value = content.get(key)
    return default if value is None or value.size != 1 or value.dtype.kind not in 'biuf' else float(value.item())


def _nanometres(wavelengths: Sequence[float] | np.ndarray | None) -> np.ndarray | None:
    if wavelengths is None:
        return None
    values = np.asarray(wavelengths, dtype=np.float64).reshape(-1)
    return values * 1000 if values.size and values.max() < _MICROMETRES_BELOW else values


def _class_names(names: np.ndarray | None) -> dict[int, str]:
    """Names in an array whose position is the class id, 0 the unlabelled."""
    return {} if names is None else {i: str(n).strip() for i, n in enumerate(names.reshape(-1)) if i > 0}
