"""MSRResNet and MSRResGAN's generator: residual super-resolution with learned gradients.

Huang, Li, Hu and Tao, "Hyperspectral Image Super-Resolution Using Generative Adversarial Network and Residual
Learning", ICASSP 2019. Trained by :mod:`hsiaug.systems.msrresgan.train`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from ...functional.degradation import require_factor, upsample
from .srcnn import BICUBIC_MARGIN


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


class MSRResNet(nn.Module):
    """The generating network, on the interpolated image, with or without the gradient network.

    The gradient network, of the same layers since the paper gives none, learns the gradient of the high-resolution
    image from that of the interpolated one. Its features join the generator's before the last layer,
    F_i = F_i^res + θ_i · F_i^grad (Eq. 3), with one trainable θ per feature, a 1 × 1 kernel each.
    """

    def __init__(self, bands: int, factor: int, width: int = 64, blocks: int = 9, gradient: bool = False) -> None:
        super().__init__()
        require_factor(factor, type(self).__name__)
        self.factor = factor
        self.residual = ResidualNetwork(bands, width, blocks)
        self.gradient = ResidualNetwork(bands, width, blocks) if gradient else None
        self.theta = nn.Conv2d(width, width, 1, groups=width, bias=False) if gradient else None
        if self.theta is not None:
            nn.init.ones_(self.theta.weight)
        self.margin = math.ceil((self.residual.radius + gradient) / factor) + BICUBIC_MARGIN

    def forward(self, low: Tensor) -> Tensor:
        """(n, C, kh, kw) of (n, C, h, w)."""
        return self.restore(upsample(low, self.factor))

    def restore(self, image: Tensor) -> Tensor:
        """(n, C, H, W) of an interpolated image of any size, as one that was cut after interpolation has."""
        features = self.residual.features(image)
        if self.gradient is not None and self.theta is not None:
            features = features + self.theta(self.gradient.features(gradient_magnitude(image)))
        return image + self.residual.last(features)

    def learned_gradient(self, image: Tensor) -> Tensor:
        """High-resolution gradient that the gradient network expects of an interpolated image (n, C, H, W)."""
        if self.gradient is None:
            raise ValueError('MSRResNet: made without a gradient network; give gradient=True')
        return self.gradient(gradient_magnitude(image))
