"""Contents of a file of arrays: variables, read on demand, and facts about the cube."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torchgeo.datasets import DatasetNotFoundError

from ..named_configs import near
from ..records import require_plausible

CUBE_KEYS = ('cube', 'image', 'images', 'tiles', 'spectra', 'data', 'hsi', 'img', 'reflectance', 'radiance', 'x')
LABEL_KEYS = ('gt', 'labels', 'label', 'ground_truth', 'groundtruth', 'target', 'y', 'mask', 'gt_majority')
"""Usual names of variables and of fields of structures, in any case."""

_OBJECTS = 'Arrays of Python objects are never read'
_COMPLEX = 'holds complex numbers; save their magnitude, or real and imaginary parts as bands'
_FLAT = '; of one-hot labels, save the argmax, of colours, the class index of each pixel, as one band'

NUMERIC = 'biuf'
"""NumPy's kinds of real numbers."""

FILLS = ('_FillValue', 'missing_value', 'Data_Ignore_Value')
SCALES = ('scale_factor', 'add_offset', 'Scale_Factor')
UNITS = ('units', 'Units')
"""Attributes of arrays in HDF5: those of the CF conventions of NetCDF, and of airborne products (NEON)."""


class SceneFileError(ValueError):
    """A file does not contain what was asked for."""


class FilesNotFoundError(DatasetNotFoundError):
    """Missing files, or a missing folder of images, masks, a class or a split."""

    def __init__(self, message: str) -> None:
        FileNotFoundError.__init__(self, message)


@dataclass(frozen=True)
class Variable:
    """An array of a file, not yet read."""

    shape: tuple[int, ...]  # as returned by read
    dtype: np.dtype
    load: Callable[[], np.ndarray]
    # bytes that it takes in the file, compared with what it declares before it is read; None for what is mapped, not
    # read
    stored: int | None
    where: str  # file and format, for messages
    declared: int = 0  # least number of bytes needed to read it, if more than its values (huge blocks)
    # reads some rows, columns and bands (None for all), if the format allows
    part: Callable[[slice, slice, Sequence[int] | None], np.ndarray] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)  # attributes, of FILLS, SCALES and UNITS

    @property
    def fill(self) -> float | None:
        """Stored value that means "no measurement", by its attributes."""
        return next((self.said[key] for key in FILLS if key in self.said), None)

    @property
    def unit(self) -> str | None:
        """Unit of its values, by its attributes."""
        return next((self.said[key] for key in UNITS if key in self.said), None)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def numeric(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype.kind in NUMERIC

    def read(self, part: tuple[slice, slice, Sequence[int] | None] | None = None) -> np.ndarray:
        """The array, or some of its rows, columns and bands if there is a :attr:`part`."""
        if self.stored is not None:
            declared = max(math.prod(self.shape) * self.dtype.itemsize, self.declared)
            require_plausible(declared, self.stored, self.where, SceneFileError)
        with reading(self.where):
            values = self.load() if part is None or self.part is None else self.part(*part)
        if values.dtype.kind == 'c':  # MATLAB calls them single and double
            raise SceneFileError(f'{self.where} {_COMPLEX}')
        return values


@dataclass(frozen=True)
class Place:
    """Position of an image on the map."""

    crs: Any  # coordinate reference system of rasterio; None if the file does not say
    corners: np.ndarray  # (3, 2) map coordinates of the image's upper left, upper right and lower left corner
    sides: tuple[int, int]  # width and height in pixels


@dataclass
class Facts:
    """Metadata of the cube in a file."""

    wavelengths: np.ndarray | None = None  # (C,) nm
    nominal: bool = False  # centres of the sensor, known from band names
    class_names: Mapping[int, str] = field(default_factory=dict)  # class id to name
    scale: float | np.ndarray = 1.0  # value = stored * scale + offset; one number, or (C,)
    offset: float | np.ndarray = 0.0
    nodata: float | None = None  # stored value that means "no measurement"
    # indices of the bands that are not marked as bad; None if all are good or nothing is said
    good_bands: np.ndarray | None = None
    measured: np.ndarray | None = None  # (H, W) bool, False where a mask or alpha band leaves a pixel out
    unit: str | None = None
    # messages on facts that can be read in two ways, by the option that decides
    doubts: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)  # messages to show once
    channels_last: bool = False  # the format says where the bands are
    place: Place | None = None  # position on the map

    def take_good_bands(self, flags: Sequence[float], counts: Collection[int], file: Path) -> None:
        """Take a bad band list: a flag per band, 0 if it is bad, of an image with one of these ``counts`` of bands."""
        if len(flags) not in counts or not any(flags):
            self.doubts['bands'] = (
                f'{file}: its bad band list (bbl) has {len(flags)} values for {" or ".join(map(str, sorted(counts)))} '
                f'bands, {np.count_nonzero(flags)} of them good; give bands'
            )
        elif not all(flags):
            self.good_bands = np.flatnonzero(flags)

    def complete(self, image: Variable, file: Path) -> Variable:
        """Fill in missing facts from the attributes of the image."""
        self.nodata = image.fill if self.nodata is None else self.nodata
        if np.all(np.asarray(self.scale) == 1):
            self.scale = image.said.get('scale_factor', self.scale)
            self.offset = image.said.get('add_offset', self.offset)
        if said := image.said.get('Scale_Factor'):
            self.doubts['scale'] = (
                f'{file}: its values have a Scale_Factor of {said:g}, which some multiply with and some divide by; '
                f'give scale, such as {1 / said:g}'
            )
        return image


