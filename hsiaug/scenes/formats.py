"""A file of any known format: its variables, and the facts that they state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .envi import data_file
from .files import NUMERIC, Content, Facts, SceneFileError, reading
from .labels import class_names_of
from .matlab import open_hdf5, open_mat
from .numpy_files import open_npy, open_npz
from .raster import open_raster
from .wavelengths import centres_of, to_nanometres

WAVELENGTH_KEYS = {'wavelength_nm': 'nm', 'wavelengths': None, 'wavelength': None, 'wavelength_um': 'um'}
"""Usual names of band centres, with their unit where the name says it."""


def open_content(file: Path, what: str, bands: Sequence[int] | np.ndarray | None = None) -> Content:
    """The variables and facts of a file of any known format; of values it reads what the facts need."""
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
        elif suffix in ('.mat', '.h5', '.hdf5', '.hdf', '.he5', '.nc', '.nc4'):
            hdf5 = suffix != '.mat' or h5py.is_hdf5(file)
            content = open_hdf5(file, where) if hdf5 else open_mat(file, where)
        else:
            return open_raster(file, where, bands)
        content.facts = _facts_of_variables(content)
    return content


def _facts_of_variables(content: Content) -> Facts:
    """Facts from variables of the usual names."""
    facts = Facts(class_names=_class_names(content))
    for key, unit in WAVELENGTH_KEYS.items():
        name = content.name(key) or next((n for n in content.variables if n.endswith(f'/{key}')), None)
        variable = None if name is None else content.variables[name]
        if variable is not None and variable.dtype.kind in NUMERIC + 'U':
            values, unit = variable.read().reshape(-1), unit or _text(content, 'units')
            text = values.dtype.kind == 'U'
            facts.wavelengths = (
                centres_of(values.tolist(), [unit] * len(values)) if text else to_nanometres(values, unit)
            )
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
    """The unit of the wavelengths, where a variable gives it."""
    variable = next((content.variables[k] for k in (f'wavelength_{kind}', f'wavelengths_{kind}')
                     if k in content.variables), None)  # fmt: skip
    if variable is None or np.prod(variable.shape) != 1 or variable.dtype.kind not in 'US':
        return None
    return str(variable.read().reshape(-1)[0])


def _class_names(content: Content) -> dict[int, str]:
    variable = content.variables.get('class_names')
    return {} if variable is None or variable.dtype.kind not in 'US' else class_names_of(variable.read())
