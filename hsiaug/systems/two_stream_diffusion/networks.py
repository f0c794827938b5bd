"""The networks of a two-stream diffusion model, in latent diffusion's proportions, by diffusers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffusers import AutoencoderKL
from torch import Tensor, nn

from ...models.diffusion import norm_groups, unet


def autoencoder(
    channels: int, latents: int, width: int, layers: int, attention: bool, downsampling: int
) -> AutoencoderKL:
    """A KL autoencoder in latent diffusion's proportions: ``width`` times 1, 2, 4, 4, ... from fine to coarse."""
    widths = tuple(width * min(2**level, 4) for level in range(int(math.log2(downsampling)) + 1))
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=('DownEncoderBlock2D',) * len(widths),
        up_block_types=('UpDecoderBlock2D',) * len(widths),
        block_out_channels=widths,
        layers_per_block=layers,
        latent_channels=latents,
        norm_num_groups=norm_groups(widths),
        mid_block_add_attention=attention,
    )


class Denoiser(nn.Module):
    """A U-Net on codes, conditioned on the time and, where ``classes`` is not 0, on class shares."""

    def __init__(self, latents: int, channels: Sequence[int], layers: int, attention: bool, classes: int) -> None:
        super().__init__()
        attends = [False] + [attention] * (len(channels) - 1)
        conditioned = 'identity' if classes else None
        self.unet = unet(latents, channels, layers, attends, add_attention=attention, class_embed_type=conditioned)
        width = 4 * channels[0]
        self.condition = (
            nn.Sequential(nn.Linear(classes, width), nn.SiLU(), nn.Linear(width, width)) if classes else None
        )

    def forward(self, code: Tensor, time: Tensor, shares: Tensor | None) -> Tensor:
        """Prediction (n, L, h, w) for noisy codes at ``time`` (n,); all-zero shares (n, K) mean no condition."""
        labels = None
        if self.condition is not None and shares is not None:
            # times K: shares of about 1 each, as large as the embedding of the time, are learnt in far fewer steps
            labels = self.condition(shares * shares.shape[1])
        return self.unet(code, time, class_labels=labels, return_dict=False)[0]
