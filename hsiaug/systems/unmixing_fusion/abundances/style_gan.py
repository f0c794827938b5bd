"""A style-based generator of abundance maps without aliasing, in plain PyTorch, and its discriminator.

Karras et al., "Alias-Free Generative Adversarial Networks" (StyleGAN3), NeurIPS 2021, https://arxiv.org/abs/2106.12423.
The discriminator is the residual network of Karras et al., "Analyzing and Improving the Image Quality of StyleGAN"
(StyleGAN2), CVPR 2020, https://arxiv.org/abs/1912.04958, which is given the label by projection: Miyato and Koyama,
ICLR 2018, https://arxiv.org/abs/1802.05637.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, pad, rms_norm, softmax

from ....functional.filtering import downsample_filtered, kaiser_lowpass, upsample_filtered
from ....settings import COUNT, Range
from ...base import own_settings
from .base import GIVEN, AbundanceModel, coarsest

_FIRST, _FIRST_STOP, _LAST_STOP = 2.0, 2**2.1, 2**0.3  # cutoff and stop-band, as published
_CRITICAL = 2  # last layers that have all frequencies of the map


@dataclass(frozen=True)
class Band:
    """Frequencies of a layer's output, in periods per side of the map."""

    rate: int  # samples per side
    cutoff: float  # highest frequency that is kept
    half_width: float  # of the filter's transition


def bands(size: int, layers: int) -> list[Band]:
    """Of the input and of each layer: cutoffs grow evenly in octaves, and rates as little as they allow."""
    rates = [coarsest(size)]
    while rates[-1] < size:
        rates.append(2 * rates[-1])
    last, found = size / 2, []
    for layer in range(layers + 1):
        progress = min(layer / (layers - _CRITICAL), 1)
        cutoff = _FIRST * (last / _FIRST) ** progress
        stop = _FIRST_STOP * (last * _LAST_STOP / _FIRST_STOP) ** progress
        rate = next((rate for rate in rates if rate >= 2 * stop), size)
        found.append(Band(rate, cutoff, max(stop, rate / 2) - cutoff))
    return found


