"""Diffusion of abundance maps by a U-Net that predicts velocities, or noise as published.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, https://arxiv.org/abs/2006.11239; v-prediction of
Salimans and Ho, ICLR 2022, https://arxiv.org/abs/2202.00512; DPM-Solver++ of Lu et al., 2022,
https://arxiv.org/abs/2211.01095; noise schedule after the image's size, Hoogeboom et al., ICML 2023,
https://arxiv.org/abs/2301.11093.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ....functional.unmixing import project_simplex
from ....models.diffusion import TRAIN_STEPS, denoise, unet
from ....settings import COUNT, Range
from ...base import own_settings
from .base import GIVEN, AbundanceModel

Form = Literal['fast', 'ddpm']

_DDPM_BETAS = 1e-4, 0.02  # evenly spaced, as Ho et al. have them at any size
_BETAS = 0.0015, 0.0155  # latent diffusion's, evenly spaced in their square roots
_SIDE = 32  # pixels for which they were chosen


def noise_betas(size: int) -> Tensor:
    """(1000,) float64 variances of the steps, for maps of ``size`` pixels a side.

    Neighbouring pixels are alike, so that noise of one strength hides less of a larger map: above 32 pixels the
    signal-to-noise ratio is lowered by (32 / size)² at all times, or else the last step would show large structures.
    """
    betas = torch.linspace(_BETAS[0] ** 0.5, _BETAS[1] ** 0.5, TRAIN_STEPS, dtype=torch.float64).square()
    kept = (1 - betas).cumprod(0)
    ratio = kept / (1 - kept) * min(1.0, _SIDE / size) ** 2
    kept = ratio / (1 + ratio)
    return 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])


class AbundanceDiffusion(AbundanceModel):
    """A U-Net on abundances, standardised per endmember, conditioned on the time and on the label.

    Each step stays free of the simplex; what the last one gives is put back to the scale of abundances and projected
    onto the simplex, to the nearest point pixel by pixel. Abundances of exactly 0 so come out as exactly 0.

    Args:
        k, size, num_labels: see :class:`~hsiaug.systems.unmixing_fusion.abundances.base.AbundanceModel`; the side must
            divide by 2 for each further level of the U-Net.
        channels: width of each level, from fine to coarse, multiples of 4.
        layers: residual blocks per level.
        attention: self-attention in all levels but the finest.
        sampling_steps: steps of sampling.
        form: ``'ddpm'`` is that of Ho et al., as the paper has it: noise is predicted, all times count alike, and
            sampling is ancestral, with 1000 steps as published. ``'fast'`` predicts velocities, weighs times by
            min-SNR, and samples by second-order DPM-Solver++.
        attention_side: attention only in levels of at most this many pixels a side; in all but the finest if None.
    """

    kind, learning_rate = 'diffusion', 2e-3
    ranges: ClassVar = {'layers': COUNT, 'sampling_steps': Range(1, TRAIN_STEPS)}

    alphas: Tensor  # (1000,) share of the signal's variance that is left at each time

    def __init__(
        self,
        k: int,
        size: int,
        num_labels: int,
        channels: Sequence[int] = (32, 64),
        layers: int = 1,
        attention: bool = False,
        sampling_steps: int = 20,
        form: Form = 'fast',
        attention_side: int | None = None,
    ) -> None:
        super().__init__(k, size, num_labels, **own_settings(locals(), GIVEN))
        coarse = len(channels) - 1
        if size % 2**coarse:
            raise ValueError(
                f'AbundanceDiffusion: maps of {size} pixels do not divide by {2**coarse}, 2 per further level of the '
                f'U-Net (of {len(channels)}); lower the number of channels'
            )
        self.steps, self.form = sampling_steps, form
        least = size if attention_side is None else attention_side
        seen = [attention and level > 0 and size // 2**level <= least for level in range(coarse + 1)]
        conditioned = num_labels + 1 if num_labels else None
        self.unet = unet(k, channels, layers, seen, add_attention=attention, num_class_embeds=conditioned)
        even = torch.linspace(*_DDPM_BETAS, TRAIN_STEPS, dtype=torch.float64)
        self.betas = even if form == 'ddpm' else noise_betas(size)
        self.register_buffer('alphas', (1 - self.betas).cumprod(0).float(), persistent=False)

    def forward(self, noisy: Tensor, time: Tensor, index: Tensor) -> Tensor:
        """Velocities, or noise, (n, k, s, s) of noisy standardised abundances at times (n,), for (n,) label indices."""
        return self.unet(noisy, time, class_labels=index if self.num_labels else None, return_dict=False)[0]

    def draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """See the base class; a draw has no other randomness than its first noise, unless it is ancestral."""
        return project_simplex(self.denoised(index, rng))

    def denoised(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """(n, k, s, s) maps of (n,) indices of labels, as the denoiser leaves them: nearly on the simplex."""
        x = torch.randn((len(index), self.k, self.size, self.size), generator=rng).to(self.device)
        ddpm, betas = self.form == 'ddpm', self.betas.tolist()
        x = denoise(
            lambda noisy, time: self(noisy, time, index), x, self.steps, ddpm, rng, trained_betas=betas,
            prediction_type='epsilon' if ddpm else 'v_prediction',
        )  # fmt: skip
        return x * self.std + self.mean
