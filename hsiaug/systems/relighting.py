"""Relighting: the same surface under other illumination.

Audebert et al. 2018 cite a relighting model as the physical way to make spectra ([7] there). A pixel sees direct
sunlight and light from the sky; Rayleigh scattering makes the latter blue. With irradiances relative to those of the
acquisition, reflectance as it would be retrieved is ρ'(λ) = ρ(λ)·(α + β·s(λ)), s ∝ λ⁻².
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..samples import SampleSpec
from ..settings import NOT_NEGATIVE
from .base import register
from .duplicate import ExemplarGenerator

NOMINAL_RANGE_NM = (400.0, 2500.0)
"""Where wavelengths are not known, bands are taken to be evenly spaced over the solar reflective range."""


def sky_shape(spec: SampleSpec) -> Tensor:
    """(C,) spectral shape λ⁻² of the sky's share of the light, 1 at the shortest wavelength."""
    wavelengths = torch.tensor(spec.wavelengths) if spec.wavelengths else torch.linspace(*NOMINAL_RANGE_NM, spec.bands)
    return ((wavelengths / wavelengths.min()) ** -2).to(torch.float32)


def relight(x: Tensor, sky: Tensor, direct: float, diffuse: float, rng: torch.Generator) -> Tensor:
    """(n, C) spectra x under other light: x·(α + β·s), log α ~ N(0, direct²), β ~ N(0, diffuse²), sky s (C,)."""
    alpha, beta = torch.randn((2, len(x), 1), generator=rng).to(x.device)
    # Light cannot be negative, however far out the draw.
    return x * (torch.exp(direct * alpha) + diffuse * beta * sky).clamp_min(0.05)


@register('relighting')
class Relighting(ExemplarGenerator):
    """Training spectra under other illumination.

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

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x = self.train_x[self.exemplars(labels, rng)]
        return {'image': relight(x, self.sky, self.direct, self.diffuse, rng)}
