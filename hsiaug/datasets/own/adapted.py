"""Adapts any dataset to the sample contract: torchgeo's keys, one size, a spec, and digests of its samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, cast

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset
from torchgeo.datasets import NonGeoDataset

from ...functional.dates import stacked_dates
from ...progress import with_progress
from ...samples import Kind, Sample, SampleSpec, as_classes, target_of
from ...scenes.change import CHANGE_CLASSES
from ...scenes.wavelengths import given_centres
from ...scenes.windows import tile_corners
from ...seen import Places
from ...settings import check_value
from ..contract.batches import kind_of, row_numbers
from ..contract.samples import as_centres, in_contract, require_same_wavelengths, require_values, wavelengths_of
from ..contract.wrapped import class_names_of, is_xarray, places_of, require_map_style, spec_of
from ..folders.two_dates import ChangeFolder
from ..real.held import class_pixels
from .foreign import DataArrayImage
from .reading import IN_MEMORY, read, read_ahead, usual_workers
from .survey import Survey, cut, digests_of_dates


class AdaptedDataset(NonGeoDataset):
    """A dataset whose samples follow the sample contract and one spec; made by :func:`adapt`.

    Samples are read on demand. Everything that requires reading all of them (:meth:`survey`) is computed in one pass,
    when first needed.

    Args:
        dataset: map-style dataset.
        spec: spec of the samples; with ``tile``, its size is that of the tiles.
        name: name of the dataset in messages.
        tile: cut images into tiles of the spec's size.
        stride: step between tiles; if None, they do not overlap.
        labelled: whether samples have targets.
        workers: number of processes that read; if None, there are none while samples fit in memory.
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
        stride: int | None = None,
    ) -> None:
        self.dataset, self.spec, self.name, self.tile, self.labelled = dataset, spec, name, tile, labelled
        self.workers, self.progress, self.stride = workers, progress, stride
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
        index, key = int(row_numbers([index], len(self), self.name)[0]), self.spec.target_key
        if not self.tile:
            sample, wanted = self._whole(index), self.spec.size
            if wanted is not None and (found := tuple(sample['image'].shape[-2:])) != wanted:
                raise ValueError(
                    f'{self.name}: sample {index}: its image has {found} pixels, the first sample {wanted}; give size= '
                    'to cut all into patches of one size'
                )
            return sample
        survey = self.survey()
        if survey.images is not None:
            sample = {'image': survey.images[index].clone()}  # the caller's own
            return sample if survey.targets is None else {**sample, key: survey.targets[index].clone()}
        whole = self._whole(int(survey.rows[index]))
        images, targets = cut(whole['image'], whole.get(key), survey.corners[index : index + 1], self._tile_size)
        return {'image': images[0]} if targets is None else {'image': images[0], key: targets[0]}

    def _whole(self, row: int) -> Sample:
        """One sample of the dataset in the contract, not cut, checked against the spec.

        Raises:
            ValueError: naming it.
        """
        where, spec = f'{self.name}: sample {row}', self.spec
        raw = read(self.dataset, row, self.name)
        sample = in_contract(raw, where, spec.kind if self.labelled else None, self.labelled)
        image = sample['image']
        found = image.shape[0] if spec.kind == 'spectrum' else image.shape[-3]
        if image.ndim != len(spec.image_shape) or found != spec.bands:
            raise ValueError(
                f'{where}: its image {tuple(image.shape)} is none of {spec.bands} bands and kind {spec.kind!r}, as the '
                'first sample is; bring all to the same bands'
            )
        if spec.wavelengths is not None and (carried := wavelengths_of(raw, where)) is not None:
            require_same_wavelengths(spec.wavelengths, carried, where)
        require_values({key: value[None] for key, value in sample.items()}, spec, self.name, row)
        return sample

    @property
    def _tile_size(self) -> tuple[int, int]:
        return self.spec.size or (1, 1)

    # --- all samples ------------------------------------------------------------------------------------------------

    def survey(self, most: int = 0) -> Survey:
        """Everything that needs all samples, found in one pass.

        Args:
            most: bytes of samples that are kept in memory on the way; of larger datasets none are.

        Raises:
            ValueError: what is wrong with the first sample of which something is, or if images are of several sizes
                and not cut into tiles, or all too small for one.
        """
        known = self._survey
        if known is None or (
            known.images is None and most > self._held_from and len(known.rows) * self.spec.sample_bytes <= most
        ):
            with torch.random.fork_rng(devices=[]):  # what is drawn later does not depend on when it was read
                known = self._survey = self._survey_all(most)
            self._held_from = most
        return known

    def _survey_all(self, most: int) -> Survey:
        # how many tiles there are is known in the end: they are kept as long as they fit
        keep = most > 0 and (self.tile or len(self.dataset) * self.spec.sample_bytes <= most)
        workers = self.workers if self.workers is not None else 0 if keep else usual_workers()
        surveys = read_ahead(partial(self._survey_one, keep=keep), range(len(self.dataset)), workers)
        parts: list[Survey] = []
        held, size = 0, None
        for found in with_progress(surveys, self.progress, total=len(self.dataset), desc=self.name, unit='sample'):
            parts.append(found)
            held += sum(one.nbytes for one in (found.images, found.targets) if one is not None)
            size = size or found.sizes[0]
            if keep and (held > most or (found.sizes[0] != size and not self.tile)):
                keep, parts = False, [replace(part, images=None, targets=None) for part in parts]
            elif not keep:
                parts[-1] = replace(found, images=None, targets=None)
        sizes = Counter(part.sizes[0] for part in parts)
        if len(sizes) > 1 and not self.tile:
            self._refuse_sizes(sizes, [part.sizes[0] for part in parts])
        if not any(len(part.rows) for part in parts):
            largest = max(filter(None, sizes))
            raise ValueError(
                f'{self.name}: no image is as large as size={self.spec.size}; the largest is {largest}; give a smaller '
                'size='
            )
        return Survey.joined(parts)

    def _survey_one(self, row: int, keep: bool) -> Survey:
        """The survey of one sample, with images and targets if they are to be kept."""
        sample, spec = self._whole(row), self.spec
        image, target = sample['image'], sample.get(spec.target_key)
        size = None if spec.kind == 'spectrum' else (image.shape[-2], image.shape[-1])
        if self.tile:
            corners = tile_corners(size or (0, 0), self._tile_size, self.stride)
            images, targets = cut(image, target, corners, self._tile_size)
        else:
            corners, images = np.zeros((1, 2), dtype=np.int64), image[None]
            targets = None if target is None else target[None]
        digests = np.array([digests_of_dates(one) for one in images], dtype=np.uint64).reshape(-1, spec.dates)
        whole = digests_of_dates(image)[0] if self.tile else digests[0, 0]
        pixels = np.zeros((len(images), spec.num_classes), dtype=np.int64)
        values = (stacked_dates(images) if size else images).double().movedim(1, 0).flatten(1)
        sums = torch.stack([values.sum(dim=1), (values**2).sum(dim=1)]).numpy()
        return Survey(
            (size,), np.full(len(images), row), corners, digests, np.full(len(images), whole, dtype=np.uint64),
            pixels if targets is None else class_pixels(targets, spec).numpy(), sums, values.shape[1],
            images.contiguous() if keep else None, targets if keep else None,
        )  # fmt: skip

    def _refuse_sizes(self, counts: Counter[Any], sizes: Sequence[Any]) -> NoReturn:
        listed = ', '.join(
            f'{h} x {w} ({count}, first sample {sizes.index((h, w))})' for (h, w), count in list(counts.items())[:5]
        )
        raise ValueError(
            f'{self.name}: images of {len(counts)} sizes: {listed}{", ..." if len(counts) > 5 else ""}; give size= to '
            f'cut all into patches of one size, at most {min(min(size) for size in counts)} to use every image'
        )

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
        ends = found.corners + np.array(self._tile_size)
        box = np.stack([found.corners[:, 0], ends[:, 0], found.corners[:, 1], ends[:, 1]], axis=1)
        return Places(found.whole, box.astype(np.float64))


