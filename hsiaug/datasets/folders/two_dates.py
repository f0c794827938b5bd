"""Folders of places, such as cities, each with images of two dates and a change mask."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ...samples import Sample, Transform
from ...scenes.change import CHANGE_CLASSES
from ...scenes.files import FilesNotFoundError
from ...scenes.raster import require_one_place
from ...scenes.windows import tile_corners
from ...seen import Places, digest_of_parts
from ..real.held import IGNORE, RealDataset
from .image_files import SUFFIXES, WHOLE, ImageFiles, MaskFiles, Window, image_files, subfolders

MASKS = ('mask', 'masks', 'cm', 'change', 'changes', 'change_map', 'change_mask', 'label', 'labels', 'gt')
"""Usual names of a change mask, or of the folder that holds it, in any case."""


class ChangeFolder(RealDataset):
    """Pairs of dates with change masks, one folder per place, read on demand: whole, or in windows of one size.

    ``root/<city>/`` holds two dates and a mask. A date is a file with all bands (GeoTIFF, ENVI, NumPy, ...) or a folder
    with a file per band, such as ``B02.tif``. Both dates and the mask of a place have the same grid; places may
    differ in size. From GeoTIFF and ENVI files, only the required window is read. Pixels not measured at a date get the
    mean of its other pixels and are ignored in the mask.

    To read OSCD, use ``ChangeFolder('... - Images', masks='... - Train Labels', dates=('imgs_1_rect', 'imgs_2_rect'),
    mask='cm/cm.png', label_map={0: 0, 255: 1})``.

    Args:
        root: folder that holds a folder per place.
        masks: folder with a folder per place that holds its mask, if masks are kept apart; only its places are used.
        split: ``root/<split>.txt`` that lists places, one per line or comma-separated, or a folder ``root/<split>/``.
        cities: places to use; if None, all.
        dates: names of the two dates in the folder of a place, in order; suffixes may be omitted. If None, the only two
            images or folders of images there, in alphabetical order.
        mask: name of the mask in the folder of a place; if None, found by its usual names.
        labelled: whether there are masks; if not, samples are unlabelled.
        size: side, or height and width, of the windows that places are cut into, without remainders at the edges. None
            for whole places, which :func:`~hsiaug.datasets.adapt` and :func:`hsiaug.fit` cut with ``size=``.
        bands: indices of the bands to use, 0-based; or their names, if dates are folders.
        label_map: value in a mask to 0 (unchanged) or 1 (changed); None takes 0 and 1 as they are.
        wavelengths, ignore, scale, unit, nodata, transforms: as for :class:`~hsiaug.datasets.PairFolder`.

    Attributes:
        groups: place of each sample.

    Raises:
        DatasetNotFoundError: if a folder, a place or the split is missing.
        ValueError: naming the place that has no two dates or no mask, or if all are smaller than ``size``.
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
        self.root, self.labelled, self.transforms = Path(root).expanduser(), labelled, transforms
        classes = tuple(CHANGE_CLASSES.values())
        self.masks = MaskFiles('ChangeFolder', classes, label_map, ignore, few=True)
        mask_root = None if masks is None else Path(masks).expanduser()
        self.cities = self._cities(split, cities, mask_root)
        self.files = []
        for city in self.cities:
            folder = self.root / city
            found = _mask(folder if mask_root is None else mask_root / city, mask) if labelled else None
            self.files.append((*_dates(folder, dates, found), found))
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

    def _cities(self, split: str | None, cities: Sequence[str] | None, masks: Path | None) -> list[str]:
        """Names of the places, in order."""
        if split is not None and (self.root / split).is_dir():
            self.root, split = self.root / split, None
        for folder in (self.root, masks or self.root):
            if not folder.is_dir():
                raise FilesNotFoundError(f'ChangeFolder: no folder {folder}; it should hold a folder per place')
        held, masked = ([path.name for path in subfolders(folder)] for folder in (self.root, masks or self.root))
        if cities is None and (apart := [name for name in held if name.lower() in MASKS]):
            raise ValueError(
                f'ChangeFolder: {self.root} holds {held[:8]}; {apart[0]!r} seems to hold masks, and the others a date '
                'each. Give every pair a folder of its own, such as 1/A.tif, 1/B.tif and 1/mask.png'
            )
        names = list(masked if cities is None else cities)
        if split is not None:
            listing = self.root / f'{split}.txt'
            if not listing.is_file():
                raise FilesNotFoundError(
                    f'ChangeFolder: no split {split!r}: neither {listing} nor {self.root / split} exists'
                )
            listed = [name.strip() for name in re.split('[,\n]', listing.read_text('utf-8-sig')) if name.strip()]
            names = [name for name in listed if cities is None or name in cities]
        if missing := [name for name in names if name not in held or name not in masked]:
            where = f'{self.root} and {masks}' if masks is not None else str(self.root)
            raise FilesNotFoundError(
                f'ChangeFolder: no folders {missing[:8]} in {where}, which hold {sorted({*held, *masked})[:20]}; every '
                'place has a folder with its two dates, and one with its mask'
            )
        if not names:
            raise FilesNotFoundError(f'ChangeFolder: no places in {masks or self.root}; it should hold a folder each')
        return names

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """(H, W) of each place.

        Raises:
            ValueError: naming a place whose dates and mask do not have one size.
        """
        found = []
        for first, second, mask in self.files:
            sizes = [self.images.size(first), self.images.size(second)]
            sizes += [] if mask is None else [cast('tuple[int, int]', self.masks.size(mask))]
            if len(set(sizes)) > 1:
                raise ValueError(
                    f'ChangeFolder: both dates and the mask of a place must be of one size, found {sizes} of {first}, '
                    f'{second} and {mask}; bring them to one grid'
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
        window = self.windows[index]
        *files, mask_file = self.files[self.place[index]]
        (first, measured, one), (second, measured_too, other) = (self.images.read(file, window) for file in files)
        if first.shape != second.shape:
            raise ValueError(
                f'ChangeFolder: both dates of a place must be of one size, found {first.shape} in {files[0]} and '
                f'{second.shape} in {files[1]}'
            )
        require_one_place(one, other)
        sample: Sample = {'image': torch.from_numpy(np.stack([first, second]))}
        if mask_file is not None:
            mask = self.masks.read(mask_file, first.shape[1:], one, window)
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
        for (first, _, _), shape in zip(self.files, self.shapes, strict=True):
            parts = (self.images.read(first, bands=[band])[0] for band in bands)
            found.append(digest_of_parts((len(bands), *shape), parts))
        return np.array(found, dtype=np.uint64)


def _entry(folder: Path, name: str) -> Path | None:
    """A file or folder by its name, with or without suffix."""
    if (folder / name).exists():
        return folder / name
    found = [file for file in image_files(folder) if file.stem == name] if folder.is_dir() else []
    return found[0] if len(found) == 1 else None


def _mask(folder: Path, name: str | None) -> Path:
    """The mask of a place.

    Raises:
        ValueError: naming the folder that has none, or several.
    """
    found = [] if name is None else [entry for entry in (_entry(folder, name),) if entry is not None]
    if name is None:
        found = [path for path in subfolders(folder) if path.name.lower() in MASKS]
        found += [file for file in image_files(folder, SUFFIXES) if file.stem.lower() in MASKS]
    files = [file for entry in found for file in (image_files(entry, SUFFIXES) if entry.is_dir() else [entry])]
    if len(files) == 1:
        return files[0]
    held = sorted(path.name for path in folder.iterdir())[:12]
    if not files:
        wanted = 'no file in ' + found[0].name if found else f'neither {name or " nor ".join(MASKS)}'
        raise ValueError(
            f'ChangeFolder: {folder} has no mask, {wanted}; it holds {held}; name it '
            'with mask=, or give labelled=False for places without masks'
        )
    raise ValueError(f'ChangeFolder: {[str(file) for file in files]} could all be the mask; name one with mask=')


def _dates(folder: Path, names: tuple[str, str] | None, mask: Path | None) -> tuple[Path, Path]:
    """The two dates of a place, files or folders.

    Raises:
        ValueError: if there are not two.
    """
    if names is not None:
        found = [entry for name in names if (entry := _entry(folder, name)) is not None]
    else:
        inside = [path for path in subfolders(folder) if image_files(path)] + image_files(folder)
        masks = [] if mask is None else [mask, mask.parent]
        found = [path for path in inside if path not in masks and path.stem.lower() not in MASKS]
    if len(found) != 2 or (names is not None and len(names) != 2):
        held = sorted(path.name for path in folder.iterdir())[:12]
        wanted = 'two images, or two folders of images,' if names is None else f'{list(names)}'
        raise ValueError(
            f'ChangeFolder: the dates of {folder} are not two: expected {wanted} besides the mask, found '
            f'{[path.name for path in found]} among {held}; name them with dates=, in order'
        )
    return found[0], found[1]
