"""Image files of one size and the same bands, read on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torchgeo.datasets import DatasetNotFoundError

from ..scenes.envi import DATA_SUFFIXES
from ..scenes.files import CUBE_KEYS, Content
from ..scenes.formats import open_content
from ..scenes.layout import Layout, channels_last
from ..scenes.readers import refuse_doubts, scale_and_offset
from ..scenes.wavelengths import to_nanometres

SUFFIXES = ('.tif', '.tiff', '.png', '.npy', '.npz', '.mat', '.h5', '.hdf5')
IMAGE_SUFFIXES = (*SUFFIXES, '.jpg', '.jpeg')
"""Suffixes of images; masks in JPEG are none any more, it changes their values."""


class FolderNotFoundError(DatasetNotFoundError):
    """A folder of images, masks, a class or a split that is not there."""

    def __init__(self, message: str) -> None:
        FileNotFoundError.__init__(self, message)


class ImageFiles:
    """Reads images that all have the size and bands of a first one.

    Args:
        owner: whose files they are, for messages.
        first: one of the files; the others must be like it.
        bands: indices of the bands to use, 0-based; all if None.
        wavelengths: band centres in nm of all bands of a file; the first file's own if None.
        scale: stored value times ``scale`` is the value in the unit; a file's own scale and offset if None.
        nodata: stored value that means "no measurement"; a file's own if None.
        key: variable of the image in files that hold several.
        layout: ``'hwc'`` or ``'chw'``, where the bands are in arrays; decided by masks and wavelengths if None.
        pixels: gives the (H, W) of the first file's mask.

    Attributes:
        shape: (H, W, all bands) as stored.
        bands: indices of the bands in use.
        wavelengths: centres in nm of the bands in use, or None.
        nominal: they are the sensor's, by the names of its bands.

    Raises:
        ValueError: for bands that the first file lacks, or wavelengths that are not its bands'.
    """

    def __init__(
        self,
        owner: str,
        first: Path,
        bands: Sequence[int] | None = None,
        wavelengths: Sequence[float] | None = None,
        scale: float | None = None,
        nodata: float | None = None,
        key: str | None = None,
        layout: Layout | None = None,
        pixels: Callable[[], tuple[int, ...]] | None = None,
    ) -> None:
        self.owner, self.scale, self.nodata, self.key, self.given = owner, scale, nodata, key, bands
        self.layout: Layout | None = layout
        centres = None if wavelengths is None else to_nanometres(wavelengths)
        if wavelengths is not None and centres is None:
            raise ValueError(f'{owner}: wavelengths must be positive band centres in nm, found {wavelengths}')
        content = self._content(first)
        if layout is None and not content.facts.channels_last:
            self.layout = self._told(first, content, centres, pixels)
        stored = self._stored(first, content)
        self.shape: tuple[int, ...] = stored.shape
        good = np.arange(stored.shape[2]) if content.facts.good_bands is None else content.facts.good_bands
        self.bands = good if bands is None else np.asarray(bands, dtype=np.int64)
        if not self.bands.size or not 0 <= self.bands.min() <= self.bands.max() < stored.shape[2]:
            raise ValueError(f'{owner}: bands must be indices in [0, {stored.shape[2]}), found {self.bands.tolist()}')
        self.nominal = centres is None and content.facts.nominal
        centres = content.facts.wavelengths if centres is None else centres
        scale_and_offset(content.facts, scale, str(first))
        if centres is not None and len(centres) != stored.shape[2]:
            raise ValueError(f'{owner}: {stored.shape[2]} bands in a file, but {len(centres)} wavelengths')
        self.wavelengths = None if centres is None else tuple(centres[self.bands].tolist())

    def _content(self, file: Path) -> Content:
        content = open_content(file, 'image', self.given)
        content.facts.notices = () if hasattr(self, 'shape') else content.facts.notices  # said of the first alone
        refuse_doubts(content.facts, bands=self.given, scale=self.scale, nodata=self.nodata)
        return content

    def _stored(self, file: Path, content: Content) -> np.ndarray:
        """(H, W, all bands) as stored."""
        array = content.find(self.key, CUBE_KEYS, (2, 3), 'image', 'image_key').read()
        if array.ndim == 2:
            return array[:, :, None]
        return array if content.facts.channels_last else channels_last(array, self.layout, where=str(file))

    def _told(
        self,
        file: Path,
        content: Content,
        centres: np.ndarray | None,
        pixels: Callable[[], tuple[int, ...]] | None,
    ) -> Layout:
        """The layout of the first array, and so of all."""
        array = content.find(self.key, CUBE_KEYS, (2, 3), 'image', 'image_key').read()
        if array.ndim == 2:
            return 'hwc'
        known = content.facts.wavelengths if centres is None else centres
        found = channels_last(array, None, None if pixels is None else pixels(), known, str(file))
        return 'hwc' if found is array else 'chw'

    def read(self, file: Path) -> tuple[np.ndarray, np.ndarray]:
        """(C, H, W) float32 and (H, W) bool, where it is measured; elsewhere it holds the mean of what is.

        Raises:
            ValueError: naming a file of another size or other bands.
        """
        content = self._content(file)
        facts, stored = content.facts, self._stored(file, content)
        if stored.shape != self.shape:
            raise ValueError(
                f'{self.owner}: {file} has {stored.shape} (rows, columns, bands), the first image has {self.shape}; '
                'bring all to one size'
            )
        values = stored[:, :, self.bands]
        nodata = facts.nodata if self.nodata is None else self.nodata
        valid = np.isfinite(values).all(axis=2)
        if nodata is not None:
            valid &= (values != nodata).all(axis=2)
        if facts.measured is not None:
            valid &= facts.measured
        image = values.astype(np.float32)
        if self.scale is not None:
            image *= np.float32(self.scale)
        else:
            for fact, apply in ((facts.scale, np.multiply), (facts.offset, np.add)):
                factor = np.asarray(fact, dtype=np.float32)
                apply(image, factor[self.bands] if factor.ndim else factor, out=image)
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        fill_missing(image, valid)
        return image, valid


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Readable files of a folder, in the order of their names; raw ENVI files count where their header lies beside."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith('.'))
    headers = {path.stem.lower() for path in files if path.suffix.lower() == '.hdr'}
    return [
        path
        for path in files
        if path.suffix.lower() in suffixes
        or (path.suffix.lower() in DATA_SUFFIXES and {path.stem.lower(), path.name.lower()} & headers)
    ]


def fill_missing(image: np.ndarray, valid: np.ndarray) -> None:
    """Give the pixels of a (C, H, W) image that are not ``valid`` (H, W) the mean of the others, 0 without any."""
    if not valid.all():
        image[:, ~valid] = image[:, valid].mean(axis=1, keepdims=True) if valid.any() else 0
