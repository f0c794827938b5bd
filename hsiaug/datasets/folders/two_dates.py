"""Folders of images of two dates and change masks: a folder per place, such as a city, or a folder per date."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ...samples import Sample, Transform, in_short
from ...scenes.change import CHANGE_CLASSES
from ...scenes.files import FilesNotFoundError
from ...scenes.raster import require_one_place
from ...scenes.windows import tile_corners
from ...seen import Places, digest_of_parts
from ..contract.batches import row_numbers
from ..real.held import IGNORE, RealDataset
from .image_files import IMAGE_SUFFIXES, SUFFIXES, WHOLE, ImageFiles, MaskFiles, Window, image_files, subfolders
from .matching import entries, held_in, matched, names_of, only_one, root_of

MASKS = ('mask', 'masks', 'cm', 'change', 'changes', 'change_map', 'change_mask', 'label', 'labels', 'gt')
"""Usual names of a change mask, or of the folder that holds it, in any case."""


class ChangeFolder(RealDataset):
    """Pairs of dates with change masks, read on demand: whole, or in windows of one size.

    ``root/<place>/`` holds two dates and a mask, or ``root`` holds a folder for each date and one of masks, with files
    of the same stem for the same place. A date is a file with all bands (GeoTIFF, ENVI, NumPy, ...) or, in the folder
    of a place, a folder with a file per band, such as ``B02.tif``. Both dates and the mask of a place have the same
    grid; places may differ in size. From GeoTIFF and ENVI files, only the required window is read. Pixels not measured
    at a date get the mean of its other pixels and are ignored in the mask.

    To read OSCD, use ``ChangeFolder('... - Images', masks='... - Train Labels', dates=('imgs_1_rect', 'imgs_2_rect'),
    mask='cm/cm.png', label_map={0: 0, 255: 1})``; LEVIR-CD with ``A``, ``B`` and ``label`` in each split,
    ``ChangeFolder('LEVIR-CD', split='train', label_map={0: 0, 255: 1})``.

    Args:
        root: folder that holds a folder per place, or per date.
        masks: folder with a folder per place that holds its mask, if masks are kept apart; only its places are used.
        split: ``root/<split>.txt`` or ``root/list/<split>.txt`` that lists places, one per line or comma-separated, or
            a folder ``root/<split>/``.
        cities: places to use; if None, all.
        dates: names of the two dates in the folder of a place, in order, whose suffixes may be omitted; or of their
            folders. If None, the only two images or folders of images there, in alphabetical order.
        mask: name of the mask in the folder of a place, or of the folder of masks; if None, found by its usual names.
        labelled: whether there are masks; if not, samples are unlabelled.
        size: side, or height and width, of the windows that places are cut into, without remainders at the edges. None
            for whole places, which :func:`~hsiaug.datasets.adapt` and :func:`hsiaug.fit` cut with ``size=``.
        bands: indices of the bands to use, 0-based; or their names, if dates are folders.
        label_map: value in a mask to 0 (unchanged) or 1 (changed); None takes 0 and 1 as they are.
        wavelengths, ignore, scale, unit, nodata, transforms: as for :class:`~hsiaug.datasets.PairFolder`.

    Attributes:
        groups: place of each sample.

    Raises:
        DatasetNotFoundError: if a folder, a place, a mask or the split is missing.
        ValueError: naming the place that has not two dates, or if all are smaller than ``size``.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        masks: str | os.PathLike[str] | None = None,
        split: str | None = None,
        cities: Sequence[str] | None = None,
        dates: tuple[str, str] | None = None,
        mask: str | None = None,
        labelled: bool = True,
        size: int | tuple[int, int] | None = None,
        bands: Sequence[int] | Sequence[str] | None = None,
        wavelengths: Sequence[float] | None = None,
        label_map: Mapping[int, int] | None = None,
        ignore: Sequence[int] = (),
        scale: float | None = None,
        unit: str | None = None,
        nodata: float | None = None,
        transforms: Transform | None = None,
    ) -> None:
        self.root, split = root_of('ChangeFolder', root, split, 'a folder per place')
        self.labelled, self.transforms = labelled, transforms
        classes = tuple(CHANGE_CLASSES.values())
        self.masks = MaskFiles('ChangeFolder', classes, label_map, ignore, few=True)
        of_masks = self.root if masks is None else root_of('ChangeFolder', masks, None, 'a folder per place')[0]
        if masks is None and _by_date(self.root, dates, mask):
            folders = _roles(self.root, self.root, dates, mask, labelled, whole=True)
            found = matched('ChangeFolder', self.root, folders[:2], folders[2:], split, cities)
        else:
            found = [
                (city, _roles(self.root / city, of_masks / city, dates, mask, labelled))
                for city in self._places(split, cities, of_masks)
            ]
        self.cities, self.files = [city for city, _ in found], [files for _, files in found]
        self.images = ImageFiles('ChangeFolder', self.files[0][0], bands, wavelengths, scale, nodata, one_size=False)
        self.place = np.arange(len(self.cities))
        self.windows: list[Window] = [WHOLE] * len(self.cities)
        self.spec = self.images.spec('change', classes, unit, IGNORE)
        self.size: tuple[int, int] | None = None
        if size is not None:
            self._cut((size, size) if isinstance(size, int) else (size[0], size[1]))

    def cut(self, size: tuple[int, int]) -> ChangeFolder:
        """The same places cut into windows of one size; no place is read as a whole."""
        windows = copy(self)
        windows._cut(size)
        return windows

    def _cut(self, size: tuple[int, int]) -> None:
        corners = [tile_corners(shape, size) for shape in self.shapes]
        self.place = np.repeat(np.arange(len(corners)), [len(of_city) for of_city in corners])
        if not len(self.place):
            raise ValueError(
                f'ChangeFolder: no place of {self.root} is as large as size={size}; the largest is {max(self.shapes)}'
            )
        rows = [(slice(row, row + size[0]), slice(column, column + size[1])) for row, column in np.concatenate(corners)]
        self.windows, self.size, self.spec = rows, size, replace(self.spec, size=size)

    # --- files ------------------------------------------------------------------------------------------------------

    def _places(self, split: str | None, cities: Sequence[str] | None, masks: Path) -> list[str]:
        """Names of the folders of places, in order."""
        held, masked = ([path.name for path in subfolders(folder)] for folder in (self.root, masks))
        names = names_of('ChangeFolder', self.root, split, masked, cities, ',\n')
        if split is None and cities is None and (left := [name for name in held if name not in masked]):
            warnings.warn(
                f'ChangeFolder: {len(left)} of {len(held)} places of {self.root} have no folder in {masks} and are '
                f'left out: {in_short(left)}; name those that are meant with cities=',
                stacklevel=3,
            )
        if missing := [name for name in names if name not in held or name not in masked]:
            raise FilesNotFoundError(
                f'ChangeFolder: no folders {missing[:8]} in {" and ".join({str(self.root): 0, str(masks): 0})}, which '
                f'hold {sorted({*held, *masked})[:20]}; every place has a folder with its two dates and its mask'
            )
        if not names:
            raise FilesNotFoundError(f'ChangeFolder: no places in {masks}; it should hold a folder each')
        return names

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """(H, W) of each place.

        Raises:
            ValueError: naming a place whose dates and mask do not have one size.
        """
        found = []
        for first, second, *masks in self.files:
            sizes = [self.images.size(first), self.images.size(second)]
            sizes += [cast('tuple[int, int]', self.masks.size(mask)) for mask in masks]
            if len(set(sizes)) > 1:
                raise ValueError(
                    f'ChangeFolder: both dates and the mask of a place must be of one size, found {sizes} of {first}, '
                    f'{second} and {masks}; bring them to one grid'
                )
            found.append(sizes[0])
        return found

    # --- samples ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of windows, or of places."""
        return len(self.windows)

    def __getitem__(self, index: int) -> Sample:
        """``image`` (2, C, H, W) float32 in the unit and, where labelled, ``mask`` (1, H, W) int64.

        Raises:
            IndexError: if it is out of range.
            ValueError: naming the file that does not fit the others, lies elsewhere on the map or holds an unknown mask
                value.
        """
        index = int(row_numbers([index], len(self), 'ChangeFolder')[0])
        window = self.windows[index]
        files, masks = self.files[self.place[index]][:2], self.files[self.place[index]][2:]
        (first, measured, one), (second, measured_too, other) = (self.images.read(file, window) for file in files)
        if first.shape != second.shape:
            raise ValueError(
                f'ChangeFolder: both dates of a place must be of one size, found {first.shape} in {files[0]} and '
                f'{second.shape} in {files[1]}'
            )
        require_one_place(one, other)
        sample: Sample = {'image': torch.from_numpy(np.stack([first, second]))}
        for file in masks:
            mask = self.masks.read(file, first.shape[1:], one, window)
            sample['mask'] = torch.from_numpy(np.where(measured & measured_too, mask, IGNORE))[None]
        return self._transformed(sample)

    @property
    def groups(self) -> list[str]:
        """Place of each sample, which splits keep together."""
        return [self.cities[k] for k in self.place]

    def places(self) -> Places:
        """Windows of the places, identified by the content of their first date."""
        sides = [
            [part.indices(side)[:2] for part, side in zip(window, self.shapes[k], strict=True)]
            for k, window in zip(self.place, self.windows, strict=True)
        ]
        return Places(self._digests[self.place], np.array(sides, dtype=np.float64).reshape(-1, 4))

    @cached_property
    def _digests(self) -> np.ndarray:
        """(places,) uint64 digests of the whole first dates, read band by band."""
        bands, found = range(len(self.images.bands)), []
        for (first, *_), shape in zip(self.files, self.shapes, strict=True):
            parts = (self.images.read(first, bands=[band])[0] for band in bands)
            found.append(digest_of_parts((len(bands), *shape), parts))
        return np.array(found, dtype=np.uint64)


