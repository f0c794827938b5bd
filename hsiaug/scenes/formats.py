"""Opening files of any known format: variables and metadata."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.lib.format import read_magic

from .files import NUMERIC, Content, Facts, SceneFileError, Variable, leaf, reading
from .labels import class_names_of
from .matlab import open_hdf5, open_mat
from .raster import data_file, open_raster
from .wavelengths import to_nanometres

ARRAY_SUFFIXES = ('.npy', '.npz', '.mat', '.h5', '.hdf5', '.hdf', '.he5', '.nc', '.nc4')
"""Of files of arrays by name; all others are rasters."""
WAVELENGTH_KEYS = {'wavelength_nm': 'nm', 'wavelengths': None, 'wavelength': None, 'wavelength_um': 'um'}
"""Usual names of band centres, with the unit if the name implies it."""


def open_content(file: Path, what: str, bands: Sequence[int] | np.ndarray | None = None) -> Content:
    """Variables and facts of a file of any known format; reads only values that are needed for the facts."""
    suffix = file.suffix.lower()
    if what in ('labels', 'mask') and suffix in ('.jpg', '.jpeg'):
        raise SceneFileError(f'{what} file {file}: JPEG changes values, and so classes; save it as PNG or GeoTIFF')
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
            content = _open_npy(file, where)
        elif suffix == '.npz':
            content = _open_npz(file, where)
        elif suffix in ARRAY_SUFFIXES:
            hdf5 = suffix != '.mat' or h5py.is_hdf5(file)
            with file.open('rb') as stream:
                if stream.read(3) == b'CDF':
                    raise SceneFileError(
                        f'{where}: NetCDF is read from version 4 on; convert it with nccopy -k nc4, or save it anew'
                    )
            content = open_hdf5(file, where) if hdf5 else open_mat(file, where)
        else:
            return open_raster(file, where, bands)
        content.facts = _facts_of_variables(content)
    return content


def _facts_of_variables(content: Content) -> Facts:
    """Facts from variables of the usual names."""
    facts, names = Facts(), content.variables.get('class_names')
    if names is not None and names.dtype.kind in 'US':
        facts.class_names = class_names_of(names.read())
    for key, unit in WAVELENGTH_KEYS.items():
        name = content.name(key) or next((name for name in content.variables if leaf(name) == key), None)
        if name is None or (variable := content.variables[name]).dtype.kind not in NUMERIC + 'U':
            continue
        values, unit = variable.read().reshape(-1), unit or variable.unit
        beside = [content.variables[n] for n in ('wavelength_units', 'wavelengths_units') if n in content.variables]
        if not unit and beside and np.prod(beside[0].shape) == 1 and beside[0].dtype.kind in 'US':
            unit = str(beside[0].read().reshape(-1)[0])
        facts.wavelengths = to_nanometres(values, unit)
        break
    if factor := _scalar(content, 'scale', None):
        facts.scale, facts.offset = factor, _scalar(content, 'offset', 0.0)
    elif (many := content.variables.get('scale')) is not None and many.numeric and np.prod(many.shape) > 1:
        facts.notices.append(
            f'{content.file}: its scale is an array of shape {many.shape}, which is not applied; make a Scene with it '
            'if it is that of the bands'
        )
    facts.nodata = _scalar(content, 'nodata', None)
    good = content.variables.get('bbl')
    if good is not None and good.numeric and sum(side > 1 for side in good.shape) == 1:
        sides = {side for v in content.variables.values() if v.ndim > 1 and v is not good for side in v.shape}
        facts.take_good_bands(good.read().reshape(-1).tolist(), sides, content.file)
    return facts


def _scalar(content: Content, key: str, default: float | None) -> Any:
    """A number that the file holds under ``key``; libraries also use such names for columns of text."""
    variable = content.variables.get(key)
    if variable is None or np.prod(variable.shape) != 1 or not variable.numeric:
        return default
    return variable.read().item()


# --- NumPy's files: nothing is unpickled, and only requested members of archives are read -----------------------------


def npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of a ``.npy`` file; leaves the stream at its values."""
    formats = np.lib.format
    first = read_magic(stream) == (1, 0)
    return formats.read_array_header_1_0(stream) if first else formats.read_array_header_2_0(stream)


def _open_npy(file: Path, where: str) -> Content:
    """A memory map of one array, called ``cube``."""
    with file.open('rb') as stream:
        read_magic(stream)  # np.load would take anything else for a pickle, and suggest opening it unsafely
    array = np.load(file, mmap_mode='r', allow_pickle=False)
    return Content(file, {'cube': Variable(array.shape, array.dtype, lambda: array, None, where)})


def _open_npz(file: Path, where: str) -> Content:
    """The members of an archive; opening reads their headers only."""
    variables = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith('.npy'):
                with archive.open(member) as stream:
                    shape, _, dtype = npy_header(stream)
                key = member.filename.removesuffix('.npy')
                load = partial(_load_npz, file, key)
                variables[key] = Variable(shape, dtype, load, member.compress_size, f'{where}: {key!r}')
    return Content(file, variables)


def _load_npz(file: Path, key: str) -> np.ndarray:
    with np.load(file, allow_pickle=False) as archive:
        return archive[key]
