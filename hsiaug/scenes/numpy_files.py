"""NumPy's files, ``.npy`` and ``.npz``: nothing unpickled, and of archives only the members that are asked for."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from .files import Content, Variable


def open_npy(file: Path, where: str) -> Content:
    """A memory map of one array, called ``cube``."""
    with file.open('rb') as stream:
        np.lib.format.read_magic(stream)  # np.load takes anything else for a pickle, and says how to open it unsafely
    array = np.load(file, mmap_mode='r', allow_pickle=False)
    return Content(file, {'cube': Variable(array.shape, array.dtype, lambda: array, None, where)})


def open_npz(file: Path, where: str) -> Content:
    """The members of an archive; opening reads their headers only."""
    variables = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith('.npy'):
                shape, dtype = _header(archive, member)
                key = member.filename.removesuffix('.npy')
                load = partial(_load, file, key)
                variables[key] = Variable(shape, dtype, load, member.compress_size, f'{where}: {key!r}')
    return Content(file, variables)


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    return shape, dtype


def _load(file: Path, key: str) -> np.ndarray:
    with np.load(file, allow_pickle=False) as archive:
        return archive[key]