def _by_date(root: Path, dates: tuple[str, str] | None, mask: str | None) -> bool:
    """Whether a folder holds one per date, and one of masks, instead of one per place."""
    if dates is None:
        return any(path.is_dir() for path in entries(root, mask, MASKS))
    return all((root / date).is_dir() for date in dates)


def _roles(
    folder: Path, masked: Path, dates: tuple[str, str] | None, mask: str | None, labelled: bool, whole: bool = False
) -> list[Path]:
    """First date, second date and, where labelled, mask, which is in the folder ``masked``.

    Each is a file, or a date a folder of bands; ``whole``, each is the folder of all places.

    Raises:
        DatasetNotFoundError: naming the folder that has no mask.
        ValueError: naming the folder that has not two dates, or several masks.
    """
    masks = []
    if labelled:
        found, wanted = entries(masked, mask, MASKS), f'called {mask or " or ".join(MASKS)}'
        if len(found) == 1 and found[0].is_dir() and not whole:
            found, masked, wanted = image_files(found[0], SUFFIXES), found[0], 'no file'
        hint = ', or give labelled=False for places without masks, dates= and split= for folders of one date each'
        masks = [only_one('ChangeFolder', 'mask', found, masked, wanted, hint)]
    if dates is None:
        inside = [path for path in subfolders(folder) if image_files(path)] + image_files(folder)
        others = {*masks, *(path.parent for path in masks)}
        pair = [path for path in inside if path not in others and path.stem.lower() not in MASKS]
    else:
        pair = [entry for name in dates for entry in entries(folder, name, suffixes=IMAGE_SUFFIXES)]
    if len(pair) != 2 or (dates is not None and len(dates) != 2):
        wanted = 'two images, or two folders of images,' if dates is None else f'{list(dates)}'
        raise ValueError(
            f'ChangeFolder: the dates of {folder} are not two: expected {wanted} besides the mask, found '
            f'{[path.name for path in pair]} among {held_in(folder)}; name them with dates=, in order'
        )
    return [*pair, *masks]
