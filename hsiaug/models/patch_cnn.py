"""Convolutional classifiers of small hyperspectral patches, in two dimensions and in three."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor, nn

Dims = Literal[2, 3]
CONVOLUTION: dict[Dims, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM: dict[Dims, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class PatchCNN(nn.Module):
    """Two convolutions of 3 × 3 with batch normalisation, a pooling between them, and a linear layer on all places.

    The linear layer sees all positions rather than their mean, since the position matters if the label is that of the
    centre. In three dimensions, the bands are a side of a volume, as in Li, Zhang and Shen (2017),
    https://doi.org/10.3390/rs9010067, and both kernels are 7 bands deep with strides of 3 bands, so that weights are
    shared along the spectrum and there are fewer of them.

    Args:
        bands: number of bands C, at least 4 in three dimensions.
        num_classes: number of classes K.
        size: (H, W) of the patches, at least 4 each.
        dims: 2, or 3 for spectral-spatial convolutions.
        width: channels of the first layer in two dimensions; a quarter of them in three.
        dropout: before the last layer.

    Raises:
        ValueError: for patches or bands that are too few.
    """

    def __init__(
        self, bands: int, num_classes: int, size: tuple[int, int], dims: Dims = 2, width: int = 32, dropout: float = 0.0
    ) -> None:
        if dims not in (2, 3) or min(size) < 4 or (dims == 3 and bands < 4) or width < 4:
            raise ValueError(
                f'PatchCNN: dims 2, or 3 with 4 bands or more, sides from 4 pixels and a width from 4 are needed, '
                f'found dims {dims}, {bands} bands, {size[0]} x {size[1]} pixels and width {width}'
            )
        super().__init__()
        self.dims, deep = dims, dims == 3
        inputs, width = (1, width // 4) if deep else (bands, width)
        kernel: Any = ((7, 3, 3), (3, 1, 1), (3, 1, 1)) if deep else (3, 1, 1)  # with stride and padding
        self.layers = nn.Sequential(
            CONVOLUTION[dims](inputs, width, *kernel, bias=False), BATCH_NORM[dims](width), nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)) if deep else nn.MaxPool2d(2),
            CONVOLUTION[dims](width, 2 * width, *kernel, bias=False), BATCH_NORM[dims](2 * width), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        depth = math.ceil(math.ceil(bands / 3) / 3) if dims == 3 else 1
        self.head = nn.Linear(2 * width * depth * (size[0] // 2) * (size[1] // 2), num_classes)
        self.dropout = nn.Dropout(dropout)

    def features(self, image: Tensor) -> Tensor:
        """(n, D) what the last layer sees, of images (n, C, H, W)."""
        return self.layers(image[:, None] if self.dims == 3 else image)  # type: ignore[no-any-return]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K) of images (n, C, H, W)."""
        return self.head(self.dropout(self.features(image)))  # type: ignore[no-any-return]
