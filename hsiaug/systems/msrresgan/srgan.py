"""SRGAN: a residual network with sub-pixel upsampling, and the discriminator that MSRResGAN shares.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR 2017,
https://arxiv.org/abs/1609.04802.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from ...functional.degradation import require_factor


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SRResNet(nn.Module):
    """SRGAN's generator on any number of bands: 16 residual blocks at low resolution, then pixel shuffling.

    Args:
        bands: number of bands C.
        factor: between the resolutions, 2 to 5; 4 is reached in two steps, as published, the others in one.
        width: kernels per layer.
        blocks: residual blocks.
    """

    def __init__(self, bands: int, factor: int, width: int = 64, blocks: int = 16) -> None:
        super().__init__()
        require_factor(factor, type(self).__name__)
        steps = (2, 2) if factor == 4 else (factor,)
        self.factor = factor
        # 4 by the first 9 x 9, 2 per block and 1 after them; each step by 1 at its own scale, the last 9 x 9 by 4.
        reach = sum(1 / math.prod(steps[:i]) for i in range(len(steps))) + 4 / factor
        self.margin = 4 + 2 * blocks + 1 + math.ceil(reach)
        self.first = nn.Sequential(nn.Conv2d(bands, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(
            *(_Block(width) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        layers: list[nn.Module] = []
        for step in steps:
            layers += [nn.Conv2d(width, width * step**2, 3, padding=1), nn.PixelShuffle(step), nn.PReLU()]
        self.last = nn.Sequential(*layers, nn.Conv2d(width, bands, 9, padding=4))

    def forward(self, low: Tensor) -> Tensor:
        """(n, C, kh, kw) of (n, C, h, w)."""
        features = self.first(low)
        return self.last(features + self.blocks(features))


class SRDiscriminator(nn.Module):
    """SRGAN's discriminator: eight convolutions, every second with stride 2, and two dense layers.

    Args:
        bands: number of bands C.
        size: (H, W) of the images that it judges.
        width: kernels of the first layer; they double with each stride but the last.
    """

    def __init__(self, bands: int, size: tuple[int, int], width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(bands, width, 3, padding=1), nn.LeakyReLU(0.2)]
        inside = width
        for outside, stride in [(width * 2 ** ((i + 1) // 2), 2 - i % 2) for i in range(7)]:
            layers += [
                nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(outside),
                nn.LeakyReLU(0.2),
            ]
            inside = outside
        pixels = math.prod(math.ceil(side / 16) for side in size)
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(inside * pixels, 16 * width), nn.LeakyReLU(0.2), nn.Linear(16 * width, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(n,) logits of being real, of (n, C, H, W)."""
        return self.layers(image)[:, 0]
