"""A hierarchical VAE of abundance maps.

Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images", ICLR 2021,
https://arxiv.org/abs/2011.10650: its blocks, in a compact form.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import adaptive_avg_pool2d, interpolate, log_softmax

from ....settings import POSITIVE
from ...base import own_settings
from .base import GIVEN, AbundanceModel, coarsest

_LOG_STD = 5.0  # bound of the log standard deviation of a latent


class Bottleneck(nn.Sequential):
    """Four convolutions, narrow inside, 3 × 3 in the middle where a map has sides; GELU before each."""

    def __init__(self, inside: int, outside: int, side: int, gain: float) -> None:
        middle, kernel = max(4, inside // 4), 3 if side > 1 else 1
        last = nn.Conv2d(middle, outside, 1)
        with torch.no_grad():
            last.weight.mul_(gain)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        narrow = [nn.Conv2d(inside, middle, 1)]
        narrow += [nn.Conv2d(middle, middle, kernel, padding=kernel // 2) for _ in range(2)]
        super().__init__(*(layer for convolution in (*narrow, last) for layer in (nn.GELU(), convolution)))


class TopDownBlock(nn.Module):
    """Draws latents given what is above them, and adds them to it."""

    def __init__(self, width: int, latents: int, side: int, gain: float) -> None:
        super().__init__()
        self.latents = latents
        self.prior = Bottleneck(width, 2 * latents + width, side, 0.0)
        self.posterior = Bottleneck(2 * width, 2 * latents, side, 1.0)
        self.projection = nn.Conv2d(latents, width, 1)
        self.residual = Bottleneck(width, width, side, gain)
        with torch.no_grad():
            self.projection.weight.mul_(gain)

    def forward(
        self, x: Tensor, features: Tensor | None, rng: torch.Generator, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """The features (n, width, h, h), and the KL divergence (n,) of the posterior from the prior.

        Those of the data, if any, lead to the posterior; without them latents are drawn from the prior, whose standard
        deviation the temperature multiplies.
        """
        mean, log_std, more = self.prior(x).split([self.latents, self.latents, x.shape[1]], dim=1)
        latent, kl = _normal(mean, log_std, temperature), x.new_zeros(len(x))
        if features is not None:
            prior = _normal(mean, log_std)
            latent = _normal(*self.posterior(torch.cat([x, features], dim=1)).chunk(2, dim=1))
            kl = kl_divergence(latent, prior).flatten(1).sum(dim=1)
        noise = torch.randn(latent.mean.shape, generator=rng, device=rng.device).to(x.device)
        x = x + more + self.projection(latent.mean + latent.stddev * noise)
        return x + self.residual(x), kl


def _normal(mean: Tensor, log_std: Tensor, temperature: float = 1.0) -> Normal:
    # A soft bound of the log standard deviation keeps the divergence, and its gradient, finite.
    bounded = _LOG_STD * torch.tanh(log_std.float() / _LOG_STD)
    return Normal(mean.float(), temperature * bounded.exp(), validate_args=False)


class HierarchicalVAE(AbundanceModel):
    """Stochastic blocks at every resolution from a single pixel to the map's own, given the label at each.

    The likelihood takes a pixel's abundances as the shares of ``counts`` draws of a multinomial whose probabilities are
    the softmax output. Its negative logarithm is, up to what the data alone decide, ``counts`` times the KL divergence
    of the output from the abundances. It needs no discretisation and allows for zeros, and ``counts`` says how
    precise abundances are: a pixel's are known to √(a(1 − a) / counts).

    Args:
        k, size, num_labels: see :class:`~hsiaug.systems.unmixing_fusion.abundances.base.AbundanceModel`.
        width: channels of the maps.
        latents: channels of the latents of a block.
        blocks: per resolution, in the encoder and in the decoder.
        counts: see above.
        temperature: factor of the prior's standard deviation in sampling; below 1 maps are more typical and
            less diverse.
    """

    kind, learning_rate = 'vae', 4e-3
    ranges: ClassVar = dict.fromkeys(('width', 'latents', 'blocks', 'counts', 'temperature'), POSITIVE)

    def __init__(
        self,
        k: int,
        size: int,
        num_labels: int,
        width: int = 48,
        latents: int = 8,
        blocks: int = 1,
        counts: float = 100.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(k, size, num_labels, **own_settings(locals(), GIVEN))
        self.counts, self.temperature = counts, temperature
        self.sides = [1, coarsest(size)]  # from coarse to fine
        while self.sides[-1] < size:
            self.sides.append(2 * self.sides[-1])
        gain = 1 / math.sqrt(len(self.sides) * blocks)
        self.first = nn.Conv2d(k, width, 3, padding=1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(Bottleneck(width, width, side, gain) for _ in range(blocks)) for side in self.sides
        )
        self.decoder = nn.ModuleList(
            nn.ModuleList(TopDownBlock(width, latents, side, gain) for _ in range(blocks)) for side in self.sides
        )
        self.start = nn.Parameter(torch.zeros(width, 1, 1))
        self.places = nn.Parameter(torch.zeros(width, self.sides[1], self.sides[1]))
        self.labels = nn.ModuleList(table for _ in self.sides if (table := self.embedding(width)) is not None)
        self.last = nn.Conv2d(width, k, 1)

    def encode(self, abundances: Tensor) -> list[Tensor]:
        """(n, width, h, h) features at each resolution, from coarse to fine."""
        x, found = self.first(self.standardise(abundances)), []
        for side, blocks in zip(reversed(self.sides), reversed(self.encoder), strict=True):
            if side != x.shape[-1]:
                x = adaptive_avg_pool2d(x, side)
            for block in blocks:  # type: ignore[attr-defined]
                x = x + block(x)
            found.append(x)
        return found[::-1]

    def decode(self, index: Tensor, features: list[Tensor] | None, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Logits (n, k, s, s), and the KL divergence of each block (n, L)."""
        x, kls = self.start.expand(len(index), -1, -1, -1), list[Tensor]()
        for level, (side, blocks) in enumerate(zip(self.sides, self.decoder, strict=True)):
            if level:
                x = interpolate(x, size=(side, side))
            if level == 1:
                x = x + self.places
            if len(self.labels):
                x = x + self.labels[level](index)[:, :, None, None]
            for block in blocks:  # type: ignore[attr-defined]
                x, kl = block(x, None if features is None else features[level], rng, self.temperature)
                kls.append(kl)
        return self.last(x), torch.stack(kls, dim=1)

    def evidence(self, abundances: Tensor, index: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The two parts of the negative evidence lower bound, in nats per map.

        Of abundances (n, k, s, s) with label indices (n,) they are the negative log-likelihood (n,), 0 for a perfect
        reconstruction, and the KL divergence of each block (n, L), from coarse to fine.
        """
        logits, kls = self.decode(index, self.encode(abundances), rng)
        nll = torch.special.xlogy(abundances, abundances) - abundances * log_softmax(logits.float(), dim=1)
        return self.counts * nll.flatten(1).sum(dim=1), kls

    def draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """See the base class; the softmax is what comes out, without the multinomial's noise."""
        return self.decode(index, None, rng)[0].float().softmax(dim=1)
