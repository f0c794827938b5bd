"""Classic augmentation of spectra: noise, gain and offset."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..functional.plain import plain_torch
from ..samples import SampleSpec
from ..settings import NOT_NEGATIVE
from .base import TrainingData, register
from .duplicate import ExemplarGenerator


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

    @plain_torch()
    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Keep the training spectra and the standard deviation of each band."""
        self.band_std = data.x.std(dim=0, correction=0).to(self.device)
        super().fit(data, seed)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x = self.train_x[self.exemplars(labels, rng)]
        noise = torch.randn(x.shape, generator=rng).to(self.device)
        return {'image': x + self.level * self.band_std * noise}


@register('gain_offset')
class GainOffset(ExemplarGenerator):
    """Training spectra times a gain plus an offset, one of each per sample: x' = g·x + o.

    Args:
        spec: spec of the samples.
        gain: the gain is log-normal, exp(gain·N(0, 1)).
        offset: standard deviation of the offset, in units of the mean training value.
    """

    fitted = (*ExemplarGenerator.fitted, 'mean_value')
    ranges: ClassVar = {'gain': NOT_NEGATIVE, 'offset': NOT_NEGATIVE}
    mean_value: Tensor

    def __init__(self, spec: SampleSpec, gain: float = 0.15, offset: float = 0.02) -> None:
        super().__init__(spec, gain=gain, offset=offset)
        self.gain, self.offset = gain, offset

    @plain_torch()
    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Keep the training spectra and their mean value."""
        self.mean_value = data.x.mean().to(self.device)
        super().fit(data, seed)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        x = self.train_x[self.exemplars(labels, rng)]
        gain, offset = torch.randn((2, len(x), 1), generator=rng).to(self.device)
        return {'image': x * torch.exp(self.gain * gain) + self.offset * self.mean_value * offset}
