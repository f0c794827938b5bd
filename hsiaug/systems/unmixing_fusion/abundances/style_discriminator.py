"""The discriminator of the style-based GAN of abundances.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (StyleGAN2), CVPR 2020,
https://arxiv.org/abs/1912.04958: a residual network. The label is given by projection: Miyato and Koyama, ICLR 2018,
https://arxiv.org/abs/1802.05637.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from ....functional.filtering import downsample_filtered
from .base import coarsest


class _Block(nn.Module):
    """Halves a map, with a linear skip connection in parallel."""

    blur: Tensor

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, inside, 3, padding=1)
        self.second = nn.Conv2d(inside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1, bias=False)
        self.register_buffer('blur', torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8, persistent=False)

    def _half(self, x: Tensor) -> Tensor:
        return downsample_filtered(pad(x, (1, 1, 1, 1)), self.blur, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.second(leaky_relu(self.first(x), 0.2)), 0.2)
        return (self._half(y) + self.skip(self._half(x))) / math.sqrt(2)


class StyleDiscriminator(nn.Module):
    """Residual blocks down to 4 to 7 pixels, how much the batch varies as one more channel, and two linear layers.

    Args:
        k: number of endmembers.
        size: side of the maps.
        num_labels: number of labels, 0 for none.
        width: channels at the map's own resolution; they double with each halving, up to four times.
    """

    def __init__(self, k: int, size: int, num_labels: int, width: int = 32) -> None:
        super().__init__()
        side = coarsest(size)
        widths = [width * min(2**level, 4) for level in range(int(math.log2(size // side)) + 1)]
        self.first = nn.Conv2d(k, width, 1)
        self.blocks = nn.Sequential(*(_Block(a, b) for a, b in pairwise(widths)))
        features = widths[-1]
        self.mixing = nn.Conv2d(features + 1, features, 3, padding=1)
        self.dense = nn.Linear(features * side**2, features)
        self.score = nn.Linear(features, 1)
        self.labels = nn.Embedding(num_labels + 1, features) if num_labels else None

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """(n,) logits of being real, of standardised abundances (n, k, s, s) with (n,) indices of labels."""
        x = self.blocks(leaky_relu(self.first(x), 0.2))
        variety = (x.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        x = torch.cat([x, variety.expand(len(x), 1, *x.shape[2:])], dim=1)
        features = leaky_relu(self.dense(leaky_relu(self.mixing(x), 0.2).flatten(1)), 0.2)
        score = self.score(features)[:, 0]
        if self.labels is not None:
            score = score + (self.labels(index) * features).sum(dim=1) / math.sqrt(features.shape[1])
        return score
