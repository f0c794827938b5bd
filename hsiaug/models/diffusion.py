"""U-Nets of diffusion and how they are sampled, by diffusers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import Tensor

TRAIN_STEPS = 1000


def norm_groups(channels: Sequence[int]) -> int:
    """Groups of a group norm that divide all channel counts, at most 32, of at least four channels each."""
    if not channels or any(c < 4 or c % 4 for c in channels):
        raise ValueError(f'channel counts must be multiples of 4, found {tuple(channels)}')
    return math.gcd(32, *(c // 4 for c in channels))


def unet(inputs: int, channels: Sequence[int], layers: int, attends: Sequence[bool], **options: Any) -> UNet2DModel:
    """A U-Net from (n, ``inputs``, H, W) to the same.

    Channels, multiples of 4, and ``attends``, which levels have self-attention, go from fine to coarse; ``layers``
    residual blocks make a level. ``options`` are those of diffusers' ``UNet2DModel``, such as how it is conditioned.
    """
    return UNet2DModel(
        in_channels=inputs,
        out_channels=inputs,
        down_block_types=tuple('AttnDownBlock2D' if attention else 'DownBlock2D' for attention in attends),
        up_block_types=tuple('AttnUpBlock2D' if attention else 'UpBlock2D' for attention in reversed(attends)),
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        norm_num_groups=norm_groups(channels),
        **options,
    )


def denoise(
    predict: Callable[[Tensor, Tensor], Tensor], x: Tensor, steps: int, ancestral: bool, rng: Any, **schedule: Any
) -> Tensor:
    """Samples from noise (n, ...): ancestrally (Ho et al. 2020), or by second-order DPM-Solver++ (Lu et al. 2022).

    The network predicts of noisy samples (n, ...) at times (n,). The ancestral steps add noise of ``rng``, on the CPU,
    one for all samples or one each. The ``schedule`` is that of diffusers' schedulers: ``prediction_type``, and the
    variances.
    """
    scheduler: Any = (
        DDPMScheduler(clip_sample=False, **schedule)
        if ancestral
        # Steps even in log-SNR. Steps even in time, the library's default, are too few at low noise: 20 of them lose a
        # fifth of the standard deviation of codes with one of 0.4.
        else DPMSolverMultistepScheduler(use_lu_lambdas=True, **schedule)
    )
    scheduler.set_timesteps(steps, device=x.device)
    for time in scheduler.timesteps:
        x = scheduler.step(predict(x, time.expand(len(x))), time, x, generator=rng).prev_sample
    return x
