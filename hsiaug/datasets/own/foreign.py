"""Data of other libraries as numbered samples: torchgeo's geospatial datasets and xarray images.

Readers of EMIT, PRISMA, EnMAP and DESIS products return the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchgeo.datasets import GeoDataset, NonGeoDataset

from ...samples import Sample
from ...scenes.wavelengths import to_nanometres
from ...seen import Places, digest_of_text

_NAMES = ('wavelength', 'wavelengths', 'wl', 'lambda')


class GeoSamples(NonGeoDataset):
    """The samples that a sampler takes from a torchgeo ``GeoDataset``, as a map-style dataset.

    The sampler is iterated once: the locations that a ``RandomGeoSampler`` draws are the same in every epoch.

    Args:
        dataset: dataset of images and masks, such as the intersection of two raster datasets.
        sampler: torchgeo sampler of single places: ``RandomGeoSampler``, ``GridGeoSampler``, ``PreChippedGeoSampler``.

    Raises:
        TypeError: if the dataset is not a ``GeoDataset``, or the sampler yields batches.
        ValueError: if the sampler yields nothing.
    """

    def __init__(self, dataset: GeoDataset, sampler: Iterable[Any]) -> None:
        if not isinstance(dataset, GeoDataset):
            raise TypeError(f'GeoSamples: a GeoDataset is expected, found {type(dataset).__name__}')
        self.dataset, self.queries = dataset, list(sampler)
        if not self.queries:
            raise ValueError(f'GeoSamples: {type(sampler).__name__} gives no place of {type(dataset).__name__}')
        if isinstance(self.queries[0], list):
            raise TypeError(f'GeoSamples: {type(sampler).__name__} gives batches; give a sampler of single places')
        self.classes = getattr(dataset, 'classes', None)

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> Sample:
        """The dataset's sample of a place, as it is."""
        return self.dataset[self.queries[index]]

    def places(self) -> Places:
        """Windows in coordinates of the dataset's reference system; samples that overlap show the same ground."""
        boxes = np.array([_box(query) for query in self.queries], dtype=np.float64)
        return Places(np.full(len(boxes), digest_of_text(str(self.dataset.crs)), dtype=np.uint64), boxes)


def _box(query: Any) -> tuple[float, float, float, float]:
    """First and last y, first and last x."""
    if isinstance(query, tuple):  # torchgeo >= 0.8: slices of x, y and time
        x, y = query[:2]
        return y.start, y.stop, x.start, x.stop
    return query.miny, query.maxy, query.minx, query.maxx


# --- xarray -----------------------------------------------------------------------------------------------------------


class DataArrayImage(Dataset[Sample]):
    """An image in an ``xarray.DataArray`` as a dataset of one sample, to be cut into patches with ``size=``.

    Args:
        array: array of three dimensions, one of which has a coordinate ``wavelength``; the other two are rows and
            columns, in this order.
        mask: (H, W) labels of the pixels, as an array, or as a ``DataArray`` whose dimensions have the same names; None
            for an image without labels.
        classes: class names in label order.

    Raises:
        ValueError: if there is no such coordinate, the dimensions are wrong, or the mask is not finite.
    """

    def __init__(self, array: Any, mask: Any = None, classes: Sequence[str] | None = None) -> None:
        found = [
            (name, coordinate) for name, coordinate in array.coords.items()
            if str(name).lower() in _NAMES and len(coordinate.dims) == 1
        ]  # fmt: skip
        if array.ndim != 3 or not found:
            raise ValueError(
                f'a DataArray of dimensions {tuple(array.dims)} with coordinates {list(map(str, array.coords))}: an '
                f'image of three dimensions is expected, with a coordinate named as one of {_NAMES} along its bands'
            )
        name, centres = found[0]
        wavelengths = to_nanometres(np.asarray(centres.values), centres.attrs.get('units'))
        if wavelengths is None:
            raise ValueError(f'the coordinate {name!r} of a DataArray holds no wavelengths: {centres.values[:3]}')
        bands = centres.dims[0]
        self.array = array.transpose(bands, *[dim for dim in array.dims if dim != bands])
        if mask is not None and set(getattr(mask, 'dims', ())) == set(self.array.dims[1:]):
            mask = mask.transpose(*self.array.dims[1:])
        self.mask, self.classes = None if mask is None else np.asarray(mask), classes
        if self.mask is not None and self.mask.dtype.kind == 'f' and not np.isfinite(self.mask).all():
            raise ValueError('the mask of a DataArray holds NaN or infinite values; give such pixels the ignore index')
        self.wavelengths, self.unit = tuple(wavelengths.tolist()), array.attrs.get('units')

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        """``image`` (C, H, W) float32, and ``mask`` (H, W) int64 where there is one."""
        if index not in (0, -1):
            raise IndexError(f'DataArrayImage: index {index} out of range for 1 image')
        sample: Sample = {'image': torch.from_numpy(np.array(self.array.values, dtype=np.float32))}
        return sample if self.mask is None else {**sample, 'mask': torch.from_numpy(self.mask.astype(np.int64))}
