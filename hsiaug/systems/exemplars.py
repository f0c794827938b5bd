"""Spectra made from labelled training spectra: repeated, with noise, with gain and offset, relit, or mixed.

*duplicate* is a control that repeats real samples: gains beyond its own come from samples being new. *relighting* is
the physical method cited by Audebert et al. 2018 ([7] there): the same surface under another illumination. A pixel
receives direct sunlight and skylight, which is blue by Rayleigh scattering. With irradiances relative to those
of the acquisition, the retrieved reflectance is ρ'(λ) = ρ(λ)·(α + β·s(λ)), s ∝ λ⁻². *mixup* (Zhang et al., "mixup:
Beyond Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412) has a physical meaning too: a linear
mixture of two materials in one pixel.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..functional.devices import sent
from ..functional.plain import plain_torch
from ..samples import Kind, SampleSpec
from ..settings import NOT_NEGATIVE, POSITIVE
from ..streams import drawn_seed
from .base import Generator, TrainingData, register

NOMINAL_RANGE_NM = (400.0, 2500.0)
"""Where wavelengths are not known, bands are taken to be evenly spaced over the solar reflective range."""


class ExemplarGenerator(Generator):
    """Base of generators that start from labelled training spectra, which they keep."""

    kinds: ClassVar[tuple[Kind, ...]] = ('spectrum',)
    fitted: ClassVar[tuple[str, ...]] = ('train_x', 'train_y')
    train_x: Tensor
    train_y: Tensor

    @plain_torch()
    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Keep the labelled training spectra, and what is measured of them."""
        self.train_x, self.train_y = data.x.to(self.device), data.y.to(self.device)
        self._measure(data.x)
        self.adopt(data, seed)

    def _measure(self, x: Tensor) -> None:
        """Measure what is needed of the (N, C) training spectra."""

    def exemplars(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """(n,) positions of training spectra of the wanted classes, uniform within a class."""
        position = torch.empty(len(labels), dtype=torch.int64)
        uniform = torch.rand(len(labels), generator=rng, dtype=torch.float64)
        train_y = self.on_cpu('train_y')
        for label in torch.unique(labels).tolist():
            members = torch.nonzero(train_y == label)[:, 0]
            if len(members) == 0:
                raise ValueError(
                    f'{type(self).__name__}: no training spectrum of class {label} ({self.spec.classes[label]}); '
                    'fit on data with this class, or do not ask for it'
                )
            wanted = labels == label
            position[wanted] = members[(uniform[wanted] * len(members)).long()]
        return sent(position, self.device)

    def partners_of(self, labels: Tensor, partners: Literal['within', 'across'], rng: torch.Generator) -> Tensor:
        """(n,) positions of training spectra to be mixed with those of the labels."""
        if partners == 'within':
            return self.exemplars(labels, rng)
        return sent(torch.randint(len(self.train_y), (len(labels),), generator=rng), self.device)

    def mixed(
        self, one: Tensor, other: Tensor, rows: tuple[Tensor, Tensor], alpha: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Mixtures of (n, C) spectra made of the training spectra at ``rows``, and of their labels.

        The weight of the first is λ ~ Beta(alpha, alpha), folded to at least one half.
        """
        # torch's Beta takes no generator of its own.
        weights = np.random.default_rng(drawn_seed(rng)).beta(alpha, alpha, size=(len(one), 1))
        weight = sent(torch.from_numpy(np.maximum(weights, 1 - weights)).to(torch.float32), self.device)
        shares = [one_hot(self.train_y[row], self.spec.num_classes).to(torch.float32) for row in rows]
        return {
            'image': weight * one + (1 - weight) * other,
            'label_prob': weight * shares[0] + (1 - weight) * shares[1],
        }

    def _altered(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """What is made of (n, C) training spectra."""
        return x

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {'image': self._altered(self.train_x[self.exemplars(labels, rng)], rng)}


@register('duplicate')
class Duplicate(ExemplarGenerator):
    """Real training spectra, or images with one label, drawn with replacement within their class."""

    kinds: ClassVar = ('spectrum', 'scene')


@register('noise')
class Noise(ExemplarGenerator):
    """Training spectra plus white Gaussian noise.

    Args:
        spec: spec of the samples.
        level: standard deviation of the noise, in units of each band's standard deviation over the training spectra.
    """

    kinds: ClassVar = ('spectrum', 'scene')
    fitted = (*ExemplarGenerator.fitted, 'band_std')
    ranges: ClassVar = {'level': NOT_NEGATIVE}
    band_std: Tensor

    def __init__(self, spec: SampleSpec, level: float = 0.1) -> None:
        super().__init__(spec, level=level)
        self.level = level

    def _measure(self, x: Tensor) -> None:
        self.band_std = x.std(dim=0, correction=0).to(self.device)

    def _altered(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return x + self.level * self.band_std * sent(torch.randn(x.shape, generator=rng), self.device)


@register('gain_offset')
class GainOffset(ExemplarGenerator):
    """Training spectra with a random gain and offset per sample: x' = g·x + o.

    Args:
        spec: spec of the samples.
        gain: standard deviation of the logarithm of g, which is log-normal: exp(gain·N(0, 1)).
        offset: standard deviation of the offset, in units of the mean training value.
    """

    fitted = (*ExemplarGenerator.fitted, 'mean_value')
    ranges: ClassVar = {'gain': NOT_NEGATIVE, 'offset': NOT_NEGATIVE}
    mean_value: Tensor

    def __init__(self, spec: SampleSpec, gain: float = 0.15, offset: float = 0.02) -> None:
        super().__init__(spec, gain=gain, offset=offset)
        self.gain, self.offset = gain, offset

    def _measure(self, x: Tensor) -> None:
        self.mean_value = x.mean().to(self.device)

    def _altered(self, x: Tensor, rng: torch.Generator) -> Tensor:
        gain, offset = sent(torch.randn((2, len(x), 1), generator=rng), self.device)
        return x * torch.exp(self.gain * gain) + self.offset * self.mean_value * offset


def sky_shape(spec: SampleSpec) -> Tensor:
    """(C,) spectral shape λ⁻² of the sky's share of the light, 1 at the shortest wavelength."""
    wavelengths = torch.tensor(spec.wavelengths) if spec.wavelengths else torch.linspace(*NOMINAL_RANGE_NM, spec.bands)
    return ((wavelengths / wavelengths.min()) ** -2).to(torch.float32)


def relight(x: Tensor, sky: Tensor, direct: float, diffuse: float, rng: torch.Generator) -> Tensor:
    """(n, C) spectra x under other light: x·(α + β·s), log α ~ N(0, direct²), β ~ N(0, diffuse²), sky s (C,)."""
    alpha, beta = sent(torch.randn((2, len(x), 1), generator=rng), x.device)
    # Light cannot be negative, however far out the draw.
    return x * (torch.exp(direct * alpha) + diffuse * beta * sky).clamp_min(0.05)


@register('relighting')
class Relighting(ExemplarGenerator):
    """Training spectra under another illumination.

    Args:
        spec: spec of the samples; its wavelengths shape the sky term.
        direct: standard deviation of log α, the direct light.
        diffuse: standard deviation of β, the sky's share at the shortest wavelength.
    """

    ranges: ClassVar = {'direct': NOT_NEGATIVE, 'diffuse': NOT_NEGATIVE}
    sky: Tensor

    def __init__(self, spec: SampleSpec, direct: float = 0.15, diffuse: float = 0.05) -> None:
        super().__init__(spec, direct=direct, diffuse=diffuse)
        self.direct, self.diffuse = direct, diffuse
        self.register_buffer('sky', sky_shape(spec))

    def _altered(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return relight(x, self.sky, self.direct, self.diffuse, rng)


@register('mixup')
class Mixup(ExemplarGenerator):
    """Convex combinations of two training spectra.

    The label is the requested class, which makes up at least half of the mixture; with partners across classes,
    ``label_prob`` holds the shares.

    Args:
        spec: spec of the samples.
        partners: ``'within'`` mixes spectra of the same class, ``'across'`` draws the second from all training spectra.
        alpha: parameter of the Beta distribution of the weight.
    """

    ranges: ClassVar = {'alpha': POSITIVE}
    soft_labels = True

    def __init__(self, spec: SampleSpec, partners: Literal['within', 'across'] = 'within', alpha: float = 0.4) -> None:
        super().__init__(spec, partners=partners, alpha=alpha)
        self.partners, self.alpha = partners, alpha

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        first = self.exemplars(labels, rng)
        second = self.partners_of(labels, self.partners, rng)
        return self.mixed(self.train_x[first], self.train_x[second], (first, second), self.alpha, rng)
