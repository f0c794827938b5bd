"""Samples of torchgeo's geospatial datasets, which are indexed by place, by number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torchgeo.datasets import GeoDataset, NonGeoDataset

from ..samples import Sample
from ..seen import Places, digest_of_text


class GeoSamples(NonGeoDataset):
    """The samples that a sampler takes out of a ``GeoDataset``, by number.

    The sampler is asked once: a ``RandomGeoSampler`` gives the places that it draws now, in every epoch.

    Args:
        dataset: of images and masks, such as the intersection of two raster datasets.
        sampler: of torchgeo, one place at a time: ``RandomGeoSampler``, ``GridGeoSampler``, ``PreChippedGeoSampler``.

    Raises:
        TypeError: if the dataset is no ``GeoDataset``, or the sampler gives batches.
        ValueError: if the sampler gives nothing.
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
