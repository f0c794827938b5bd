"""Datamodules as a user's own would be, small enough to run anywhere; they know nothing of hsiaug."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torchgeo.datamodules import GeoDataModule, NonGeoDataModule
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import GridGeoSampler, RandomBatchGeoSampler
from toys import BANDS, Toy, mask_of


class ToyPairs(Toy):
    """Image-mask pairs in three parts."""

    def __init__(self, split: str = 'train', **kwargs: Any) -> None:
        super().__init__('segmentation', 24 if split == 'train' else 8, seed=('train', 'val', 'test').index(split))


class ToyModule(NonGeoDataModule):
    """Normalises and flips on the device, as torchgeo's own modules do."""

    mean, std = torch.full((BANDS,), 0.5), torch.full((BANDS,), 0.3)

    def __init__(self, batch_size: int = 4, num_workers: int = 0) -> None:
        super().__init__(ToyPairs, batch_size, num_workers)


def write_rasters(folder: Path, side: int = 64) -> None:
    """One georeferenced image and its mask."""
    image = torch.rand(BANDS, side, side, generator=torch.Generator().manual_seed(0))
    for name, array in (('image', image.numpy()), ('mask', mask_of(image)[None].numpy().astype(np.uint8))):
        (folder / name).mkdir()
        options: dict[str, Any] = {'crs': 'EPSG:32633', 'transform': from_origin(500_000, 5_800_000, 10, 10)}
        with rasterio.open(
            folder / name / f'{name}.tif', 'w', 'GTiff', side, side, len(array), dtype=array.dtype, **options
        ) as file:
            file.write(array)


class ToyImages(RasterDataset):
    filename_glob = 'image.tif'


class ToyMasks(RasterDataset):
    filename_glob = 'mask.tif'
    is_image = False


class ToyGeoModule(GeoDataModule):
    """Random patches of a raster, with their coordinates."""

    mean, std = torch.zeros(BANDS), torch.ones(BANDS)

    def __init__(self, root: str, batch_size: int = 4, patch_size: int = 8, length: int = 12) -> None:
        super().__init__(ToyImages, batch_size, patch_size, length)
        self.root = Path(root)

    def setup(self, stage: str) -> None:
        self.dataset = ToyImages(self.root / 'image') & ToyMasks(self.root / 'mask')
        self.train_dataset = self.val_dataset = self.dataset
        self.train_batch_sampler = RandomBatchGeoSampler(self.dataset, self.patch_size, self.batch_size, self.length)
        self.val_sampler = GridGeoSampler(self.dataset, self.patch_size, stride=32)
