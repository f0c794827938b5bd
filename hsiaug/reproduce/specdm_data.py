"""Data of SpecDM: SegMunich and OSCD as downloaded, and their stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import rasterio
import torch
from torch.utils.data import Subset
from torchgeo.datasets import OSCD, NonGeoDataset

from ..datasets import PairFolder, adapt
from ..samples import Sample
from .base import Files, MissingDataError, Work

Which = Literal['SS', 'CD']
PAIRS, DATES, STANDS_IN = 'SegMunich', 'OSCD', 'bark beetles'
CLASSES = (
    'background', 'arable land', 'permanent crops', 'pastures', 'forests', 'surface water', 'shrub', 'open spaces',
    'wetlands', 'mine dump', 'artificial vegetation', 'urban fabric', 'buildings',
)  # fmt: skip
BACKGROUND = 0
CODES = {13: 9, 14: 10, 21: 1, 22: 2, 23: 3, 31: 4, 32: 6, 33: 7, 41: 8}
"""Class of each code in SegMunich's masks, as in the code of SpectralGPT, which published the data."""
BANDS = ('B02', 'B03', 'B04', 'B08', 'B05', 'B06', 'B07', 'B8A', 'B11', 'B12')
"""Four of 10 m and six of 20 m; the text's "B1, B2, B3 and B4" of 10 m can only be these four."""
OVERLAP = 0.6
"""Of windows of OSCD, as in the text."""
FILES = (
    Files(PAIRS, ('img', 'label'), 'https://github.com/danfenghong/IEEE_TPAMI_SpectralGPT'),
    Files(
        DATES, ('Onera*Images*', 'Onera*Train Labels*', 'Onera*Test Labels*'),
        'https://rcdaudt.github.io/oscd, zip files as they are, or unpacked',
    ),
    Files(STANDS_IN, ('s2_barkbeetle.npz',), 'Sentinel-2 pairs of dates with damage by bark beetles', True),
)  # fmt: skip


class _BarkBeetles(NonGeoDataset):
    """Pairs of dates, or their second dates, with masks of damage, of various sizes; every fourth is for testing."""

    classes = ('undamaged', 'damaged')

    def __init__(self, file: Any, which: Which, split: str) -> None:
        try:
            with np.load(file, allow_pickle=False) as stored:
                shapes, starts = stored['shape'], stored['offset']
                self.parts = [stored[key] for key in (('t1', 't2') if which == 'CD' else ('t2',))]
                self.damage, self.scale = stored['damage'], float(stored['scale'])
        except (OSError, ValueError, LookupError, BadZipFile) as error:  # numpy advises to unpickle what is no archive
            raise ValueError(
                f'{file} is no complete archive of pairs of dates, with the arrays shape, offset, t1, t2, damage and '
                'scale; download it again'
            ) from error
        rows = [row for row in range(len(shapes)) if (row % 4 == 3) == (split == 'test')]
        self.places = [(slice(*starts[row : row + 2]), tuple(shapes[row])) for row in rows]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        place, shape = self.places[index]
        dates = [
            torch.from_numpy(part[place].reshape(*shape, -1).astype(np.float32) * self.scale).movedim(-1, 0)
            for part in self.parts
        ]
        mask = torch.from_numpy(self.damage[place].reshape(shape).astype(np.int64))
        if len(dates) == 1:
            return {'image': dates[0], 'mask': mask}
        return {'image1': dates[0], 'image2': dates[1], 'mask': mask}


def classes_of(values: list[int]) -> tuple[list[str], dict[int, int]]:
    """Names of the classes found in masks, in order, and the class of each mask value.

    Values are SegMunich's own codes or classes from 0 to 12; other values become classes of their own after these.
    """
    known = {value: CODES.get(value, value) for value in values if value in CODES or 0 <= value < len(CLASSES)}
    names = {value: CLASSES[known[value]] if value in known else f'class {value}' for value in values}
    classes = list(
        dict.fromkeys(names[value] for value in sorted(values, key=lambda v: known.get(v, len(CLASSES) + v)))
    )
    return classes, {value: classes.index(names[value]) for value in values}


def segmunich(work: Work, split: str) -> Subset[Sample]:
    """A part of SegMunich: folders ``train`` and ``val``, or lists of these names; else every fifth pair tests.

    Pairs of background alone are left out. So are, in the text, those that hold a lot of it, without saying how much.
    """
    images, masks = work.found[PAIRS]
    root, part = images.parent, 'val' if split == 'test' else split
    if root.name in ('train', 'val'):
        root = root.parent
    held: dict[Path, list[int]] = {}
    for file in sorted(root.rglob(f'{masks.name}/*.tif')):
        with rasterio.open(file) as mask:
            held[file] = np.unique(mask.read(1)).tolist()
    classes, label_map = classes_of(sorted(set[int]().union(*held.values())))
    own = all((root / name).is_dir() or (root / f'{name}.txt').is_file() for name in ('train', 'val'))
    found = PairFolder(root, classes, split=part if own else None, label_map=label_map)
    rows = [n for n, (_, mask) in enumerate(found.pairs) if held.get(mask) != [BACKGROUND]]
    return Subset(found, rows if own else [n for n in rows if (n % 5 == 4) == (split == 'test')])


def part_of(work: Work, which: Which, split: str) -> Any:
    """Samples of the training or the test part."""
    size = work.settings['size']
    if STANDS_IN in work.found:
        return adapt(_BarkBeetles(work.found[STANDS_IN][0], which, split), size=size, ignore_index=255)
    name = PAIRS if which == 'SS' else DATES
    if name not in work.found:
        raise MissingDataError(f'it is of {name}, which is missing')
    if which == 'SS':
        return adapt(segmunich(work, split))
    cities = OSCD(str(work.found[DATES][0].parent), split=split, bands=BANDS)
    cities.files.sort(key=lambda files: str(files['region']))  # a glob has no order
    stride = round(size * (1 - OVERLAP))
    return adapt(cities, size=size, stride=stride, classes=('unchanged', 'changed'), ignore_index=255)


def present(work: Work) -> list[Which]:
    """Kinds of samples for which there are data."""
    names: dict[Which, str] = {'SS': PAIRS, 'CD': DATES}
    return [which for which, name in names.items() if name in work.found or STANDS_IN in work.found]
