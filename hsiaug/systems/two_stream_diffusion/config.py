"""The setting of a two-stream diffusion model and its training (SpecDM, 2025)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...engine.training import Precision
from ...losses.min_snr import Prediction
from ...losses.reconstruction import MaskLoss
from ...named_configs import published_settings
from ...settings import NOT_NEGATIVE, POSITIVE, SHARE, check_settings
from .model import Sampler


@dataclass(frozen=True)
class TwoStreamConfig:
    """Settings of a training. The defaults suit a few hundred patches of 32 to 64 pixels and take minutes on a CPU.

    The settings up to ``ignored`` are those of the generator,
    :class:`~hsiaug.systems.two_stream_diffusion.TwoStreamDiffusion`; :meth:`plain` is the paper's baseline.

    Args:
        sad_weight: weight λ of the spectral angle (radians) in the image loss, relative to L1 on values in [0, 1].
        kl_weight: weight of the KL term, which is summed over a code and divided by the number of pixels.
        mask_loss: ``'cross_entropy'``, or ``'l1'`` on the one-hot mask, as latent diffusion treats any channel.
        min_snr_gamma: γ of Min-SNR weighting (Hang et al. 2023); None disables it.
        ema_decay: decay of the moving average of the denoiser's weights, after a warm-up; 0 keeps the last weights.
        condition_dropout: share of training samples without condition, for classifier-free guidance.
        augment: train on all orientations of the patches, image and mask alike.
        swap_dates: for pairs of dates, train on both orders, each date in the light and season of its position. Masks
            stay the same. Off by default, since the order of the dates carries information.
        cache_latents: encode every patch once, in every orientation, before the second stage; takes 8·N·2·L·h·w·4
            bytes, twice that with ``swap_dates``. Otherwise each batch is encoded anew, in one orientation.
        vae_iterations: steps of the first stage.
        diffusion_iterations: steps of the second stage.
        vae_batch_size: patches per step of the first stage. With 2 instead of 8, masks followed their images much
            less, for a fifth less time.
        batch_size: patches per step of the second stage.
        vae_lr: learning rate of the autoencoders.
        diffusion_lr: learning rate of the denoiser.
        lr_decay: decay both learning rates to 0 along a cosine.
        precision: ``'32'``, or ``'tf32'`` or ``'bf16'``, which are faster on a GPU.

    Raises:
        ValueError: if a setting is out of range.
    """

    single_stream: bool = False
    downsampling: int = 2
    image_latents: int = 4
    mask_latents: int = 4
    vae_channels: int = 16
    vae_layers: int = 1
    vae_attention: bool = False
    unet_channels: tuple[int, ...] = (32, 64)
    unet_layers: int = 1
    unet_attention: bool = False
    prediction_type: Prediction = 'v_prediction'
    class_conditional: bool = True
    guidance_scale: float = 1.0
    sampler: Sampler = 'dpm++'
    sampling_steps: int = 20
    ignored: bool = True
    sad_weight: float = 0.1
    kl_weight: float = 1e-6
    mask_loss: MaskLoss = 'cross_entropy'
    min_snr_gamma: float | None = 5.0
    ema_decay: float = 0.995
    condition_dropout: float = 0.1
    augment: bool = True
    swap_dates: bool = False
    cache_latents: bool = True
    vae_iterations: int = 600
    diffusion_iterations: int = 3000
    vae_batch_size: int = 8
    batch_size: int = 4
    vae_lr: float = 3e-3
    diffusion_lr: float = 2e-3
    lr_decay: bool = True
    precision: Precision = '32'

    def __post_init__(self) -> None:
        check_settings(
            self, vae_iterations=NOT_NEGATIVE, min_snr_gamma=POSITIVE, ema_decay=SHARE, condition_dropout=SHARE,
            vae_lr=POSITIVE, diffusion_lr=POSITIVE,
        )  # fmt: skip

    @classmethod
    def paper(cls) -> TwoStreamConfig:
        """The published setting: the paper, and latent diffusion's sizes where it says that it follows them.

        The learning rates and lengths are missing in our copy of the paper: these are latent diffusion's rates for one
        GPU and lengths of our choice.
        """
        return cls(**published_settings('specdm'))

    def plain(self) -> TwoStreamConfig:
        """The text's baseline at this size: one autoencoder of image and mask, L1 on all channels."""
        return replace(self, single_stream=True, sad_weight=0.0, mask_loss='l1')
