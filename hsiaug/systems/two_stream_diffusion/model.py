"""Image-mask pairs, and pairs of dates with a change mask, by latent diffusion with two autoencoders.

"SpecDM: Hyperspectral Dataset Synthesis with Pixel-level Semantic Annotations", 2025, after Rombach et al.,
"High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022, https://arxiv.org/abs/2112.10752.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...datasets.real.held import as_fractions, class_fractions
from ...functional.dates import flat_mask, in_contract, stacked_dates, without_ignored
from ...functional.devices import sent
from ...functional.plain import plain_torch
from ...functional.scaling import band_scale
from ...losses.min_snr import Prediction
from ...losses.reconstruction import mask_loss
from ...models.diffusion import TRAIN_STEPS, denoise
from ...samples import SampleSpec
from ...settings import COUNT, NOT_NEGATIVE, Range, check_value
from ...streams import stream
from ..base import Generator, TrainingData, own_settings, register
from .networks import Denoiser, autoencoder

Sampler = Literal['dpm++', 'ddpm']

# 'scaled_linear' interpolates the square roots, which is what latent diffusion calls linear.
SCHEDULE: dict[str, Any] = {
    'num_train_timesteps': TRAIN_STEPS,
    'beta_start': 0.0015,
    'beta_end': 0.0155,
    'beta_schedule': 'scaled_linear',
}
MAX_MIXTURES = 2048
CHUNK = 64  # samples denoised and decoded at a time


@register('two_stream_diffusion')
class TwoStreamDiffusion(Generator):
    """Image-mask pairs or change triplets, by latent diffusion on the joint codes of two autoencoders (SpecDM, 2025).

    One KL autoencoder encodes images, another one-hot masks, and a single diffusion model generates both codes
    together. Bands are normalised internally. Ignored pixels form an extra class of the mask autoencoder, so that
    synthetic masks ignore pixels where real ones would. With ``ignored=False`` they are zero in every class of the
    one-hot mask and excluded from the loss; every synthetic pixel then gets a class, learnt or not.

    A label requests a class that the sample should contain: the model is conditioned on the class shares of a training
    patch, drawn with probability proportional to the share of that class in it. If labels follow the training
    frequencies, all training patches are equally likely. :meth:`sample_shares` takes the shares themselves. The model
    of the paper is unconditional: with ``class_conditional=False`` labels have no effect.

    For kind ``'change'``, the image autoencoder encodes each date separately, with shared weights, and the joint code
    is that of both dates and the mask. (One autoencoder for the bands of both dates was tried: it spends its code on
    what the dates have in common and loses the changes.) Each date is normalised separately, so that codes need not
    represent season and illumination, which shift a whole date.

    Args:
        spec: spec of the samples, of kind ``'segmentation'`` or ``'change'``.
        single_stream: one autoencoder of image and mask together, with as many code channels: the paper's baseline.
        downsampling: 1, 2, 4 or 8 pixels per side of a code.
        image_latents: code channels of an image, of each date.
        mask_latents: code channels of a mask.
        vae_channels: channels of the autoencoders' finest level.
        vae_layers: residual blocks per level of the autoencoders.
        vae_attention: self-attention in the middle of the autoencoders.
        unet_channels: channels of the U-Net's levels, from fine to coarse.
        unet_layers: residual blocks per level of the U-Net.
        unet_attention: self-attention in all its levels but the finest.
        prediction_type: what the U-Net predicts, ``'epsilon'`` or ``'v_prediction'``.
        class_conditional: condition on class shares.
        guidance_scale: strength of classifier-free guidance; 1 is the plain condition, at half the cost.
        sampler: ``'dpm++'`` (second-order DPM-Solver++) or ``'ddpm'`` (ancestral).
        sampling_steps: denoising steps.
        clip: keep images in the spec's value range, where it is known.
        ignored: see above; without an effect where the spec has no ignore index.

    Raises:
        ValueError: if a setting is out of its range, or the size of the patches does not divide.
    """

    ranges: ClassVar = {
        **dict.fromkeys(('image_latents', 'mask_latents', 'vae_channels', 'vae_layers'), COUNT),
        **dict.fromkeys(('unet_channels', 'unet_layers', 'sampling_steps'), COUNT),
        'guidance_scale': NOT_NEGATIVE,
    }
    kinds: ClassVar = ('segmentation', 'change')
    fitted = ('mixtures',)
    unlabelled = ('alike',)

    band_mean: Tensor  # (C, 1, 1), first date before second
    band_std: Tensor
    latent_mean: Tensor  # (L, 1, 1), image before mask
    latent_std: Tensor
    mixtures: Tensor  # (M, K) class shares of training patches
    streams: Any  # autoencoders of image and mask, or of both

    def __init__(
        self,
        spec: SampleSpec,
        single_stream: bool = False,
        downsampling: int = 2,
        image_latents: int = 4,
        mask_latents: int = 4,
        vae_channels: int = 16,
        vae_layers: int = 1,
        vae_attention: bool = False,
        unet_channels: Sequence[int] = (32, 64),
        unet_layers: int = 1,
        unet_attention: bool = False,
        prediction_type: Prediction = 'v_prediction',
        class_conditional: bool = True,
        guidance_scale: float = 1.0,
        sampler: Sampler = 'dpm++',
        sampling_steps: int = 20,
        clip: bool = True,
        ignored: bool = True,
    ) -> None:
        super().__init__(spec, **own_settings(locals()))
        height, width = spec.image_shape[-2:]
        if downsampling not in (1, 2, 4, 8):
            raise ValueError(f'TwoStreamDiffusion: downsampling must be 1, 2, 4 or 8, found {downsampling}')
        factor = downsampling * 2 ** (len(unet_channels) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f'TwoStreamDiffusion: patches of {height} x {width} pixels do not divide by {factor}: '
                f'downsampling {downsampling}, times 2 per further level of the U-Net (of {len(unet_channels)}); '
                'cut other patches, or lower downsampling or the number of unet_channels'
            )
        self.prediction_type, self.guidance_scale, self.clip = prediction_type, guidance_scale, clip
        self.conditional = class_conditional
        self.set_sampler(sampler, sampling_steps)
        self.dates = spec.dates
        self.channels = bands = self.dates * spec.bands
        classes, latents = spec.num_classes, self.dates * image_latents + mask_latents
        rest = vae_channels, vae_layers, vae_attention, downsampling
        self.ignored = ignored and spec.ignore_index is not None
        channels = classes + self.ignored  # of a mask
        two = [(spec.bands, image_latents), (channels, mask_latents)]
        pairs = [(bands + channels, latents)] if single_stream else two
        self.streams = nn.ModuleList(autoencoder(inputs, codes, *rest) for inputs, codes in pairs)
        self.pictures = [1] if single_stream else [self.dates, 1]  # of a sample, that a stream encodes separately
        self.widths = [latents] if single_stream else [latents - mask_latents, mask_latents]
        self.denoiser = Denoiser(
            latents, unet_channels, unet_layers, unet_attention, classes if class_conditional else 0
        )
        self.code_shape = (latents, height // downsampling, width // downsampling)
        for name, length in (('band', bands), ('latent', latents)):
            self.register_buffer(f'{name}_mean', torch.zeros(length, 1, 1))
            self.register_buffer(f'{name}_std', torch.ones(length, 1, 1))

    def set_sampler(self, sampler: Sampler, steps: int) -> None:
        """Choose how samples are denoised, for all draws to come.

        Raises:
            ValueError: for an unknown sampler or fewer than 1 or more than 1000 steps.
        """
        check_value('TwoStreamDiffusion', 'sampler', sampler, Sampler)
        check_value('TwoStreamDiffusion', 'sampling_steps', steps, int, Range(1, TRAIN_STEPS))
        self.sampler, self.sampling_steps = sampler, steps
        self.settings |= {'sampler': sampler, 'sampling_steps': steps}

    # --- pairs and codes --------------------------------------------------------------------------------------------

    @plain_torch()
    @torch.no_grad()
    def observe(self, data: TrainingData, seed: int = 0) -> None:
        """Take the normalisation of bands and the class shares of patches from training data."""
        count, bands = 0, torch.zeros(2, self.channels, dtype=torch.float64)
        for part in data.x.split(CHUNK):  # in parts: a copy of all patches in float64 may not fit
            values = stacked_dates(part).double().movedim(1, 0).flatten(1)
            bands += torch.stack([values.sum(dim=1), (values**2).sum(dim=1)])
            count += values.shape[1]
        if data.source is not None:
            survey = data.source.dataset.survey()
            count, bands = survey.values, torch.from_numpy(survey.sums)
        mean = bands[0] / count
        std = (bands[1] / count - mean**2).clamp_min(0).sqrt()
        self.band_mean.copy_(mean[:, None, None])
        self.band_std.copy_(band_scale(mean, std)[:, None, None])
        shares = self.shares_in(data)
        if len(shares) > MAX_MIXTURES:
            richest = shares.argmax(dim=0)  # each class keeps a patch that holds it
            others = torch.randperm(len(shares), generator=stream(seed))
            shares = shares[torch.cat([richest, others])[:MAX_MIXTURES]]
        self.mixtures = shares.to(self.device)

    def shares_in(self, data: TrainingData) -> Tensor:
        """(N, K) class shares of training patches."""
        if data.source is not None:
            return as_fractions(torch.from_numpy(data.source.dataset.class_pixels()[data.source.rows]))
        return class_fractions(data.y.cpu(), self.spec)

    def one_hot(self, mask: Tensor) -> Tensor:
        """(n, K, H, W) float32 of (n, H, W) classes, zeros where a pixel does not count."""
        counts = self.spec.counted(mask)
        hot = one_hot(torch.where(counts, mask, 0), self.spec.num_classes) * counts[..., None]
        return hot.movedim(-1, 1).to(torch.float32)

    def targets(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Targets of the mask's autoencoder for (n, H, W) classes, and which pixels have one, bool."""
        counts = self.spec.counted(mask)
        if not self.ignored:
            return mask, counts
        return torch.where(counts, mask, self.spec.num_classes), torch.ones_like(counts)

    def posterior(self, image: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Mean and log variance of the codes of each stream.

        Images are (n, C, H, W), normalised, those of two dates one after the other; masks are (n, H, W).
        """
        rest = [(~self.spec.counted(mask))[:, None].to(image.dtype)] if self.ignored else []
        hot = torch.cat([self.one_hot(mask), *rest], dim=1)
        inputs = [torch.cat([image, hot], dim=1)] if len(self.streams) == 1 else [image, hot]
        return [self.encode_stream(number, x) for number, x in enumerate(inputs)]

    def encode_stream(self, number: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the codes of one stream; that of images is number 0."""
        code = self.streams[number].encode(_split(x, self.pictures[number])).latent_dist
        return _joined(code.mean, len(x)), _joined(code.logvar, len(x))

    def decode_stream(self, number: int, code: Tensor) -> Tensor:
        """What one stream makes of its codes."""
        return _joined(self.streams[number].decode(_split(code, self.pictures[number])).sample, len(code))

    def decode(self, codes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Normalised images (n, C, H, W) and mask logits (n, K or K + 1, H, W) of each stream's codes."""
        outputs = [self.decode_stream(number, code) for number, code in enumerate(codes)]
        image, logits = outputs if len(outputs) == 2 else outputs[0].tensor_split([self.channels], 1)
        return image, logits

    def normalise(self, image: Tensor) -> Tensor:
        """Images of the dataset's unit, as the autoencoder takes them: (n, C, H, W), dates one after the other."""
        return (stacked_dates(image).float() - self.band_mean) / self.band_std

    def by_date(self, image: Tensor) -> Tensor:
        """(..., C, dates, H, W) view of (..., dates times C, H, W): a sum over C is one over the bands of each date."""
        return image.unflatten(-3, (self.dates, self.spec.bands)).transpose(-4, -3)

    def pairs(self, codes: Sequence[Tensor]) -> dict[str, Tensor]:
        """Images in the dataset's unit, and masks, of each stream's codes."""
        image, logits = self.decode(codes)
        image = image * self.band_std + self.band_mean
        image = self.spec.clamped(image) if self.clip else image
        mask = without_ignored(logits, self.spec).argmax(dim=1)
        mask = torch.where(mask < self.spec.num_classes, mask, self.spec.ignore_index or 0)
        return in_contract(image, mask, self.spec)

    @plain_torch()
    @torch.no_grad()
    def reconstruct(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Pairs through the autoencoders and back, by the mean of their codes: what diffusion can reach at best."""
        parts = [self.pairs(codes) for codes, _ in self._mean_codes(image, mask)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    @plain_torch()
    @torch.no_grad()
    def mask_cross_entropy(self, image: Tensor, mask: Tensor) -> float:
        """Cross entropy in nats of masks through the autoencoders and back, mean over the pixels that count."""
        total, count = 0.0, 0
        for codes, y in self._mean_codes(image, mask):
            target, counts = self.targets(y)
            pixels = int(counts.sum())
            total, count = total + pixels * float(mask_loss(self.decode(codes)[1], target, counts)), count + pixels
        return total / max(count, 1)

    def _mean_codes(self, image: Tensor, mask: Tensor) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Means of the codes of each stream, and flat masks, of some samples at a time."""
        image, mask = image.to(self.device), flat_mask(mask).to(self.device, torch.int64)
        fits = image.ndim == len(self.spec.image_shape) + 1 and stacked_dates(image).shape[1] == self.channels
        if not fits or len(image) == 0 or mask.shape != (len(image), *image.shape[-2:]):
            raise ValueError(
                f'TwoStreamDiffusion: images {("n", *self.spec.image_shape)} with masks are needed, found '
                f'{tuple(image.shape)} with {tuple(mask.shape)}'
            )
        for x, y in zip(image.split(CHUNK), mask.split(CHUNK), strict=True):
            yield [mean for mean, _ in self.posterior(self.normalise(x), y)], y

    # --- sampling ---------------------------------------------------------------------------------------------------

    @plain_torch()
    @torch.no_grad()
    def sample_shares(self, n: int, shares: Tensor | Sequence[float], seed: int) -> dict[str, Tensor]:
        """Draw samples whose masks hold given shares of each class, such as 20 % change by (0.8, 0.2).

        They follow the shares as far as the condition was learnt.

        Args:
            n: number of samples, at least 1.
            shares: (K,) for all samples or (n, K); they add up to 1.
            seed: makes the draw reproducible.

        Raises:
            ValueError: if the shares are none, or the model knows no condition.
        """
        if not self.conditional:
            raise ValueError('TwoStreamDiffusion: shares need a model trained with class_conditional=True')
        self.require_trained(len(self.mixtures))
        shares = require_shares(shares, n, self.spec.num_classes)
        return self._draw_shares(shares, stream(seed))

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return self._draw_shares(self._shares(labels, rng), rng)

    def _draw_shares(self, shares: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        parts = [
            self.pairs(self.unstandardised(self._denoise(noise, sent(shares[chunk], self.device), streams)))
            for chunk, noise, streams in self.noise_in_chunks(len(shares), rng)
        ]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def noise_in_chunks(self, n: int, rng: torch.Generator) -> Iterator[tuple[slice, Tensor, list[torch.Generator]]]:
        """Rows of n samples that are denoised at a time, and the noise (m, L, h, w) that they come from.

        Each sample has a stream of its own for further noise, which so does not depend on the chunks.
        """
        noise = torch.randn((n, *self.code_shape), generator=rng)
        seeds = torch.randint(2**62, (n,), generator=rng).tolist()
        for start in range(0, n, CHUNK):
            chunk = slice(start, start + CHUNK)
            yield chunk, sent(noise[chunk], self.device), list(map(stream, seeds[chunk]))

    def unstandardised(self, code: Tensor) -> tuple[Tensor, ...]:
        """Codes of each stream of joint standardised codes (n, L, h, w)."""
        return (code * self.latent_std + self.latent_mean).split(self.widths, dim=1)

    def _shares(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """(n, K) class shares of training patches that hold the classes asked for."""
        self.require_trained(len(self.mixtures))
        mixtures = self.on_cpu('mixtures')
        edges = mixtures.double().cumsum(dim=0).T[labels].contiguous()  # (n, M)
        point = torch.rand((len(labels), 1), generator=rng, dtype=torch.float64) * edges[:, -1:]
        return mixtures[torch.searchsorted(edges, point, right=True).flatten().clamp_max(len(mixtures) - 1)]

    def _denoise(self, code: Tensor, shares: Tensor, streams: list[torch.Generator]) -> Tensor:
        """Standardised codes from noise."""
        return denoise(
            lambda noisy, time: self._predict(noisy, time, shares), code, self.sampling_steps, self.sampler == 'ddpm',
            streams, **SCHEDULE, prediction_type=self.prediction_type,
        )  # fmt: skip

    def _predict(self, code: Tensor, time: Tensor, shares: Tensor) -> Tensor:
        if not self.conditional or self.guidance_scale == 1:
            return self.denoiser(code, time, shares)
        both = self.denoiser(code.repeat(2, 1, 1, 1), time.repeat(2), torch.cat([shares, torch.zeros_like(shares)]))
        with_shares, without = both.chunk(2)
        return without + self.guidance_scale * (with_shares - without)


def _split(x: Tensor, parts: int) -> Tensor:
    """Samples (n, parts times C, H, W) as pictures (n times parts, C, H, W)."""
    return x.reshape(len(x) * parts, -1, *x.shape[2:])


def _joined(x: Tensor, n: int) -> Tensor:
    """The inverse of :func:`_split`, for n samples."""
    return x.reshape(n, -1, *x.shape[2:])


def require_shares(shares: Tensor | Sequence[float], n: int, classes: int) -> Tensor:
    """(n, K) float32 class shares on the CPU, of (K,) or (n, K)."""
    given = torch.as_tensor(shares, dtype=torch.float32).cpu()
    if n < 1 or given.shape not in ((classes,), (n, classes)):
        raise ValueError(f'shares must be ({classes},) or (n, {classes}) with n > 0, found {tuple(given.shape)}, n={n}')
    if bool((given < 0).any()) or not torch.allclose(given.sum(dim=-1), torch.ones(()), atol=1e-3):
        raise ValueError(f'shares of the classes must not be negative and add up to 1, found {given.tolist()}')
    return given.expand(n, classes)
