"""Datamodules over real data, as a user's own would be: they know nothing of hsiaug."""

from pathlib import Path
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
from torch import Tensor
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import NonGeoDataset

from hsiaug.samples import SampleSpec


class WaterPatches(NonGeoDataset):
    """Multispectral patches with water masks or, as scenes, with the dominant class of the patch."""

    classes = ('land', 'water')

    def __init__(self, root: str, split: str = 'train', kind: str = 'segmentation') -> None:
        parts = {'train': range(24), 'val': range(30, 36), 'test': range(40, 46), 'synthetic': range(60, 110)}
        rows = parts[split]
        with np.load(Path(root) / 'water12_patches' / 'water12_patches.npz') as file:
            self.images = file['images'][rows.start : rows.stop, :64, :64].astype(np.float32) * 1e-4
            self.masks = file['mask'][rows.start : rows.stop, :64, :64].astype(np.int64)
        self.kind = kind

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, mask = torch.from_numpy(self.images[index]).permute(2, 0, 1), torch.from_numpy(self.masks[index])
        if self.kind == 'scene':
            return {'image': image, 'label': (mask.float().mean() > 0.5).long()}
        return {'image': image, 'mask': mask}


class SyntheticWater(WaterPatches):
    """A user's own synthetic patches: shifted copies of patches that no part of the data holds."""

    def __init__(self, root: str, kind: str = 'segmentation') -> None:
        super().__init__(root, 'synthetic', kind)
        self.images = self.images + np.float32(1.0)
        self.spec = SampleSpec(kind, 7, self.classes, size=(64, 64))  # type: ignore[arg-type]


class CityPairs(NonGeoDataset):
    """Windows of the two dates of one OSCD city, the four 10 m bands."""

    def __init__(self, root: str, split: str = 'train', kind: str = 'change') -> None:
        city = {'train': 'bercy', 'val': 'rennes', 'test': 'rennes', 'synthetic': 'paris'}[split]
        with np.load(Path(root) / 'oscd' / f'{city}.npz') as file:
            dates = np.stack([file['t1_10m'], file['t2_10m']]).astype(np.float32)
            mask = file['cm'].astype(np.int64)
        corners = [(r, c) for r in range(0, 256, 64) for c in range(0, 256, 64)]
        self.pairs = [torch.from_numpy(dates[:, r : r + 64, c : c + 64]).permute(0, 3, 1, 2) for r, c in corners]
        self.masks = [torch.from_numpy(mask[None, r : r + 64, c : c + 64]) for r, c in corners]
        self.spec = SampleSpec('change', 4, ('same', 'changed'), size=(64, 64))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'image': self.pairs[index], 'mask': self.masks[index]}


class RealModule(NonGeoDataModule):
    """Normalises and flips on the device, the way torchgeo's modules do, and keeps what its augmentation has seen."""

    def __init__(
        self, root: str, kind: str = 'segmentation', batch_size: int = 4, num_workers: int = 0, spy: bool = False
    ) -> None:
        dataset: Any = CityPairs if kind == 'change' else WaterPatches
        super().__init__(dataset, batch_size=batch_size, num_workers=num_workers, root=root, kind=kind)
        bands = 4 if kind == 'change' else 7
        self.mean, self.std = (torch.full((bands,), v) for v in ((1000.0, 700.0) if kind == 'change' else (0.2, 0.1)))
        normalise, flip = K.Normalize(self.mean, self.std), K.RandomHorizontalFlip(p=0.5)
        if kind == 'change':  # as torchgeo's own OSCDDataModule, which raises
            self.train_aug = K.AugmentationSequential(K.VideoSequential(normalise, flip), data_keys=None, keepdim=True)
            self.aug = K.AugmentationSequential(K.VideoSequential(normalise), data_keys=None, keepdim=True)
        else:
            self.train_aug = K.AugmentationSequential(normalise, flip, data_keys=None, keepdim=True)
            self.aug = K.AugmentationSequential(normalise, data_keys=None, keepdim=True)
        self.seen: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self.spy = spy

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        before = dict(batch)
        after = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.spy and self.trainer is not None and self.trainer.training:
            self.seen.append((before, dict(after)))
        return after
