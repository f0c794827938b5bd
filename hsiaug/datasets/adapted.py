"""Any dataset as a dataset in the sample contract: torchgeo's keys, one size, a spec, and what was seen of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset
from torchgeo.datasets import NonGeoDataset

from ..samples import Kind, Sample, SampleSpec
from ..seen import Places
from ..settings import check_value
from .change_folder import ChangeFolder
from .contract import SPEC_FIELDS, in_contract, infer_spec
from .data_array import DataArrayImage, is_data_array
from .survey import IN_MEMORY, Look, Looker, cut, looks, read, usual_workers
from .wrapped import places_of, require_map_style


@dataclass(frozen=True)
class Survey:
    """What one pass has found of the samples, N of them.

    Args:
        rows: (N,) which sample of the dataset each is cut from.
        corners: (N, 2) where.
        digests: (N, d) uint64 of their images, one per date.
        whole: (N,) uint64 of the image that they are cut from.
        pixels: (N, K) pixels, or samples, of each class.
        sums: (2, dates times C) float64 sums of values and of their squares.
        values: how many there are per band.
        images: (N, ...) float32 where they fit in memory, else None.
        targets: (N, ...) int64, likewise; None too where samples have none.
    """

    rows: np.ndarray
    corners: np.ndarray
    digests: np.ndarray
    whole: np.ndarray
    pixels: np.ndarray
    sums: np.ndarray
    values: int
    images: Tensor | None
    targets: Tensor | None


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
        progress: show a progress bar while all samples are looked at.
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
        looker = Looker(self.dataset, self.name, self.spec, self.tile, self.labelled, False)
        if not self.tile:
            return _of_size(looker.sample(index), self.spec, f'{self.name}: sample {index}')
        found = self.survey()
        if found.images is not None:
            sample = {'image': found.images[index]}
            return sample if found.targets is None else {**sample, key: found.targets[index]}
        whole = looker.sample(int(found.rows[index]))
        size = self.spec.size or (1, 1)
        images, targets = cut(whole['image'], whole.get(key), found.corners[index : index + 1], size)
        return {'image': images[0]} if targets is None else {'image': images[0], key: targets[0]}

    # --- all samples ------------------------------------------------------------------------------------------------

    def survey(self, most: int = 0) -> Survey:
        """Everything that needs all samples, found in one pass.

        Args:
            most: bytes of samples that are kept in memory on the way; larger datasets are looked at only.

        Raises:
            ValueError: naming a sample that does not fit the others.
        """
        known = self._survey
        if known is None or (
            known.images is None and most > self._held_from and len(known.rows) * self.spec.sample_bytes <= most
        ):
            known = self._survey = self._look_at_all(most)
            self._held_from = most
        return known

    def _look_at_all(self, most: int) -> Survey:
        sizes: Counter[Any] = Counter()
        example: dict[Any, int] = {}
        kept: list[tuple[Tensor, Tensor | None]] | None = [] if self._fits(most) else None
        workers = self.workers if self.workers is not None else 0 if kept is not None else usual_workers()
        found: list[Look] = []
        held = 0
        looker = Looker(self.dataset, self.name, self.spec, self.tile, self.labelled, kept is not None)
        for row, look in enumerate(looks(looker, workers, self.progress)):
            sizes[look.size] += 1
            example.setdefault(look.size, row)
            if look.tiles is not None and kept is not None:
                held += sum(part.nbytes for part in look.tiles if part is not None)
                kept = None if held > most or (len(sizes) > 1 and not self.tile) else [*kept, look.tiles]
            found.append(replace(look, tiles=None))
        if len(sizes) > 1 and not self.tile:
            listed = ', '.join(f'{h} x {w} ({sizes[h, w]}, first sample {example[h, w]})' for h, w in list(example)[:5])
            side = min(min(size) for size in sizes)
            raise ValueError(
                f'{self.name}: images of {len(sizes)} sizes: {listed}{", ..." if len(sizes) > 5 else ""}; give size= '
                f'to cut all into patches of one size, at most {side} to use every image'
            )
        counts = np.array([len(look.corners) for look in found])
        if not counts.sum():
            raise ValueError(
                f'{self.name}: no image is as large as size={self.spec.size}; the largest is {max(sizes)}; give a '
                'smaller size='
            )
        return Survey(
            np.repeat(np.arange(len(found)), counts),
            np.concatenate([look.corners for look in found]),
            np.concatenate([look.digests for look in found]),
            np.repeat(np.array([look.whole for look in found], dtype=np.uint64), counts),
            np.concatenate([look.pixels for look in found]),
            np.sum([look.sums for look in found], axis=0),
            sum(look.values for look in found),
            None if kept is None else torch.cat([image for image, _ in kept]),
            None if kept is None or not self.labelled else torch.cat([cast(Tensor, target) for _, target in kept]),
        )

    def _fits(self, most: int) -> bool:
        """Whether all samples are likely to fit, by the size of a tile or of the first."""
        return most > 0 and (
            self.tile or len(self.dataset) * self.spec.sample_bytes <= most
        )  # tiles: as long as they do

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


def _of_size(sample: Sample, spec: SampleSpec, where: str) -> Sample:
    if spec.size is not None and tuple(sample['image'].shape[-2:]) != spec.size:
        raise ValueError(
            f'{where}: its image has {tuple(sample["image"].shape[-2:])} pixels, the first sample {spec.size}; give '
            'size= to cut all into patches of one size'
        )
    return sample


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
        kind: of the samples, where their layout tells nothing: images with both a label and a mask.
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
    fields: dict[str, Any] = {
        'kind': kind, 'classes': classes, 'wavelengths': wavelengths, 'ignore_index': ignore_index,
        'wavelengths_approximate': wavelengths_approximate, 'value_range': value_range, 'unit': unit,
    }  # fmt: skip
    assert set(fields) == set(SPEC_FIELDS)
    given = {key: value for key, value in fields.items() if value is not None}
    as_it_is = isinstance(dataset, AdaptedDataset) and size is None and not given
    if as_it_is and dataset.labelled == labelled and spec in (None, dataset.spec):
        return cast(AdaptedDataset, dataset)
    options: dict[str, Any] = {'labelled': labelled, 'workers': workers, 'progress': progress}
    if isinstance(dataset, list | tuple) and not (dataset and all(isinstance(one, Mapping) for one in dataset)):
        return _pooled(dataset, name or 'pooled datasets', size, spec, given, options)
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
    if not labelled:
        spec = _unlabelled_spec(in_contract(raw, f'{name}: sample 0', labelled=False)['image'], spec)
    if size is None:
        return AdaptedDataset(opened, spec, name, **options)
    if spec.kind == 'spectrum':
        raise ValueError(f'{name}: size={size} is for images, its samples are spectra')
    given_size = check_value(name, 'size', size, int | tuple[int, int])
    sides = cast('tuple[int, int]', (given_size, given_size) if isinstance(given_size, int) else tuple(given_size))
    spec = replace(spec, size=sides)
    if (
        isinstance(opened, ChangeFolder) and opened.size is None and opened.transforms is None
    ):  # reads no more than it must
        return AdaptedDataset(opened.cut(sides), spec, name, **options)
    return AdaptedDataset(opened, spec, name, tile=True, **options)


def _unlabelled_spec(image: Tensor, spec: SampleSpec) -> SampleSpec:
    """The spec of samples without targets: of their own layout and size, whatever the labelled ones are."""
    kinds: dict[int, Kind] = {1: 'spectrum', 3: 'segmentation' if spec.kind in ('spectrum', 'change') else spec.kind}
    size = None if image.ndim == 1 else (image.shape[-2], image.shape[-1])
    return replace(spec, kind=kinds.get(image.ndim, 'change'), size=size)


def _pooled(
    parts: Sequence[Any],
    name: str,
    size: int | tuple[int, int] | None,
    spec: SampleSpec | None,
    given: dict[str, Any],
    options: dict[str, Any],
) -> AdaptedDataset:
    """Several datasets as one.

    Raises:
        ValueError: if there is none, or they do not fit together.
    """
    if not parts:
        raise ValueError(f'{name}: at least one dataset is needed, found an empty list')
    adapted = [
        adapt(part, size=size, spec=spec, name=f'dataset {k + 1} of {len(parts)}', **given, **options)
        for k, part in enumerate(parts)
    ]
    together: Dataset[Sample] = ConcatDataset(adapted)
    return adapt(together, name=name, spec=None if options['labelled'] else adapted[0].spec, **options)


__all__ = ['AdaptedDataset', 'Survey', 'adapt']
