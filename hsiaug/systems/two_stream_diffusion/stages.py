"""The two stages of latent diffusion: what each minimises."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ...datasets.own.reading import IN_MEMORY
from ...engine import Average, Training
from ...engine.data import Held, Read, Samples
from ...engine.schedules import Cosine, WarmUp
from ...functional.dates import flat_mask
from ...functional.orientations import ORIENTATIONS, orientations, turn
from ...functional.scaling import band_scale
from ...losses.min_snr import denoising_loss
from ...losses.reconstruction import kl_divergence, mask_loss, spectral_reconstruction, value_width
from ...models.diffusion import TRAIN_STEPS
from ...streams import stream, stream_of_step
from .config import TwoStreamConfig
from .model import CHUNK, SCHEDULE, TwoStreamDiffusion

# Not in the paper, which follows latent diffusion: of AdamW, of all gradients together, and of the first steps.
BETAS, CLIP, WARM_UP = (0.9, 0.99), 1.0, 20
_PATCHES, _READ_FOR_RANGE = 1000, 64  # that the range of values is taken from, in memory and of a dataset
READ = 8
"""Patches of a dataset that is read, encoded at a time: what is too large for memory has large patches, too."""
CODED = 256
"""Patches of a dataset that is read whose codes give the mean and standard deviation of all."""


def arranged(image: Tensor, mask: Tensor, variant: int) -> tuple[Tensor, Tensor]:
    """Normalised images (n, C, H, W) and their masks (n, H, W) in one orientation, from 8 on with the dates exchanged.

    Dates, whose bands come one after the other, are exchanged after each was normalised by itself: what was built is
    then torn down, while season and light keep their order.
    """
    if variant >= ORIENTATIONS:
        image = image.roll(image.shape[1] // 2, dims=1)
    return turn(image, variant % ORIENTATIONS).contiguous(), turn(mask, variant % ORIENTATIONS).contiguous()


class Stage(Training):
    """One stage of the training; a subclass defines what it minimises and which settings belong to it.

    It trains the part ``trained`` of the generator; ``others`` are further modules to be kept in checkpoints. The
    learning rate warms up over the first steps and, if ``lr_decay`` is set, then follows a cosine. Samples are those of
    the training data, on the device or to be read.
    """

    replayable = True

    def __init__(
        self,
        name: Literal['vae', 'diffusion'],
        generator: TwoStreamDiffusion,
        samples: Samples,
        config: TwoStreamConfig,
        seed: int,
        trained: nn.Module,
        others: Mapping[str, nn.Module] | None = None,
    ) -> None:
        lr, steps = (getattr(config, f'{name}_{setting}') for setting in ('lr', 'iterations'))
        self.generator, self.samples, self.config = generator, samples, config
        self.rate_setting = f'{name}_lr ({lr:g})'
        self.variants = orientations(*generator.spec.image_shape[-2:]) if config.augment else (0,)
        if config.swap_dates:
            self.variants += tuple(variant + ORIENTATIONS for variant in self.variants)
        generator.train().requires_grad_(False)
        trained.requires_grad_(True)
        optimiser = torch.optim.AdamW(trained.parameters(), lr=lr, betas=BETAS, fused=True)
        modules: dict[str, nn.Module] = {'generator': generator, **(others or {})}
        schedule = Cosine(WARM_UP) if config.lr_decay else WarmUp(WARM_UP)
        super().__init__(name, modules, {'adamw': optimiser}, steps, seed, generator.device, schedule)
        self.precision = config.precision

    def objective(self, rng: torch.Generator) -> Tensor:
        """The loss of one batch, all randomness from ``rng``."""
        raise NotImplementedError

    def update(self, rng: torch.Generator) -> None:
        """One step down the objective."""
        with self.mixed():
            loss = self.objective(rng)
        self.descend('adamw', loss, clip=CLIP)
        self.losses = {'loss': loss.detach()}

    def before_steps(self) -> None:
        """Let samples of a dataset be read ahead."""
        self.samples.ahead(self.rows_of, self.step, self.steps)

    def rows_of(self, step: int) -> Tensor:
        """Patches that a step is going to take: what it draws first."""
        return self.rows(len(self.samples), self._stream(self.name, step))

    def _stream(self, name: str, step: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(stream_of_step(self.seed, name, step))

    def at(self, samples: Samples, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (n, C, H, W), dates one after the other, and flat masks where there are masks."""
        x, y = samples.at(rows)
        return self.generator.normalise(x), flat_mask(y) if len(y) else y

    def parts_of(self, samples: Samples, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """What :meth:`at` returns, for a few rows at a time."""
        parts = rows.split(READ if isinstance(samples, Read) else CHUNK)
        samples.ahead(parts.__getitem__, 0, len(parts))
        return (self.at(samples, part) for part in parts)

    def any_variant(self, rng: torch.Generator) -> int:
        """An orientation for a whole batch, which the host decides: :meth:`prepare` is the place for it."""
        choice = torch.randint(len(self.variants), (), generator=stream(rng.initial_seed()))
        return self.variants[int(choice)]


class AutoencoderStage(Stage):
    """Trains both autoencoders in one pass; they share neither parameters nor losses.

    The image loss is the sum of L1, spectral angle and KL term, the mask loss that of cross-entropy and KL term; KL
    terms are summed over a code and divided by the number of pixels. Although the networks see standardised bands, L1
    is measured on values scaled to [0, 1] over all bands. Our copy of the paper does not state the range; with this
    one, and the errors of its Table 4, the angle makes up some 30 % of the loss. Images without masks, if any, train
    the image autoencoder only: each step adds as many of them as of the pairs, and the image loss is the mean of both.
    """

    def __init__(
        self,
        generator: TwoStreamDiffusion,
        samples: Samples,
        config: TwoStreamConfig,
        seed: int,
        images: Samples | None = None,
    ) -> None:
        super().__init__('vae', generator, samples, config, seed, generator.streams)
        self.images, self.batch_size = images, config.vae_batch_size
        most = _READ_FOR_RANGE if isinstance(samples, Read) else _PATCHES
        rows = torch.arange(0, len(samples), max(1, len(samples) // most), device=self.device)
        image = torch.cat([image for image, _ in self.parts_of(samples, rows)])
        self.width = value_width(image * generator.band_std + generator.band_mean)

    def before_steps(self) -> None:
        """Let samples of datasets be read ahead."""
        super().before_steps()
        if self.images is not None:
            self.images.ahead(self.images_of, self.step, self.steps)

    def images_of(self, step: int) -> Tensor:
        """Images without masks that a step takes, of a stream of their own."""
        assert self.images is not None
        return self.rows(len(self.images), self._stream('images', step))

    def prepare(self, rng: torch.Generator) -> tuple[Tensor, ...]:
        """A batch of images and masks in one orientation, and of images without masks where there are some."""
        rows, variant = self.rows(len(self.samples), rng), self.any_variant(rng)
        pairs = arranged(*self.at(self.samples, rows), variant)
        if self.images is None:
            return pairs
        image, _ = self.at(self.images, self.images_of(self.step))
        return *pairs, arranged(image, image[:, 0], variant)[0]

    def objective(self, rng: torch.Generator) -> Tensor:
        """Reconstruction and KL of one batch."""
        image, mask, *without = self.given
        generator, posterior = self.generator, self.generator.posterior(image, mask)
        codes = [mean + (0.5 * logvar).exp() * self.noise(mean.shape[1:], rng) for mean, logvar in posterior]
        output, logits = generator.decode(codes)
        loss = self._reconstruction(output, image)
        kl = [kl_divergence(mean, logvar) for mean, logvar in posterior]
        if without:
            more, kl_of_more = self._of_images(without[0], rng)
            loss, kl[0] = (loss + more) / 2, (kl[0] + kl_of_more) / 2
        loss = loss + mask_loss(logits, *generator.targets(mask), self.config.mask_loss)
        return loss + self.config.kl_weight * torch.stack(kl).sum(dim=0).mean() / mask[0].numel()

    def _of_images(self, image: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The image's loss, and its KL term, of images without masks."""
        mean, logvar = self.generator.encode_stream(0, image)
        code = mean + (0.5 * logvar).exp() * self.noise(mean.shape[1:], rng)
        return self._reconstruction(self.generator.decode_stream(0, code), image), kl_divergence(mean, logvar)

    def _reconstruction(self, output: Tensor, image: Tensor) -> Tensor:
        """L1 and the spectral angle, which is that of each date: two dates do not make up one spectrum."""
        generator = self.generator
        found, target, mean, std = (
            generator.by_date(x) for x in (output, image, generator.band_mean, generator.band_std)
        )
        return spectral_reconstruction(found, target, mean, std, self.width, self.config.sad_weight)


class DiffusionStage(Stage):
    """Trains the denoiser on the codes of all patches; its average over the steps is what is kept.

    Codes of a dataset that is read are kept where they take 1 GiB at most; their mean and standard deviation are those
    of 256 patches, drawn at random, where there are more. ``shares`` (N, K) are those of classes in the patches.
    """

    def __init__(
        self, generator: TwoStreamDiffusion, samples: Samples, shares: Tensor, config: TwoStreamConfig, seed: int
    ) -> None:
        self.average = Average(generator.denoiser, config.ema_decay)
        others = {'average': self.average.module}
        super().__init__('diffusion', generator, samples, config, seed, generator.denoiser, others)
        self.alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod.to(self.device)
        self.shares, self.batch_size = shares.to(self.device), config.batch_size
        self.cache: tuple[Tensor, ...] | None = None

    @torch.no_grad()
    def before_steps(self) -> None:
        """Standardise the codes; encode all patches once, in all orientations: the autoencoders no longer change."""
        rows, variants = torch.arange(len(self.samples), device=self.device), len(self.variants)
        if self.step == 0:
            self.standardise_codes(rows)
        size = 8 * variants * len(rows) * math.prod(self.generator.code_shape)
        if self.config.cache_latents and (isinstance(self.samples, Held) or size <= IN_MEMORY):
            parts = list(self._all_codes(rows, self.variants))
            self.cache = tuple(
                torch.stack([torch.cat([part[k] for part in parts[v::variants]]) for v in range(variants)])
                for k in range(2)
            )
        else:
            super().before_steps()

    def standardise_codes(self, rows: Tensor) -> None:
        """Take mean and standard deviation of the codes, per channel, from the patches in these rows."""
        if isinstance(self.samples, Read):
            drawn = torch.randperm(len(rows), generator=stream(stream_of_step(self.seed, 'codes', 0)))[:CODED]
            rows = rows[drawn.sort().values]
        mean, logvar = map(torch.cat, zip(*self._all_codes(rows, self.variants[:1]), strict=True))
        middle = mean.mean(dim=(0, 2, 3))
        # the variance of a code is that of the posterior means and of the posterior itself
        std = (mean.var(dim=(0, 2, 3), unbiased=False) + logvar.exp().mean(dim=(0, 2, 3))).sqrt()
        self.generator.latent_mean.copy_(middle[:, None, None])
        self.generator.latent_std.copy_(band_scale(middle, std)[:, None, None])

    def _codes(self, image: Tensor, mask: Tensor, variant: int) -> tuple[Tensor, ...]:
        """Means and log variances of patches in one orientation, (n, L, h, w), streams joined."""
        posterior = self.generator.posterior(*arranged(image, mask, variant))
        return tuple(torch.cat(parts, dim=1) for parts in zip(*posterior, strict=True))

    def _all_codes(self, rows: Tensor, variants: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        """Codes of some samples, a chunk and an orientation at a time."""
        for image, mask in self.parts_of(self.samples, rows):
            for variant in variants:
                yield self._codes(image, mask, variant)

    @torch.no_grad()
    def prepare(self, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Rows of a batch, and the means and log variances of their codes where these are not at hand."""
        rows = self.rows(len(self.samples), rng)
        if self.cache is not None:
            return (rows,)
        return rows, *self._codes(*self.at(self.samples, rows), self.any_variant(rng))

    def objective(self, rng: torch.Generator) -> Tensor:
        """Weighted squared error of the prediction."""
        rows, *codes = self.given
        device, config = self.device, self.config
        draws = self.noise((2, *self.generator.code_shape), rng).unbind(dim=1)
        time = self.share(torch.randint(TRAIN_STEPS, (self.batch_size,), generator=rng, device=device))
        shares = self.shares[rows]
        if config.class_conditional and config.condition_dropout:
            keep = torch.rand((self.batch_size, 1), generator=rng, device=device) >= config.condition_dropout
            shares = shares * self.share(keep)
        if self.cache is not None:
            variant = torch.randint(len(self.variants), (self.batch_size,), generator=rng, device=device)
            variant = self.share(variant)
            mean, logvar = self.cache[0][variant, rows], self.cache[1][variant, rows]
        else:
            mean, logvar = codes
        code = mean + (0.5 * logvar).exp() * draws[0]
        code, noise = (code - self.generator.latent_mean) / self.generator.latent_std, draws[1]
        return denoising_loss(
            lambda noisy: self.generator.denoiser(noisy, time, shares), code, noise, self.alphas[time],
            config.prediction_type, config.min_snr_gamma,
        )  # fmt: skip

    def after_step(self) -> None:
        """Average the weights."""
        self.average.follow(self.step)

    def result(self) -> TwoStreamDiffusion:
        """A copy of the generator with the averaged denoiser."""
        generator = copy.deepcopy(self.generator)
        generator.denoiser.load_state_dict(self.average.module.state_dict())
        return generator.eval()
