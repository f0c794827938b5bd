"""Super-resolving networks by name, all from (n, C, h, w) to (n, C, kh, kw), and the discriminator of two of them.

MSRResNet and MSRResGAN's generator: Huang, Li, Hu and Tao, "Hyperspectral Image Super-Resolution Using Generative
Adversarial Network and Residual Learning", ICASSP 2019. Baselines: bicubic interpolation; SRCNN of Dong, Loy, He and
Tang, "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016, https://arxiv.org/abs/1501.00092; SRGAN of
Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR 2017,
https://arxiv.org/abs/1609.04802.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from ...functional.degradation import require_factor, upsample

Network = Literal['msrresgan', 'msrresnet', 'srgan', 'srcnn', 'bicubic']

BLOCKS = {'msrresgan': 9, 'msrresnet': 9, 'srgan': 16}
ADVERSARIAL = ('msrresgan', 'srgan')
"""Networks that are trained with a discriminator."""
BICUBIC_MARGIN = 2  # low-resolution pixels on each side that an interpolated pixel depends on


def gradient_magnitude(image: Tensor) -> Tensor:
    """(n, C, H, W) length of each band's spatial gradient, by central differences; borders are repeated."""
    wide = pad(image, (1, 1, 1, 1), mode='replicate')
    across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return (across.square() + down.square() + 1e-12).sqrt()  # the gradient of a root is infinite at 0


class _Layer(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _Layer(width, width), _Layer(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(x + self.second(relu(self.first(x))))


class Bicubic(nn.Module):
    """Bicubic interpolation as a network without weights, and the base of those on the interpolated image."""

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
        """(n, C, H, W) of an interpolated image of any size, as one that was cut after interpolation has."""
        return image


class ResidualNetwork(nn.Module):
    """Layers of 3 × 3 kernels with batch normalisation and ReLU that learn what an image lacks.

    At the paper's size there are 21: one, 9 residual blocks of two, the last feature layer, to which the inner skip
    carries the first one's features, and a linear one. The outer skip adds the input. The last layer starts at zero,
    so that training starts from the input image.
    """

    def __init__(self, bands: int, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        self.first, self.fusion = _Layer(bands, width), _Layer(width, width)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.last = nn.Conv2d(width, bands, 3, padding=1)
        self.radius = 2 * blocks + 3  # pixels on each side that an output pixel depends on
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(torch.as_tensor(self.last.bias))

    def features(self, image: Tensor) -> Tensor:
        """(n, width, H, W) features before the last layer."""
        low_level = relu(self.first(image))
        return relu(self.fusion(self.blocks(low_level)) + low_level)

    def forward(self, image: Tensor) -> Tensor:
        """(n, C, H, W) with what was lacking."""
        return image + self.last(self.features(image))


class MSRResNet(Bicubic):
    """The generating network, on the interpolated image, with or without the gradient network.

    The gradient network, of the same layers since the paper gives none, learns the gradient of the high-resolution
    image from that of the interpolated one. Its features join the generator's before the last layer,
    F_i = F_i^res + θ_i · F_i^grad (Eq. 3), with one trainable θ per feature, a 1 × 1 kernel each.
    """

    def __init__(self, bands: int, factor: int, width: int = 64, blocks: int = 9, gradient: bool = False) -> None:
        super().__init__(factor)
        self.residual = ResidualNetwork(bands, width, blocks)
        self.gradient = ResidualNetwork(bands, width, blocks) if gradient else None
        self.theta = nn.Conv2d(width, width, 1, groups=width, bias=False) if gradient else None
        if self.theta is not None:
            nn.init.ones_(self.theta.weight)
        self.margin = math.ceil((self.residual.radius + gradient) / factor) + BICUBIC_MARGIN

    def restore(self, image: Tensor) -> Tensor:
        """(n, C, H, W) of an interpolated image."""
        features = self.residual.features(image)
        if self.gradient is not None and self.theta is not None:
            features = features + self.theta(self.gradient.features(gradient_magnitude(image)))
        return image + self.residual.last(features)

    def learned_gradient(self, image: Tensor) -> Tensor:
        """High-resolution gradient that the gradient network expects of an interpolated image (n, C, H, W)."""
        if self.gradient is None:
            raise ValueError('MSRResNet: made without a gradient network; give gradient=True')
        return self.gradient(gradient_magnitude(image))


class SRCNN(Bicubic):
    """Three convolutions, 9-1-5 with 64 and 32 kernels, on the interpolated image, padded to keep its size."""

    def __init__(self, bands: int, factor: int) -> None:
        super().__init__(factor)
        self.margin = math.ceil((4 + 2) / factor) + BICUBIC_MARGIN
        self.layers = nn.Sequential(
            nn.Conv2d(bands, 64, 9, padding=4),
            nn.ReLU(),
            nn.Conv2d(64, 32, 1),
            nn.ReLU(),
            nn.Conv2d(32, bands, 5, padding=2),
        )

    def restore(self, image: Tensor) -> Tensor:
        """(n, C, H, W) of an interpolated image."""
        return self.layers(image)


class _PReLUBlock(nn.Module):
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
            *(_PReLUBlock(width) for _ in range(blocks)),
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


def super_resolver(
    name: Network, bands: int, factor: int, width: int = 64, blocks: int | None = None
) -> Bicubic | SRResNet:
    """Make a network for so many bands; the rest is as of :class:`~hsiaug.systems.msrresgan.MSRResGAN`."""
    if name not in get_args(Network):
        raise ValueError(f'unknown super-resolution network {name!r}; choose from {get_args(Network)}')
    if name == 'bicubic':
        return Bicubic(factor)
    if name == 'srcnn':
        return SRCNN(bands, factor)
    blocks = BLOCKS[name] if blocks is None else blocks
    if name == 'srgan':
        return SRResNet(bands, factor, width, blocks)
    return MSRResNet(bands, factor, width, blocks, gradient=name == 'msrresgan')