def adapt(
    dataset: Any,
    *,
    size: int | tuple[int, int] | None = None,
    stride: int | None = None,
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
    """Convert any real dataset to the sample contract, so that generators can learn from it and it can be mixed into.

    Args:
        dataset: map-style dataset whose samples follow the contract or have torchgeo's own keys: two dates as
            ``image1`` and ``image2``, masks (H, W) or (1, H, W), ``wavelength``; or a list of such samples; or a list
            of such datasets, which are pooled; or an ``xarray.DataArray`` of one image with a wavelength coordinate,
            wrapped in :class:`~hsiaug.datasets.DataArrayImage` if it has labels. Wrap a torchgeo ``GeoDataset`` in
            :class:`~hsiaug.datasets.GeoSamples`.
        size: side, or height and width, of the tiles that images are cut into, if they are large or differ in size.
            Remainders at the right and bottom, and images smaller than a tile, are left out.
        stride: step between tiles, which overlap if it is smaller than ``size``; if None, they do not.
        spec: spec of the samples; if None, it is inferred from the dataset's own ``spec``, its attributes (``classes``,
            ``wavelengths``, ``unit``, ...), and its first sample.
        kind: kind of the samples, if their layout does not determine it: images with both a label and a mask.
        classes: class names in label order.
        wavelengths: band centres in nm.
        wavelengths_approximate: whether the wavelengths are nominal.
        ignore_index: label of pixels to ignore.
        value_range: lowest and highest value allowed by the unit.
        unit: physical unit.
        labelled: whether samples have targets; if not, ``spec`` is required.
        workers: number of processes that read; if None, there are none while samples fit in memory.
        progress: show progress bars when all samples are read.
        name: name of the dataset in messages; by default, that of its class.

    Raises:
        TypeError: if it is not such a dataset.
        ValueError: if it is empty, or a field of the spec must be given; the message says which and why.
    """
    given: dict[str, Any] = {
        'kind': kind, 'classes': classes, 'wavelengths': wavelengths, 'ignore_index': ignore_index,
        'wavelengths_approximate': wavelengths_approximate, 'value_range': value_range, 'unit': unit,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    check_value(name or type(dataset).__name__, 'kind', kind, Kind | None)
    for key in {'wavelengths', 'value_range'} & given.keys():
        given[key] = tuple(given[key])
    if classes is not None:
        given['classes'] = as_classes(classes, name or type(dataset).__name__)
    as_it_is = isinstance(dataset, AdaptedDataset) and size is None and not given
    if as_it_is and dataset.labelled == labelled and spec in (None, dataset.spec):
        return cast(AdaptedDataset, dataset)
    options: dict[str, Any] = {'labelled': labelled, 'workers': workers, 'progress': progress}
    if isinstance(dataset, list | tuple) and not (dataset and all(isinstance(one, Mapping) for one in dataset)):
        name = name or 'pooled datasets'
        if not dataset:
            raise ValueError(f'{name}: at least one dataset is needed, found an empty list')
        adapted = [
            adapt(part, size=size, stride=stride, spec=spec, name=f'dataset {k} of {len(dataset)}', **given, **options)
            for k, part in enumerate(dataset, 1)
        ]
        together: Dataset[Sample] = ConcatDataset(adapted)
        return adapt(together, name=name, spec=None if labelled else adapted[0].spec, **options)
    opened = DataArrayImage(dataset) if is_xarray(dataset, 'DataArray') else dataset
    name = name or type(opened).__name__
    require_map_style(opened, name)
    if not len(opened):
        raise ValueError(f'{name} is empty: at least one sample is needed; check its folder, split or subset')
    raw = read(opened, 0, name)
    if spec is None and labelled:
        spec = _infer_spec(opened, raw, name, given)
    elif spec is None:
        raise ValueError(f'{name}: a spec is needed for samples without labels; give that of the labelled samples')
    elif given:
        spec = replace(spec, **given)
    if not labelled:  # of their own layout and size, whatever the labelled ones are
        image = in_contract(raw, f'{name}: sample 0', labelled=False)['image']
        flat: Kind = 'segmentation' if spec.kind in ('spectrum', 'change') else spec.kind
        kinds: dict[int, Kind] = {1: 'spectrum', 3: flat, 4: 'change'}
        own_size = None if image.ndim == 1 else (image.shape[-2], image.shape[-1])
        spec = replace(spec, kind=kinds[image.ndim], size=own_size)
    if stride is not None:
        check_value(name, 'stride', stride, int)
    if size is None:
        if stride is not None:
            raise ValueError(f'{name}: stride={stride} is for tiles; give their size= too')
        return AdaptedDataset(opened, spec, name, **options)
    if spec.kind == 'spectrum':
        raise ValueError(f'{name}: size={size} is for images, but its samples are spectra; leave it out')
    given_size = check_value(name, 'size', size, int | tuple[int, int])
    sides = cast('tuple[int, int]', (given_size, given_size) if isinstance(given_size, int) else tuple(given_size))
    spec = replace(spec, size=sides)
    if stride is None and isinstance(opened, ChangeFolder) and opened.size is None and opened.transforms is None:
        return AdaptedDataset(opened.cut(sides), spec, name, **options)  # which reads no more than it must
    return AdaptedDataset(opened, spec, name, tile=True, stride=stride, **options)


def _infer_spec(dataset: Any, raw: Any, name: str, given: Mapping[str, Any]) -> SampleSpec:
    """What a dataset holds: by what is given first, its own spec, its attributes, and its first sample, ``raw``.

    Raises:
        ValueError: naming a field that has to be given.
    """
    sample = in_contract(raw, f'{name}: sample 0', given.get('kind'))
    kind = kind_of(sample)
    assert kind is not None
    shape = tuple(sample['image'].shape)
    bands, size = (shape[0], None) if kind == 'spectrum' else (shape[-3], (shape[-2], shape[-1]))
    if kind == 'scene' and shape[0] == shape[1] != shape[2] and spec_of(dataset) is None:
        raise ValueError(
            f'{name}: an image {shape} looks as if its bands came last; (C, H, W) is expected, as torchgeo has it: '
            'give image.permute(2, 0, 1), or spec= if it is that'
        )
    carried, found = wavelengths_of(raw, f'{name}: sample 0'), dict(given)
    wanted = given.get('wavelengths', ())
    if len(wanted) == bands and (centres := given_centres(wanted, name)) is not None:
        found['wavelengths'] = tuple(centres.tolist())
    found |= {'kind': kind, 'bands': bands, 'size': size}
    if (own := spec_of(dataset)) is not None:
        kept = own.wavelengths if own.bands == bands else None
        return replace(own, **{'wavelengths': kept or carried, **found})
    known = {'wavelengths': carried, **_attributes(dataset, bands), **found}
    classes = known.pop('classes', None) or class_names_of(dataset)
    if classes is None and kind == 'change':
        classes = tuple(CHANGE_CLASSES.values())
    if classes is None:
        raise ValueError(
            f'{name} does not say which classes its {target_of(kind)}s mean (an attribute `classes` with their names '
            "in label order); give classes=['...', ...]"
        )
    return SampleSpec(classes=tuple(classes), **known)


def _attributes(dataset: Any, bands: int) -> dict[str, Any]:
    """Fields of a spec that a dataset has as attributes, where these can be what their names say."""
    found: dict[str, Any] = {}
    centres = as_centres(getattr(dataset, 'wavelengths', None))
    if centres is not None and len(centres) == bands:
        found['wavelengths'] = centres
    for key, wanted in (('unit', str), ('ignore_index', int)):
        if isinstance(value := getattr(dataset, key, None), wanted):
            found[key] = value
    return found
