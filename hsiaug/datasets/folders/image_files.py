"""Image files with equal bands (one file, or one per band) and mask files, read on demand, whole or in windows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ...samples import Kind, SampleSpec, as_classes
from ...scenes.files import CUBE_KEYS, LABEL_KEYS, Content, Facts, SceneFileError, Variable, without_axis_of_one
from ...scenes.formats import ARRAY_SUFFIXES, open_content
from ...scenes.labels import ignored_values, without_class
from ...scenes.layout import Layout, band_numbers, channels_last, inferred_layout
from ...scenes.raster import DATA_SUFFIXES, require_one_place
from ...scenes.readers import refuse_doubts, scale_and_offset
from ...scenes.wavelengths import given_centres, sentinel2_centres
from ..contract.samples import require_same_wavelengths
from ..real.held import IGNORE, fill_missing
from ..shared import Kept

SUFFIXES = ('.tif', '.tiff', '.png', '.bmp', *ARRAY_SUFFIXES)
IMAGE_SUFFIXES = (*SUFFIXES, '.jpg', '.jpeg', '.jp2')
"""Suffixes of images. Masks cannot be JPEG, which changes values."""
Window = tuple[slice, slice]
"""Rows and columns."""
WHOLE: Window = (slice(None), slice(None))
MANY = 1 << 20
"""Number of files whose metadata is kept, as each is read many times in windows."""


class ImageFiles:
    """Reads images that have the same bands as a first one.

    Args:
        owner: class that reads the files, whose arguments the others are.
        first: one of the files, which the others must match; or a folder with a file per band.
        bands: indices of the bands to use, 0-based, or their names in folders with a file per band; all if None.
        layout: ``'hwc'``, ``'chw'`` or ``'hcw'``, where the bands are in arrays; masks and wavelengths decide if None.
        pixels: function that returns (H, W) of the first mask.
        one_size: whether all images have the size of the first. If not, they are few and large, and read in windows;
            their metadata is read once.

    Attributes:
        shape: (H, W, all bands) as stored.
        bands: indices of the bands in use.
        wavelengths: centres in nm of the bands in use, or None.
        nominal: whether these are centres of the sensor, known from band names.

    Raises:
        ValueError: for bands missing from the first file, or wavelengths that do not match its bands.
    """

    def __init__(
        self,
        owner: str,
        first: Path,
        bands: Sequence[int] | Sequence[str] | None = None,
        wavelengths: Sequence[float] | None = None,
        scale: float | None = None,
        nodata: float | None = None,
        key: str | None = None,
        layout: Layout | None = None,
        pixels: Callable[[], tuple[int, ...]] | None = None,
        one_size: bool = True,
    ) -> None:
        self.owner, self.scale, self.nodata, self.key, self.one_size = owner, scale, nodata, key, one_size
        named = isinstance(bands, list | tuple) and any(isinstance(band, str) for band in bands)
        self.names = [str(band) for band in bands or ()] if named else None
        self.given: Any = None if named else bands
        self.opened: Kept[Path, Content] = Kept(0 if one_size else MANY)
        self.layout: Layout = layout or 'hwc'
        centres = given_centres(wavelengths, owner)
        content = self._content(first)
        if layout is None and not content.facts.channels_last and self._variable(content).ndim > 2:
            array = without_axis_of_one(_no_values(self._variable(content).shape), (2, 3))
            known = content.facts.wavelengths if centres is None else centres
            self.layout = inferred_layout(array.shape, pixels and pixels(), known, str(first))  # for all files
        self.shape = shape = self._image(content).shape
        used: Any = content.facts.good_bands if self.given is None else self.given
        self.bands = band_numbers(used, shape[2], owner)
        self.nominal = centres is None and content.facts.nominal
        own = content.facts.wavelengths if centres is None else None
        # of all bands, which other files must have too; None where the user knows better
        self.centres = None if own is None else tuple(own.tolist())
        centres = own if centres is None else centres
        scale_and_offset(content.facts, scale, str(first))
        if centres is not None and len(centres) != shape[2]:
            raise ValueError(f'{owner}: {shape[2]} bands in a file, but {len(centres)} wavelengths')
        self.wavelengths = None if centres is None else tuple(centres[self.bands].tolist())

    def _content(self, file: Path) -> Content:
        return self.opened.get_or_make(file, lambda: self._open(file))

    def _open(self, file: Path) -> Content:
        if file.is_dir():
            content = open_bands(file, self.names)
        elif self.names is not None:
            raise ValueError(
                f'{self.owner}: {file} holds all its bands, so bands are given by their indices, not as {self.names}'
            )
        else:
            content = open_content(file, 'image', self.given)
            content.facts.complete(self._variable(content), file)
        content.facts.notices = [] if hasattr(self, 'shape') else content.facts.notices  # only those of the first file
        refuse_doubts(content.facts, bands=self.given, scale=self.scale, nodata=self.nodata)
        return content

    def _variable(self, content: Content) -> Variable:
        return content.find(self.key, CUBE_KEYS, (2, 3), 'image', 'image_key')

    def _image(self, content: Content) -> Variable:
        """The image (H, W, all bands) of a file, to be read in windows."""
        return in_windows(self._variable(content), (2, 3), 'hwc' if content.facts.channels_last else self.layout)

    def spec(self, kind: Kind, classes: Sequence[str], unit: str | None, ignore_index: int | None = None) -> SampleSpec:
        """Spec of samples of the size of the first image."""
        return SampleSpec(
            kind, len(self.bands), tuple(classes), self.wavelengths, self.nominal, (self.shape[0], self.shape[1]),
            ignore_index, unit=unit,
        )  # fmt: skip

    def size(self, file: Path) -> tuple[int, int]:
        """(H, W) of an image."""
        height, width, _ = self._image(self._content(file)).shape
        return height, width

    def _require_same_bands(self, file: Path, facts: Facts) -> None:
        """Refuse an image that says, where nobody has said otherwise, that its bands are not those of the first."""
        centres, good = facts.wavelengths, facts.good_bands
        if self.centres is not None and centres is not None and len(centres) == self.shape[2]:
            require_same_wavelengths(self.centres, tuple(centres.tolist()), f'{self.owner}: {file}')
        if self.given is None and good is not None and (bad := np.setdiff1d(self.bands, good).tolist()):
            raise ValueError(
                f'{self.owner}: {file} marks the bands {bad} as bad, the first image does not; give bands without them'
            )

    def read(
        self, file: Path, window: Window = WHOLE, bands: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray, Content]:
        """(C, h, w) float32, (h, w) bool, where it is measured, and its file; elsewhere it holds the mean of what is.

        Raises:
            ValueError: naming a file of another size or other bands.
        """
        content = self._content(file)
        facts, variable = content.facts, self._image(content)
        shape = variable.shape
        if (shape != self.shape) if self.one_size else (shape[2] != self.shape[2]):
            raise ValueError(
                f'{self.owner}: {file} has {shape} (rows, columns, bands), the first image has {self.shape}; '
                f'bring all to {"one size and " if self.one_size else ""}the same bands'
            )
        self._require_same_bands(file, facts)
        used = self.bands if bands is None else self.bands[bands]
        values = variable.read((*window, used.tolist()))
        nodata = facts.nodata if self.nodata is None else self.nodata
        valid = np.isfinite(values).all(axis=2)
        if nodata is not None:
            valid &= (values != nodata).all(axis=2)
        if facts.measured is not None:
            valid &= facts.measured[window]
        image = values.astype(np.float32)
        if self.scale is not None:
            image *= np.float32(self.scale)
        else:
            for fact, apply in ((facts.scale, np.multiply), (facts.offset, np.add)):
                factor = np.asarray(fact, dtype=np.float32)
                apply(image, factor[used] if factor.ndim else factor, out=image)
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        fill_missing(image, valid)
        return image, valid, content


class MaskFiles:
    """Reads masks of one class index per pixel.

    Negative values, NaN and a file's own nodata are ignored unless they are classes.

    Args:
        owner: class that reads the files, whose arguments the others are.
        few: whether they are few and large, and read in windows; their metadata is read once.

    Raises:
        ValueError: if the settings contradict each other.
    """

    def __init__(
        self,
        owner: str,
        classes: Sequence[str],
        label_map: Mapping[int, int] | None = None,
        ignore: Sequence[int] = (),
        key: str | None = None,
        few: bool = False,
    ) -> None:
        self.owner, self.classes, self.key = owner, as_classes(classes, owner), key
        ignored = ignored_values(ignore, owner) or ()
        self.opened: Kept[Path, Content] = Kept(MANY if few else 0)
        labels: Mapping[int, int] = {k: k for k in range(len(classes))} if label_map is None else label_map
        if wrong := {
            raw: k
            for raw, k in labels.items()
            if not (isinstance(raw, Real) and isinstance(k, Real) and 0 <= k < len(classes))
        }:
            raise ValueError(
                f'{owner}: label_map must map numbers to 0..{len(classes) - 1}, the classes, found {wrong}'
            )
        if label_map is not None and (both := sorted(set(label_map) & set(ignored))):
            raise ValueError(f'{owner}: label_map and ignore both name {both}')
        self.raw_to_class = dict(labels) | dict.fromkeys(ignored, IGNORE)
        self.explicit = {*(label_map or ()), *ignored}

    def _open(self, file: Path) -> tuple[Variable, Content]:
        content = self.opened.get_or_make(file, lambda: open_content(file, 'mask'))
        return in_windows(content.find(self.key, LABEL_KEYS, (2,), 'mask', 'mask_key'), (2,)), content

    def size(self, file: Path) -> tuple[int, ...]:
        """(H, W) of a mask, without reading its values."""
        return self._open(file)[0].shape

    def read(self, file: Path, size: tuple[int, ...], image: Content, window: Window = WHOLE) -> np.ndarray:
        """(h, w) int64 labels.

        Args:
            file: of the mask.
            size: (h, w) that its image has there.
            image: the file of its image, which must show the same place.
            window: rows and columns; all of them by default.

        Raises:
            ValueError: naming the file, if it has another size, lies elsewhere on the map or holds an unknown value.
        """
        variable, content = self._open(file)
        facts = content.facts
        raw, nodata = variable.read((*window, None)), variable.fill if facts.nodata is None else facts.nodata
        if raw.shape != size:
            raise ValueError(f'{self.owner}: {file} has {raw.shape}, its image {size} rows and columns')
        require_one_place(image, content)
        values, place = np.unique(raw, return_inverse=True)
        absent = without_class(values, nodata, where=f'{self.owner}: values of {file}')
        known, gone = values.tolist(), absent.tolist()
        labels = np.array(
            [self.raw_to_class.get(v, IGNORE if out else -1) for v, out in zip(known, gone, strict=True)],
            dtype=np.int64,
        )
        if (labels < 0).any():
            raise ValueError(
                f'{self.owner}: {file} holds {values[labels < 0][:8].tolist()}, expected {sorted(self.raw_to_class)}; '
                'map such values to a class with label_map, such as {0: 0, 255: 1}, or name them in ignore'
            )
        if nodata in self.raw_to_class and nodata not in self.explicit and nodata in values:
            warnings.warn(
                f'{self.owner}: {nodata:g} is class {self.classes[self.raw_to_class[int(nodata)]]!r} and the nodata '
                f'value of {file}, so its pixels count as that class; name it in ignore if they do not count, in '
                'label_map if they do',
                stacklevel=3,
            )
        found = labels[place.reshape(raw.shape)]
        return found if facts.measured is None else np.where(facts.measured[window], found, IGNORE)


def open_bands(folder: Path, names: Sequence[str] | None = None) -> Content:
    """The image in a folder with a file per band, such as ``B02.tif``, ``B03.tif``, ..., like that of one file.

    The name of a band is that of its file, or the part after the last ``_``: ``B02`` for ``S2A_20180701_B02.tif``.
    Bands are in the given order, or in the order of their names.

    Raises:
        SceneFileError: if a band is missing, or the bands are not on one grid.
    """
    files = {file.stem: file for file in image_files(folder)}
    short = {stem.rpartition('_')[2]: file for stem, file in files.items()}
    named = short if len(short) == len(files) else files
    chosen, files = sorted(named) if names is None else list(names), named | files
    if not chosen or (missing := [name for name in chosen if name not in files]):
        held = f'the bands {sorted(files)[:20]}' if files else 'no images'
        raise SceneFileError(f'{folder} holds {held}' + (f', expected {missing} too' if chosen else ''))
    contents = [open_content(files[name], 'image') for name in chosen]
    for content in contents[1:]:
        require_one_place(contents[0], content)
    bands = [in_windows(content.find(None, CUBE_KEYS, (2,), 'band', 'image_key'), (2,)) for content in contents]
    sizes = {name: band.shape for name, band in zip(chosen, bands, strict=True)}
    if len(set(sizes.values())) > 1:
        raise SceneFileError(f'{folder}: its bands have other sizes, {sizes}; bring all to one grid')

    def read(rows: slice = slice(None), columns: slice = slice(None), only: Sequence[int] | None = None) -> np.ndarray:
        return np.stack([bands[k].read((rows, columns, None)) for k in only or range(len(bands))], axis=2)

    dtype = np.result_type(*(band.dtype for band in bands))
    variable = Variable((*bands[0].shape, len(bands)), dtype, read, None, str(folder), part=read)
    return Content(folder, {'cube': variable}, _joined([content.facts for content in contents], chosen, folder))


def in_windows(variable: Variable, dimensions: tuple[int, ...], layout: Layout = 'hwc') -> Variable:
    """A mask or band (H, W), or an image (H, W, C), which is read in windows, without a further axis of one."""

    def turned(array: np.ndarray) -> np.ndarray:
        array = without_axis_of_one(array, dimensions)
        if array.ndim == 3:
            return channels_last(array, layout)
        return array[:, :, None] if 3 in dimensions else array

    def part(rows: slice, columns: slice, bands: Sequence[int] | None) -> np.ndarray:
        if variable.part is not None:
            return turned(variable.read((rows, columns, bands)))
        window = turned(variable.read())[rows, columns]
        return window if bands is None else window[:, :, bands]

    return replace(variable, shape=turned(_no_values(variable.shape)).shape, part=part)


def _no_values(shape: tuple[int, ...]) -> np.ndarray:
    """An array that takes no memory, for its axes."""
    return np.broadcast_to(np.uint8(0), shape)


def _joined(facts: Sequence[Facts], names: Sequence[str], folder: Path) -> Facts:
    """Combined metadata of the band files of one image."""
    centres = [fact.wavelengths for fact in facts if fact.wavelengths is not None and len(fact.wavelengths) == 1]
    nominal = sentinel2_centres(list(names)) if len(centres) < len(facts) else None
    measured = [fact.measured for fact in facts if fact.measured is not None]
    nodata = {fact.nodata for fact in facts}
    doubts = {option: message for fact in facts for option, message in fact.doubts.items()}
    if len(nodata) > 1:
        doubts['nodata'] = f'{folder}: its bands have the nodata values {sorted(map(str, nodata))}; give nodata'
    return Facts(
        wavelengths=np.concatenate(centres) if len(centres) == len(facts) else nominal,
        nominal=nominal is not None,
        scale=np.array([fact.scale for fact in facts], dtype=np.float64).reshape(-1),
        offset=np.array([fact.offset for fact in facts], dtype=np.float64).reshape(-1),
        nodata=facts[0].nodata,
        measured=np.logical_and.reduce(measured) if measured else None,
        doubts=doubts,
        notices=[notice for fact in facts for notice in fact.notices],
        channels_last=True,
        place=facts[0].place,
    )


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Readable files of a folder, in the order of their names; raw ENVI files count where they have a header.

    So does a link to a file that is gone, as what is missing would be missed in silence.
    """
    files = sorted(path for path in folder.iterdir() if not (path.is_dir() or path.name.startswith('.')))
    headers = {path.stem.lower() for path in files if path.suffix.lower() == '.hdr'}
    return [
        path
        for path in files
        if path.suffix.lower() in suffixes
        or (path.suffix.lower() in (*DATA_SUFFIXES, '') and {path.stem.lower(), path.name.lower()} & headers)
    ]


def subfolders(folder: Path) -> list[Path]:
    """Sub-folders of a folder, ordered by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))
