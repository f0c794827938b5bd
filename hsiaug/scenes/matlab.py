"""MATLAB files v4 to v7.2, and HDF5: MATLAB's v7.3 and other files."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.io.matlab
import scipy.sparse

from ..records import require_plausible
from .files import FILLS, NUMERIC, SCALES, UNITS, Content, SceneFileError, Variable

_COMPRESSED = 15  # type of a zlib-compressed element of a v5 file
_NUMERIC = ('single', 'double', 'logical', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64')
_DEPTH = 3
"""Depth to which nested structures are read."""


# --- v4 to v7.2 -------------------------------------------------------------------------------------------------------


def open_mat(file: Path, where: str) -> Content:
    """Variables of a file; structures are read immediately, to list their fields as ``structure/field``."""
    stored = file.stat().st_size
    if scipy.io.matlab.matfile_version(file)[0] == 1:
        for declared in _declared_bytes(file):
            require_plausible(declared, stored, where, SceneFileError)
    variables: dict[str, Variable] = {}
    unread: list[str] = []
    for name, shape, kind in scipy.io.whosmat(file):
        if kind in _NUMERIC:
            dtype = np.dtype({'single': 'f4', 'double': 'f8', 'logical': 'u1'}.get(kind, kind))
            variables[name] = Variable(
                tuple(shape), dtype, partial(_load_mat, file, name), stored, f'{where}: {name!r}'
            )
        elif kind in ('cell', 'struct') and (kind == 'cell' or math.prod(shape) != 1):
            unread.append(f'{name} is a {kind} array {tuple(shape)}, which is not read: save what it holds by itself')
        elif kind in ('struct', 'char', 'sparse'):
            if kind == 'sparse':
                require_plausible(math.prod(shape) * 8, stored, f'{where}: {name!r}', SceneFileError)
            variables.update(_in_memory(name, _load_mat(file, name), where))
    return Content(file, variables, unread=unread)


def _load_mat(file: Path, name: str) -> np.ndarray:
    with warnings.catch_warnings():  # either class of sparse matrices will do
        warnings.filterwarnings('ignore', '.*spmatrix', DeprecationWarning)
        value = scipy.io.loadmat(file, variable_names=[name])[name]
    return value.toarray() if scipy.sparse.issparse(value) else value


def _in_memory(name: str, value: Any, where: str, depth: int = 0) -> Iterator[tuple[str, Variable]]:
    """The arrays in a value that has been read, including fields of structures."""
    if scipy.sparse.issparse(value):
        require_plausible(math.prod(value.shape) * 8, value.data.nbytes, f'{where}: {name!r}', SceneFileError)
        value = value.toarray()
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names and value.size == 1 and depth < _DEPTH:
        for field in value.dtype.names:
            yield from _in_memory(f'{name}/{field}', value.reshape(-1)[0][field], where, depth + 1)
    elif value.dtype.kind in 'biufU':
        yield name, Variable(value.shape, value.dtype, lambda: value, None, where)


def _declared_bytes(file: Path) -> Iterator[int]:
    """Decompressed size in bytes of each element of a v5 file, from the tags only."""
    with file.open('rb') as stream:
        order: Any = 'little' if stream.read(128)[126:128] == b'IM' else 'big'
        while len(tag := stream.read(8)) == 8:
            kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
            start = stream.tell()
            if kind == _COMPRESSED:
                inner = zlib.decompressobj().decompress(stream.read(512), 8)
                yield int.from_bytes(inner[4:8], order)
            else:
                yield size
            stream.seek(start + size)


# --- HDF5 -------------------------------------------------------------------------------------------------------------


def open_hdf5(file: Path, where: str) -> Content:
    """Datasets by path; the axes of those written by MATLAB, which stores them reversed, are restored.

    Links to other files, external storage and virtual datasets are never followed.
    """
    variables: dict[str, Variable] = {}
    unread: list[str] = []
    with h5py.File(file, 'r') as archive:
        with file.open('rb') as stream:
            by_matlab = archive.userblock_size > 0 and stream.read(10) == b'MATLAB 7.3'

        def visit(name: str, link: Any) -> None:
            if not isinstance(link, h5py.HardLink):
                unread.append(f'{name} is a link, which is never followed')
                return
            found = archive[name]
            # As MATLAB writes them; others may have types that h5py cannot read.
            attributes = {key: found.attrs[key] for key in ('MATLAB_class', 'MATLAB_sparse') if key in found.attrs}
            if isinstance(found, h5py.Group) and 'MATLAB_sparse' in attributes:
                variables.update(_sparse(file, name, found, int(attributes['MATLAB_sparse']), where))
            parent = name.rpartition('/')[0]
            in_sparse = bool(parent) and 'MATLAB_sparse' in archive[parent].attrs
            if not isinstance(found, h5py.Dataset) or name.startswith('#') or in_sparse:
                return
            if found.external or found.is_virtual:
                unread.append(f'{name} keeps its values in other files, which are never read')
                return
            text = h5py.check_string_dtype(found.dtype) is not None
            if found.shape is None or attributes.get('MATLAB_class') in (b'char', 'char'):
                return
            if not text and found.dtype.kind not in NUMERIC:
                what = 'cells' if found.dtype.kind == 'O' else found.dtype.names or found.dtype
                unread.append(f'{name} {found.shape} of {what} is not read: save what it holds as plain arrays')
                return
            reversed_axes = by_matlab or 'MATLAB_class' in attributes
            shape = found.shape[::-1] if reversed_axes else found.shape
            stored = min(int(found.id.get_storage_size()), file.stat().st_size)
            block = math.prod(found.chunks) * found.dtype.itemsize if found.chunks else 0
            load = partial(_load_hdf5, file, name, reversed_axes)
            values = {key: np.asarray(found.attrs[key]) for key in (*FILLS, *SCALES, *UNITS) if key in found.attrs}
            said = {key: one.item() for key, one in values.items() if one.size == 1 and one.dtype.kind in NUMERIC}
            texts = {key: one.astype(str) for key, one in values.items() if key in UNITS and one.size == 1}
            said |= {key: one.item() for key, one in texts.items()}
            dtype = np.dtype('U1') if text else found.dtype
            variables[name] = Variable(shape, dtype, load, stored, f'{where}: {name!r}', block, said=said)

        archive.visititems_links(visit)
    return Content(file, variables, unread=unread)


def _load_hdf5(file: Path, name: str, reversed_axes: bool) -> np.ndarray:
    with h5py.File(file, 'r') as archive:
        found = archive[name]
        text = h5py.check_string_dtype(found.dtype) is not None
        values = np.asarray(found.asstr(errors='replace')[()], dtype=str) if text else found[()]
    return np.transpose(values) if reversed_axes else np.asarray(values)


def _sparse(file: Path, name: str, group: Any, rows: int, where: str) -> dict[str, Variable]:
    """A sparse matrix of MATLAB v7.3: compressed columns."""
    columns = len(group['jc']) - 1
    shape = (rows, columns)

    def load() -> np.ndarray:
        with h5py.File(file, 'r') as archive:
            parts = archive[name]
            data, indices = (parts[key][()] if key in parts else np.zeros(0) for key in ('data', 'ir'))
            matrix = scipy.sparse.csc_matrix((data, indices.astype(np.int64), parts['jc'][()].astype(np.int64)), shape)
        return matrix.toarray()

    return {name: Variable(shape, np.dtype(float), load, file.stat().st_size, f'{where}: {name!r}')}