class ModulatedConv(nn.Module):
    """A convolution without padding whose input channels are scaled by a style.

    The scale is taken to the input, and what it does to the outputs' standard deviation is undone on them, so that one
    kernel serves the whole batch; then ``gain`` multiplies that. None leaves it as the scale makes it.
    """

    def __init__(self, inside: int, outside: int, kernel: int, style: int, gain: float | None = None) -> None:
        super().__init__()
        self.gain = gain
        self.weight = nn.Parameter(torch.randn(outside, inside, kernel, kernel) / math.sqrt(inside * kernel**2))
        self.bias = nn.Parameter(torch.zeros(outside, 1, 1))
        self.affine = nn.Linear(style, inside)
        nn.init.ones_(self.affine.bias)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(n, outside, S − kernel + 1, S − kernel + 1) of (n, inside, S, S) and styles (n, style)."""
        scale = self.affine(w)
        x = conv2d(x * scale[:, :, None, None], self.weight)
        if self.gain is None:
            return x + self.bias
        squares = scale.square() @ self.weight.square().sum(dim=(2, 3)).T
        return torch.addcmul(self.bias, x, self.gain * (squares + 1e-8).rsqrt()[:, :, None, None])


class SynthesisLayer(nn.Module):
    """A modulated convolution, and a leaky ReLU at twice the rate between two filters: no frequency folds back.

    Nothing is padded, so that no pixel knows where the border is.
    """

    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, before: Band, after: Band, width: int, style: int, taps: int) -> None:
        super().__init__()
        rate = 2 * max(before.rate, after.rate)
        self.up, self.down = rate // before.rate, rate // after.rate
        self.conv = ModulatedConv(width, width, 3, style, gain=math.sqrt(2))  # a leaky ReLU halves the variance
        for name, band, factor in (('up', before, self.up), ('down', after, self.down)):
            fir = kaiser_lowpass(taps * factor, band.cutoff, band.half_width, rate)
            self.register_buffer(f'{name}_filter', fir, persistent=False)

    def side(self, out: int) -> int:
        """Of the input that gives ``out`` pixels."""
        between = (out - 1) * self.down + len(self.down_filter)
        return math.ceil((between - 2 + len(self.up_filter)) / self.up) + 3

    def forward(self, x: Tensor, w: Tensor, out: int) -> Tensor:
        """(n, width, out, out)."""
        x = upsample_filtered(self.conv(x, w), self.up_filter, self.up)
        x = leaky_relu(x, 0.2, inplace=True)
        return downsample_filtered(x, self.down_filter, self.down)[:, :, :out, :out]


class FourierInput(nn.Module):
    """Waves of random frequencies within a band, on a plane that the style turns and shifts, mixed by a matrix."""

    frequencies: Tensor  # (width, 2)
    phases: Tensor  # (width,)

    def __init__(self, band: Band, width: int, style: int) -> None:
        super().__init__()
        self.rate = band.rate
        frequencies = torch.randn(width, 2)
        radii = frequencies.square().sum(dim=1, keepdim=True).sqrt()
        # As published: r / (r · exp(r²)^¼) leaves directions even and no radius above the cutoff.
        frequencies = frequencies / (radii * radii.square().exp().pow(0.25)) * band.cutoff
        self.register_buffer('frequencies', frequencies)
        self.register_buffer('phases', torch.rand(width) - 0.5)
        self.affine = nn.Linear(style, 4)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.mix = nn.Parameter(torch.randn(width, width) / math.sqrt(width))

    def forward(self, w: Tensor, side: int) -> Tensor:
        """(n, width, side, side) of styles, whose last two ``affine`` values are shifts, in sides of the map."""
        turn = self.affine(w).float()
        cosine, sine = (turn[:, :2] / turn[:, :2].norm(dim=1, keepdim=True).clamp_min(1e-8)).unbind(dim=1)
        rotation = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)
        frequencies = self.frequencies @ rotation
        phases = self.phases - (frequencies @ turn[:, 2:, None])[:, :, 0]
        grid = (torch.arange(side, device=w.device) - (side - 1) / 2) / self.rate
        rows = (frequencies[:, :, 0, None] * grid)[:, :, :, None]
        columns = (frequencies[:, :, 1, None] * grid)[:, :, None]
        waves = torch.sin(2 * math.pi * (rows + columns + phases[:, :, None, None])) * math.sqrt(2)
        return torch.einsum('oi,nihw->nohw', self.mix, waves)


class StyleGAN(AbundanceModel):
    """Noise and a label to a style, and a style to logits of abundances by filtered layers; the softmax is last.

    Args:
        k, size, num_labels: see :class:`~hsiaug.systems.unmixing_fusion.abundances.base.AbundanceModel`.
        width: channels of all layers.
        noise_dim: length of the noise and of a style.
        layers: number of filtered layers, 3 at least; None for one per octave and two of all frequencies.
        taps: of the filters, per sample of the lower rate; 6 as published. With 4, 64 pixels take two thirds of the
            time, and half a pixel's shift of the input shifts the logits up to an error of 57 dB below their
            standard deviation, instead of 64 dB.
    """

    kind, learning_rate = 'style_gan', 1e-3
    ranges: ClassVar = {'width': Range(4), 'noise_dim': COUNT, 'layers': Range(_CRITICAL + 1), 'taps': Range(2)}

    def __init__(
        self,
        k: int,
        size: int,
        num_labels: int,
        width: int = 32,
        noise_dim: int = 64,
        layers: int | None = None,
        taps: int = 4,
    ) -> None:
        if layers is None:
            layers = _CRITICAL + max(1, round(math.log2(size / (2 * _FIRST))))
        super().__init__(k, size, num_labels, **own_settings(locals(), GIVEN))
        self.noise_dim = noise_dim
        self.labels = self.embedding(noise_dim)
        inputs = noise_dim * (2 if num_labels else 1)
        self.mapping = nn.Sequential(
            nn.Linear(inputs, noise_dim), nn.LeakyReLU(0.2), nn.Linear(noise_dim, noise_dim), nn.LeakyReLU(0.2)
        )
        plan = bands(size, layers)
        self.input = FourierInput(plan[0], width, noise_dim)
        self.layers = nn.ModuleList(
            SynthesisLayer(before, after, width, noise_dim, taps) for before, after in pairwise(plan)
        )
        self.last = ModulatedConv(width, k, 1, noise_dim)
        self.sides = [size]  # of the input and of each layer's output
        for layer in reversed(self.layers):
            self.sides.insert(0, layer.side(self.sides[0]))  # type: ignore[operator]

    def styles(self, noise: Tensor, index: Tensor) -> Tensor:
        """Styles (n, noise_dim) of noise (n, noise_dim) and (n,) indices of labels."""
        known = rms_norm(noise, (self.noise_dim,))
        if self.labels is not None:
            known = torch.cat([known, rms_norm(self.labels(index), (self.noise_dim,))], dim=1)
        return self.mapping(known)

    def synthesise(self, w: Tensor) -> Tensor:
        """Logits (n, k, s, s) of styles."""
        x = self.input(w, self.sides[0])
        for layer, side in zip(self.layers, self.sides[1:], strict=True):
            x = layer(x, w, side)
        return self.last(x, w)

    def forward(self, noise: Tensor, index: Tensor) -> Tensor:
        """Abundances (n, k, s, s) of noise (n, noise_dim) and (n,) indices of labels."""
        return softmax(self.synthesise(self.styles(noise, index)).float(), dim=1)

    def draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """Maps for indices of labels."""
        return self(torch.randn((len(index), self.noise_dim), generator=rng).to(self.device), index)


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
        k, size, num_labels: see :class:`~hsiaug.systems.unmixing_fusion.abundances.base.AbundanceModel`.
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
