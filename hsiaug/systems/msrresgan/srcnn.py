"""Super-resolution baselines: bicubic interpolation, and SRCNN.

Dong, Loy, He and Tang, "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016,
https://arxiv.org/abs/1501.00092.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from ...functional.degradation import require_factor, upsample

BICUBIC_MARGIN = 2  # low-resolution pixels on each side that an interpolated pixel depends on


class Bicubic(nn.Module):
    """Bicubic interpolation as a network without weights."""

    margin = BICUBIC_MARGIN
    """Low-resolution pixels on each side that an output pixel depends on."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        require_factor(factor, type(self).__name__)
        self.factor = factor

    def forward(self, low: Tensor) -> Tensor:
        """(n, C, kh, kw) of (n, C, h, w)."""
        return self.restore(upsample(low, self.factor))

    def restore(self, image: Tensor) -> Tensor:
        """(n, C, H, W) of an interpolated image of any size: the image itself."""
        return image


class SRCNN(nn.Module):
    """Three convolutions, 9-1-5 with 64 and 32 kernels, on the interpolated image, padded to keep its size."""

    def __init__(self, bands: int, factor: int) -> None:
        super().__init__()
        require_factor(factor, type(self).__name__)
        self.factor, self.margin = factor, math.ceil((4 + 2) / factor) + BICUBIC_MARGIN
        self.layers = nn.Sequential(
            nn.Conv2d(bands, 64, 9, padding=4),
            nn.ReLU(),
            nn.Conv2d(64, 32, 1),
            nn.ReLU(),
            nn.Conv2d(32, bands, 5, padding=2),
        )

    def forward(self, low: Tensor) -> Tensor:
        """(n, C, kh, kw) of (n, C, h, w)."""
        return self.restore(upsample(low, self.factor))

    def restore(self, image: Tensor) -> Tensor:
        """(n, C, H, W) of an interpolated image of any size."""
        return self.layers(image)
