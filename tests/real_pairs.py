"""Real pairs of dates as their own libraries and folders give them: OSCD's cities, and bark-beetle damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from PIL import Image
from torchgeo.datasets import OSCD, NonGeoDataset

BANDS_OF = {
    10: ('B02', 'B03', 'B04', 'B08'),
    20: ('B05', 'B06', 'B07', 'B8A', 'B11', 'B12'),
    60: ('B01', 'B09', 'B10'),
}


def write_oscd(root: Path, sizes: dict[str, tuple[int, int]], split: str = 'train') -> None:
    """Regions in OSCD's folders, their bands of constant steps and the second date 1000 higher."""
    for region, size in sizes.items():
        number = np.arange(size[0] * size[1], dtype=np.int32).reshape(size) + 1
        labels, images = (root / folder / region for folder in folders(split))
        (labels / 'cm').mkdir(parents=True)
        Image.fromarray((number % 5 == 0).astype(np.uint8) * 255).save(labels / 'cm' / 'cm.png')
        for date in (1, 2):
            (images / f'imgs_{date}_rect').mkdir(parents=True)
            for k, band in enumerate(OSCD.all_bands):
                picture = Image.fromarray(10 * number + k + 1000 * (date - 1))
                picture.save(images / f'imgs_{date}_rect' / f'{band}.tif')
        (images / 'dates.txt').write_text('date_1: 20160101\ndate_2: 20170101\n')


def folders(split: str) -> tuple[str, str]:
    """Of masks and images, as OSCD names them."""
    name = 'Onera Satellite Change Detection dataset'
    return f'{name} - {split.capitalize()} Labels', f'{name} - Images'


def write_oscd_cities(real_data: Path, root: Path, cities: tuple[str, ...], side: int, split: str = 'train') -> Path:
    """The upper-left corner of stored cities as torchgeo's OSCD finds them: every band a file, on the 10 m grid."""
    for city in cities:
        stored = np.load(real_data / 'oscd' / f'{city}.npz')
        masks, images = (root / folder / city for folder in folders(split))
        masks = masks / 'cm'
        masks.mkdir(parents=True)
        Image.fromarray(stored['cm'][:side, :side] * 255).save(masks / 'cm.png')
        for date in (1, 2):
            folder = images / f'imgs_{date}_rect'
            folder.mkdir(parents=True)
            for metres, bands in BANDS_OF.items():
                factor = metres // 10
                cube = stored[f't{date}_{metres}m'].repeat(factor, axis=0).repeat(factor, axis=1)[:side, :side]
                for k, band in enumerate(bands):
                    Image.fromarray(cube[:, :, k]).save(folder / f'{band}.tif')
        (images / 'dates.txt').write_text(f'date_1: {stored["date_t1"]}\ndate_2: {stored["date_t2"]}\n')
    return root


def oscd(root: Path, bands: tuple[str, ...] = OSCD.all_bands, split: str = 'train') -> OSCD:
    """Torchgeo's own class on these files."""
    dataset = OSCD(str(root), split=split, bands=bands)
    dataset.files.sort(key=lambda files: str(files['region']))  # a glob has no order
    return dataset


class BarkBeetles(NonGeoDataset):
    """Pairs of 12-band images of several sizes as torchgeo's datasets of two dates give them.

    Args:
        real_data: folder of the real scenes.
        rows: which of the 160 pairs.
        masked: with the mask of damage; without, pairs are unlabelled.
    """

    classes = ('undamaged', 'damaged')

    def __init__(self, real_data: Path, rows: Any, masked: bool = True) -> None:
        stored = np.load(real_data / 's2_barkbeetle' / 's2_barkbeetle.npz')
        self.pairs = []
        values = {key: stored[key] for key in ('t1', 't2', 'damage')}
        for row in rows:
            place = slice(*stored['offset'][row : row + 2])
            shape = tuple(stored['shape'][row])
            self.pairs.append([values[key][place].reshape(*shape, -1) for key in ('t1', 't2', 'damage')])
        self.masked = masked

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        first, second, damage = (torch.from_numpy(part.astype(np.int32)).movedim(2, 0) for part in self.pairs[index])
        sample = {'image1': first / 1e4, 'image2': second / 1e4, 'crs': 'EPSG:3857', 'bounds': (index, 0, 1, 1)}
        return {**sample, 'mask': damage} if self.masked else sample


def write_geotiffs(dataset: Any, root: Path, rows: Any, wavelengths: tuple[float, ...], size: int) -> Path:
    """First dates of pairs with their masks, as a folder of GeoTIFFs."""
    for row in rows:
        sample = dataset[row]
        for name, values in (('images', sample['image1'].numpy()), ('masks', sample['mask'].numpy().astype(np.uint8))):
            (root / name).mkdir(parents=True, exist_ok=True)
            values = values[:, :size, :size]
            profile = {'driver': 'GTiff', 'count': len(values), 'height': size, 'width': size, 'dtype': values.dtype}
            with rasterio.open(root / name / f'{row:03d}.tif', 'w', **profile) as file:
                file.write(values)
                for k, centre in enumerate(wavelengths if name == 'images' else ()):
                    file.update_tags(k + 1, wavelength=str(centre), wavelength_units='nm')
    return root
