"""A small spectral-spatial network that turns patches into feature vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..functional.scaling import band_weight

_CHUNK = 64  # patches at a time


class PatchEncoder(nn.Module):
    """Pixel classifier of patches whose last maps, pooled, describe a patch by ``num_features`` values, 2 · width.

    A 1 x 1 convolution over the bands and two 3 x 3 ones, the second dilated, see 7 x 7 pixels; patches of any size
    fit. The scaling of the bands is inside.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, bands: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.num_features = 2 * width
        self.register_buffer('offset', torch.zeros(bands))
        self.register_buffer('scale', torch.ones(bands))
        self.body = nn.Sequential(
            nn.Conv2d(bands, width, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode='replicate'),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2, padding_mode='replicate'),
            nn.GELU(),
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def fit_scale(self, image: Tensor) -> PatchEncoder:
        """Take mean and standard deviation of each band from (N, C, H, W) training patches."""
        std, mean = torch.std_mean(image, dim=(0, 2, 3), correction=0)
        self.offset.copy_(mean)
        self.scale.copy_(band_weight(mean, std))
        return self

    def maps(self, image: Tensor) -> Tensor:
        """(n, width, H, W) last feature maps of (n, C, H, W) patches in the dataset's unit."""
        return self.body((image - self.offset[:, None, None]) * self.scale[:, None, None])

    def logits(self, image: Tensor) -> Tensor:
        """(n, K, H, W) class scores of each pixel."""
        return self.head(self.maps(image))

    def forward(self, image: Tensor) -> Tensor:
        """(n, 2 · width) mean and standard deviation over the pixels of each map."""
        features = []
        for some in image.split(_CHUNK):
            std, mean = torch.std_mean(self.maps(some), dim=(2, 3), correction=0)
            features.append(torch.cat([mean, std], dim=1))
        return torch.cat(features)