@dataclass
class Content:
    """A file: its variables by name, ``cube`` for a single image, and its facts."""

    file: Path
    variables: Mapping[str, Variable]
    facts: Facts = field(default_factory=Facts)
    unread: Sequence[str] = ()
    """Variables that are never read, with the reason."""

    def __str__(self) -> str:
        """Names and shapes, and variables that are never read."""
        found = [f'{name} {v.shape}{"" if v.numeric else f" of {v.dtype}"}' for name, v in self.variables.items()]
        return '; '.join([', '.join(found) or 'nothing', *self.unread])

    def name(self, key: str) -> str | None:
        """The variable of that name; fields of structures are ``structure/field`` or ``structure.field``."""
        return next((name for name in (key, key.replace('.', '/')) if name in self.variables), None)

    def find(
        self,
        key: str | None,
        usual: Sequence[str],
        dimensions: tuple[int, ...],
        what: str,
        argument: str,
        kinds: str = NUMERIC,
    ) -> Variable:
        """The variable that holds ``what``, by its name, or else by usual names or as the only one of its dimensions.

        A mask or image may have an additional axis of length one. ``argument`` is the option that names the variable;
        a variable that is not named must have a dtype among ``kinds``.
        """
        shape = ' or '.join(f'{d}-D' for d in dimensions)
        solid = any(v.ndim > max(dimensions) for v in self.variables.values())
        flat = _FLAT if usual is LABEL_KEYS and solid else ''
        if key is not None:
            if (name := self.name(key)) is None:
                raise SceneFileError(
                    f'{self.file} holds no {key!r} for the {what}; it holds: {self}. Name one with {argument}'
                )
            variable = self.variables[name]
            if not _fits(variable.shape, dimensions):
                raise SceneFileError(f'{self.file}: {what} {key!r} must be {shape}, found shape {variable.shape}{flat}')
            return variable
        fitting = [name for name, v in self.variables.items() if _fits(v.shape, dimensions) and v.dtype.kind in kinds]
        exact = [name for name in fitting if self.variables[name].ndim in dimensions]
        named = [name for use in usual for name in fitting if leaf(name) == use]
        candidates = named or exact or fitting
        if len(candidates) != 1:
            found = {v.dtype.kind for v in self.variables.values()}
            hints = [said for kind, said in (('O', _OBJECTS), ('c', f'One {_COMPLEX}')) if kind in found]
            raise SceneFileError(
                f'{self.file}: {len(candidates)} arrays could be the {what} ({shape}); it holds: {self}. '
                f'Name one with {argument}{flat}{"".join(f". {said}" for said in hints)}'
            )
        return self.variables[candidates[0]]


def leaf(name: str) -> str:
    """The last part of a variable's name, in lower case."""
    return name.rsplit('/', 1)[-1].lower()


def _fits(shape: tuple[int, ...], dimensions: tuple[int, ...]) -> bool:
    return len(shape) in dimensions or (len(shape) - 1 in dimensions and 1 in (shape[0], shape[-1]))


def without_axis_of_one(array: np.ndarray, dimensions: tuple[int, ...]) -> np.ndarray:
    """An array without its first or last axis of length one, if it has one dimension too many."""
    if array.ndim in dimensions:
        return array
    return array[..., 0] if array.shape[-1] == 1 else array[0]


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a parser raises on a damaged or foreign file into a :class:`SceneFileError`."""
    try:
        yield
    except (MemoryError, SceneFileError):
        raise
    except Exception as error:  # what a parser raises on a torn or foreign file is anybody's guess
        raise SceneFileError(f'{where}: {error}. Is it complete, and of that format? {_OBJECTS}') from error


def as_path(path: str | os.PathLike[str], what: str) -> Path:
    """A path, not what its file would hold."""
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise TypeError(
        f'the path of the {what} file was expected, found {type(path).__name__}; of arrays in memory, make a '
        'hsiaug.scenes.Scene(name, cube, labels)'
    )


def existing(path: str | os.PathLike[str], what: str) -> Path:
    """The existing file at a path; ``~`` is the home folder."""
    file = as_path(path, what).expanduser()
    if file.is_file():
        return file
    folder = file if file.is_dir() else file.parent
    if not folder.is_dir():
        raise FileNotFoundError(f'{what} file {file} does not exist, nor does the folder {folder}')
    held = sorted(p.name for p in folder.iterdir() if p.exists() and not p.name.startswith('.'))
    if file.is_dir():
        raise FileNotFoundError(f'{what} file {file} is a folder; name one of its files: {held[:8]}')
    if file.is_symlink():
        raise FileNotFoundError(f'{what} file {file} is a link to {file.readlink()}, which does not exist')
    raise FileNotFoundError(f'{what} file {file} does not exist; {near(file.name, held)}in {folder}: {held[:8]}')
