"""The discriminator of the patch GAN."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils.parametrizations import spectral_norm

from ...models.patch_cnn import Dims


class PatchCritic(nn.Module):
    """Two convolutions of 4 × 4 with stride 2 and leaky ReLU 0.2, and a linear layer on all features.

    Given the class, it sees it as one constant channel per class. In three dimensions the bands are a side
    of a volume, and kernels have 4 × 4 × 4.

    Args:
        bands: number of bands C, at least 4 in three dimensions.
        size: (H, W) of the patches, each divisible by 4.
        classes: number of classes as condition; 0 for none.
        norm: of the second layer: ``'batch'`` as in the paper, ``'layer'`` where each sample's score must come from
            that sample alone, as under a gradient penalty.
        spectral: normalise the spectral norm of all weights (Miyato et al. 2018).
        dims: 2, or 3 for spectral-spatial convolutions.
    """

    def __init__(
        self,
        bands: int,
        size: tuple[int, int],
        classes: int = 0,
        norm: Literal['batch', 'layer'] = 'batch',
        spectral: bool = False,
        dims: Dims = 2,
    ) -> None:
        super().__init__()
        self.classes, self.dims = classes, dims
        convolution: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv3d if dims == 3 else nn.Conv2d
        batch_norm: type[nn.Module] = nn.BatchNorm3d if dims == 3 else nn.BatchNorm2d
        places = (size[0] // 4) * (size[1] // 4) * (bands // 4 if dims == 3 else 1)
        layers: list[nn.Module] = [
            convolution((1 if dims == 3 else bands) + classes, 64, 4, 2, padding=1),
            nn.LeakyReLU(0.2),
            convolution(64, 128, 4, 2, padding=1),
            batch_norm(128) if norm == 'batch' else nn.GroupNorm(1, 128),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(128 * places, 1),
        ]
        if spectral:
            weighted = (nn.Conv2d, nn.Conv3d, nn.Linear)
            layers = [spectral_norm(layer) if isinstance(layer, weighted) else layer for layer in layers]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor, labels: Tensor) -> Tensor:
        """(n,) scores of (n, C, H, W) with labels (n,); the paper's sigmoid is in the loss."""
        x = image[:, None] if self.dims == 3 else image
        if self.classes:
            hot = one_hot(labels, self.classes).to(x)
            x = torch.cat([x, hot.view(*hot.shape, *[1] * self.dims).expand(-1, -1, *x.shape[2:])], dim=1)
        return self.layers(x)[:, 0]
