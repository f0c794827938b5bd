"""Any dataset as a dataset in the sample contract: torchgeo's keys, one size, a spec, and what was seen of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from torch.utils.data import ConcatDataset, Dataset
from torchgeo.datasets import NonGeoDataset

from ..samples import Kind, Sample, SampleSpec
from ..seen import Places
from ..settings import check_value
from .change_folder import ChangeFolder
from .contract import in_contract, infer_spec
from .data_array import DataArrayImage, is_data_array
from .survey import IN_MEMORY, Reader, Survey, cut, read
from .wrapped import places_of, require_map_style


class AdaptedDataset(NonGeoDataset):
    """A dataset whose samples are in the sample contract and fit one spec; made by :func:`adapt`.

    Samples are read when they are asked for. What needs all of them (:meth:`survey`) is found in one pass, when it is
    first asked for.

    Args:
        dataset: map-style.
        spec: of the samples; its size is that of tiles if ``tile``.
        name: of the dataset, for messages.
        tile: cut images into tiles of the spec's size.
        labelled: whether samples have targets.
        workers: processes that read; None for none as long as samples fit in memory.
        progress: show a progress bar while all samples are read.
    """

    def __init__(
        self,
        dataset: Any,
        spec: SampleSpec,
        name: str,
        tile: bool = False,
        labelled: bool = True,
        workers: int | None = None,
        progress: bool = False,
    ) -> None:
        self.dataset, self.spec, self.name, self.tile, self.labelled = dataset, spec, name, tile, labelled
        self.workers, self.progress = workers, progress
        self._survey: Survey | None = None
        self._held_from = 0

    def __len__(self) -> int:
        """Number of samples, tiles where images are cut."""
        return len(self.survey(IN_MEMORY).rows) if self.tile else len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """``image`` float32 and its ``mask`` or ``label`` int64.

        Raises:
            IndexError: if it is out of range.
            ValueError: naming a sample of the dataset that does not fit the spec.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f'{self.name}: index {index} out of range for {len(self)} samples')
        index, key = index % len(self), self.spec.target_key
        reader = self._reader()
        if not self.tile:
            sample, wanted = reader.sample(index), self.spec.size
            if wanted is not None and (found := tuple(sample['image'].shape[-2:])) != wanted:
                raise ValueError(
                    f'{self.name}: sample {index}: its image has {found} pixels, the first sample {wanted}; give size= '
                    'to cut all into patches of one size'
                )
            return sample
        survey = self.survey()
        if survey.images is not None:
            sample = {'image': survey.images[index]}
            return sample if survey.targets is None else {**sample, key: survey.targets[index]}
        whole = reader.sample(int(survey.rows[index]))
        corner, size = survey.corners[index : index + 1], self.spec.size or (1, 1)
        images, targets = cut(whole['image'], whole.get(key), corner, size)
        return {'image': images[0]} if targets is None else {'image': images[0], key: targets[0]}

    def _reader(self) -> Reader:
        return Reader(self.dataset, self.name, self.spec, self.tile, self.labelled)

    def survey(self, most: int = 0) -> Survey:
        """Everything that needs all samples, found in one pass.

        Args:
            most: bytes of samples that are kept in memory on the way; of larger datasets none are.

        Raises:
            ValueError: naming a sample that does not fit the others.
        """
        known = self._survey
        if known is None or (
            known.images is None and most > self._held_from and len(known.rows) * self.spec.sample_bytes <= most
        ):
            known = self._survey = self._reader().survey_all(self.workers, self.progress, most)
            self._held_from = most
        return known

    def class_pixels(self) -> np.ndarray:
        """(N, K) pixels of each class in each mask, or samples."""
        return self.survey().pixels

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) pixels, or samples, of each class."""
        return cast(np.ndarray, self.survey().pixels.sum(axis=0))

    def digests(self) -> np.ndarray:
        """(N, d) uint64 of the images, see :mod:`hsiaug.seen`."""
        return self.survey().digests

    def places(self) -> Places | None:
        """Windows that the samples are cut from; None where that is not known."""
        if not self.tile:
            return places_of(self.dataset)
        found = self.survey()
        size = np.array(self.spec.size or (1, 1))
        ends = found.corners + size
        box = np.stack([found.corners[:, 0], ends[:, 0], found.corners[:, 1], ends[:, 1]], axis=1)
        return Places(found.whole, box.astype(np.float64))


def adapt(
    dataset: Any,
    *,
    size: int | tuple[int, int] | None = None,
    spec: SampleSpec | None = None,
    kind: Kind | None = None,
    classes: Sequence[str] | None = None,
    wavelengths: Sequence[float] | None = None,
    wavelengths_approximate: bool | None = None,
    ignore_index: int | None = None,
    value_range: tuple[float, float] | None = None,
    unit: str | None = None,
    labelled: bool = True,
    workers: int | None = None,
    progress: bool = False,
    name: str | None = None,
) -> AdaptedDataset:
    """Any real dataset, as a dataset in the sample contract that generators learn from and mixing mixes into.

    Args:
        dataset: map-style, its samples in the contract or with torchgeo's own keys: two dates as ``image1`` and
            ``image2``, masks (H, W) or (1, H, W), ``wavelength``; a list of such samples; a list of such datasets,
            which are pooled; or an ``xarray.DataArray`` of one image with a wavelength coordinate, with labels wrapped
            in :class:`~hsiaug.datasets.DataArrayImage`. Of a torchgeo ``GeoDataset``, wrapped in
            :class:`~hsiaug.datasets.GeoSamples`.
        size: side, or sides, of tiles that images are cut into, for images that are large or of several sizes. What
            is left at the far edges, and images that are smaller, are left out.
        spec: what the samples are; found out if None: by the dataset's own ``spec``, its attributes (``classes``,
            ``wavelengths``, ``unit``, ...), and its first sample.
        kind: of the samples, where it does not follow from their layout: images with both a label and a mask.
        classes: names of the classes in label order.
        wavelengths: band centres in nm.
        wavelengths_approximate: whether they are nominal.
        ignore_index: label of pixels that do not count.
        value_range: lowest and highest value that the unit allows.
        unit: physical unit.
        labelled: whether samples have targets; without, a spec is needed.
        workers: processes that read; None for none as long as samples fit in memory.
        progress: show progress bars where all samples are read.
        name: of the dataset, for messages; its class's if None.

    Raises:
        TypeError: if it is no such dataset.
        ValueError: if it is empty, or a field of the spec has to be given: which, and why.
    """
    given: dict[str, Any] = {
        'kind': kind, 'classes': classes, 'wavelengths': wavelengths, 'ignore_index': ignore_index,
        'wavelengths_approximate': wavelengths_approximate, 'value_range': value_range, 'unit': unit,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    as_it_is = isinstance(dataset, AdaptedDataset) and size is None and not given
    if as_it_is and dataset.labelled == labelled and spec in (None, dataset.spec):
        return cast(AdaptedDataset, dataset)
    options: dict[str, Any] = {'labelled': labelled, 'workers': workers, 'progress': progress}
    if isinstance(dataset, list | tuple) and not (dataset and all(isinstance(one, Mapping) for one in dataset)):
        name = name or 'pooled datasets'
        if not dataset:
            raise ValueError(f'{name}: at least one dataset is needed, found an empty list')
        adapted = [
            adapt(part, size=size, spec=spec, name=f'dataset {k} of {len(dataset)}', **given, **options)
            for k, part in enumerate(dataset, 1)
        ]
        together: Dataset[Sample] = ConcatDataset(adapted)
        return adapt(together, name=name, spec=None if labelled else adapted[0].spec, **options)
    opened = DataArrayImage(dataset) if is_data_array(dataset) else dataset
    name = name or type(opened).__name__
    require_map_style(opened, name)
    if not len(opened):
        raise ValueError(f'{name} is empty: at least one sample is needed; check its folder, split or subset')
    raw = read(opened, 0, name)
    if spec is None and labelled:
        spec = infer_spec(opened, raw, name, given)
    elif spec is None:
        raise ValueError(f'{name}: without labels, a spec is needed: that of the samples with labels')
    elif given:
        changes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        spec = replace(spec, **changes)
    if not labelled:  # of their own layout and size, whatever the labelled ones are
        image = in_contract(raw, f'{name}: sample 0', labelled=False)['image']
        flat: Kind = 'segmentation' if spec.kind in ('spectrum', 'change') else spec.kind
        kinds: dict[int, Kind] = {1: 'spectrum', 3: flat, 4: 'change'}
        own_size = None if image.ndim == 1 else (image.shape[-2], image.shape[-1])
        spec = replace(spec, kind=kinds[image.ndim], size=own_size)
    if size is None:
        return AdaptedDataset(opened, spec, name, **options)
    if spec.kind == 'spectrum':
        raise ValueError(f'{name}: size={size} is for images, its samples are spectra')
    given_size = check_value(name, 'size', size, int | tuple[int, int])
    sides = cast('tuple[int, int]', (given_size, given_size) if isinstance(given_size, int) else tuple(given_size))
    spec = replace(spec, size=sides)
    if isinstance(opened, ChangeFolder) and opened.size is None and opened.transforms is None:
        return AdaptedDataset(opened.cut(sides), spec, name, **options)  # which reads no more than it must
    return AdaptedDataset(opened, spec, name, tile=True, **options)
