"""Image files of one size and the same bands, read on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torchgeo.datasets import DatasetNotFoundError

from ..scenes.readers import CUBE_KEYS, _find, _nanometres, _read

SUFFIXES = ('.tif', '.tiff', '.png', '.npy', '.npz', '.mat')


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
        scale: stored value times ``scale`` is the value in the unit.
        nodata: stored value that means "no measurement"; a file's own if None.
        key: variable of the image in files that hold several.

    Attributes:
        shape: (H, W, all bands) as stored.
        bands: indices of the bands in use.
        wavelengths: centres in nm of the bands in use, or None.

    Raises:
        ValueError: for bands that the first file lacks, or wavelengths that are not its bands'.
    """

    def __init__(
        self,
        owner: str,
        first: Path,
        bands: Sequence[int] | None = None,
        wavelengths: Sequence[float] | None = None,
        scale: float = 1.0,
        nodata: float | None = None,
        key: str | None = None,
    ) -> None:
        self.owner, self.scale, self.nodata, self.key = owner, scale, nodata, key
        stored, content = self._stored(first)
        self.shape: tuple[int, ...] = stored.shape
        self.bands = np.arange(stored.shape[2]) if bands is None else np.asarray(bands, dtype=np.int64)
        if not self.bands.size or not 0 <= self.bands.min() <= self.bands.max() < stored.shape[2]:
            raise ValueError(f'{owner}: bands must be indices in [0, {stored.shape[2]}), found {self.bands.tolist()}')
        centres = _nanometres(content.get('wavelength_nm') if wavelengths is None else wavelengths)
        if centres is not None and len(centres) != stored.shape[2]:
            raise ValueError(f'{owner}: {stored.shape[2]} bands in a file, but {len(centres)} wavelengths')
        self.wavelengths = None if centres is None else tuple(centres[self.bands].tolist())

    def _stored(self, file: Path) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """(H, W, all bands) as stored, and what else the file holds."""
        content = _read(file, 'image')
        array = content[_find(file, content, self.key, CUBE_KEYS, (2, 3), 'image', 'image_key')]
        return array.reshape(*array.shape[:2], -1), content

    def read(self, file: Path) -> tuple[np.ndarray, np.ndarray]:
        """(C, H, W) float32 and (H, W) bool, where it is measured; elsewhere it holds the mean of what is.

        Raises:
            ValueError: naming a file of another size or other bands.
        """
        stored, content = self._stored(file)
        if stored.shape != self.shape:
            raise ValueError(
                f'{self.owner}: {file} has {stored.shape} (rows, columns, bands), the first image has {self.shape}; '
                'bring all to one size'
            )
        values = stored[:, :, self.bands]
        nodata = content.get('nodata') if self.nodata is None else self.nodata
        valid = np.isfinite(values).all(axis=2)
        if nodata is not None:
            valid &= (values != nodata).all(axis=2)
        image = np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32) * np.float32(self.scale)
        fill_missing(image, valid)
        return image, valid


def fill_missing(image: np.ndarray, valid: np.ndarray) -> None:
    """Give the pixels of a (C, H, W) image that are not ``valid`` (H, W) the mean of the others, 0 without any."""
    if not valid.all():
        image[:, ~valid] = image[:, valid].mean(axis=1, keepdims=True) if valid.any() else 0
