"""Augmentation of training patches with masks: controls for synthetic samples."""

from __future__ import annotations

from typing import Literal

import kornia.augmentation as K
import torch
from kornia.constants import DataKey
from torch import Tensor, nn

from ..functional.pasting import box_regions, pasted_where

Augmentation = Literal['none', 'flips', 'classic', 'cutmix']

NOISE = 0.1
"""Standard deviation of the noise of ``'classic'``, in standard deviations of a band."""


class Flips(nn.Module):
    """Flips and, of square patches, turns by 90 degrees.

    Every patch is flipped by itself, all are turned together: a turn by interpolation, which a batch of single turns
    would take, is slower and not exact.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flips = K.AugmentationSequential(
            K.RandomHorizontalFlip(), K.RandomVerticalFlip(), data_keys=['image', 'mask']
        )

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) and masks (n, H, W)."""
        image, turned = self.flips(image, mask[:, None].to(image.dtype))
        mask = turned[:, 0].to(mask.dtype)
        if image.shape[-1] == image.shape[-2]:
            turns = int(torch.randint(4, ()))
            image, mask = torch.rot90(image, turns, (-2, -1)), torch.rot90(mask, turns, (-2, -1))
        return image.contiguous(), mask.contiguous()


class Classic(Flips):
    """Flips and turns, random crops brought back to size, and noise in every band."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.crop = K.AugmentationSequential(
            K.RandomResizedCrop(size, scale=(0.5, 1.0), p=0.5, cropping_mode='resample'), data_keys=['image', 'mask'],
            extra_args={DataKey.MASK: {'resample': 'nearest', 'align_corners': True}},
        )  # fmt: skip

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) and masks (n, H, W)."""
        image, mask = super().forward(image, mask)
        image, cropped = self.crop(image, mask[:, None].to(image.dtype))
        # Drawn on the CPU: a seed means the same everywhere.
        noise = torch.randn(image.shape).to(image.device, non_blocking=True)
        return image + NOISE * noise, cropped[:, 0].round().to(mask.dtype)


class CutMix(Flips):
    """Flips and turns, then a box of every patch, drawn anew for each, is replaced by another patch's, mask and all.

    Yun et al. (2019), CutMix, https://arxiv.org/abs/1905.04899; for masks as in French et al. (2020),
    https://arxiv.org/abs/1906.01916. The share of the box is uniform in [0, 1], its place anywhere.
    """

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) and masks (n, H, W)."""
        image, mask = super().forward(image, mask)
        area = torch.rand(len(image))
        partner = torch.randperm(len(image)).to(image.device, non_blocking=True)
        within = box_regions(area, (image.shape[-2], image.shape[-1])).to(image.device, non_blocking=True)
        return pasted_where(within, (image, mask), (image[partner], mask[partner]))


def augmentation(name: Augmentation, size: tuple[int, int]) -> nn.Module | None:
    """The augmentation of a name for patches of a size; None for ``'none'``.

    Raises:
        ValueError: for an unknown name.
    """
    known = {'none': lambda: None, 'flips': Flips, 'classic': lambda: Classic(size), 'cutmix': CutMix}
    if name not in known:
        raise ValueError(f'unknown augmentation {name!r}; choose from {tuple(known)}')
    return known[name]()  # type: ignore[no-any-return]
