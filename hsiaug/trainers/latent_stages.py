"""The two stages of latent diffusion as Lightning modules, and how a killed stage goes on.

A step depends on its number, the seed and the state of the weights only: patches, flips and noise come from a random
stream of its own. So a stage that goes on from a checkpoint ends where an undisturbed one ends.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from lightning.pytorch import LightningModule
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ..functional.scaling import band_scale
from ..generators.two_stream_diffusion import CHUNK, SCHEDULE, TRAIN_STEPS, TwoStreamDiffusion
from ..losses.min_snr import min_snr_weight
from ..losses.reconstruction import kl_divergence, mask_loss, spectral_reconstruction
from .checkpoint import found_checkpoint, restore, state_of, write_checkpoint
from .two_stream_config import TwoStreamConfig

WARM_UP = 20
ORIENTATIONS = 8


def turn(x: Tensor, variant: int) -> Tensor:
    """One of the eight orientations of (..., H, W): quarter turns, then a flip from 4 on."""
    x = torch.rot90(x, variant % 4, dims=(-2, -1))
    return x.flip(-1) if variant >= 4 else x


def arranged(image: Tensor, mask: Tensor, variant: int) -> tuple[Tensor, Tensor]:
    """Normalised images and their masks in one orientation, from 8 on with the dates exchanged.

    Dates are exchanged after each was normalised by itself: what was built is then torn down, while season and light
    keep their order.

    Args:
        image: (n, C, H, W); of two dates, their bands one after the other.
        mask: (n, H, W).
        variant: number of the orientation, plus 8 for exchanged dates.
    """
    if variant >= ORIENTATIONS:
        image = image.roll(image.shape[1] // 2, dims=1)
    return turn(image, variant % ORIENTATIONS), turn(mask, variant % ORIENTATIONS)


class Stage(LightningModule):
    """A stage of the training: ``step`` counts what it has done, a subclass says what it minimises.

    Args:
        name: of the stage, in checkpoints and messages.
        generator: what is trained.
        x: (N, C, H, W) normalised images; of two dates, their bands one after the other.
        y: (N, H, W) masks.
        config: setting.
        seed: of everything random.
        trained: the part of the generator that this stage trains.
        batch_size: patches per step.
        lr: highest learning rate.
        steps: how many steps it takes.
    """

    x: Tensor
    y: Tensor

    def __init__(
        self,
        name: str,
        generator: TwoStreamDiffusion,
        x: Tensor,
        y: Tensor,
        config: TwoStreamConfig,
        seed: int,
        trained: nn.Module,
        batch_size: int,
        lr: float,
        steps: int,
    ) -> None:
        super().__init__()
        self.name, self.generator, self.config, self.seed = name, generator, config, seed
        self.trained, self.batch_size, self.lr, self.steps, self.step = trained, batch_size, lr, steps, 0
        self.register_buffer('x', x, persistent=False)
        self.register_buffer('y', y, persistent=False)
        square = x.shape[-1] == x.shape[-2]
        orientations = tuple(range(ORIENTATIONS)) if square else (0, 2, 4, 6)
        self.variants: tuple[int, ...] = orientations if config.augment else (0,)
        if config.swap_dates:
            self.variants += tuple(variant + ORIENTATIONS for variant in self.variants)
        for parameter in generator.parameters():
            parameter.requires_grad_(False)
        for parameter in trained.parameters():
            parameter.requires_grad_(True)
        self.optimiser = torch.optim.AdamW(trained.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
        self.loss = torch.zeros(())

    def objective(self, rng: torch.Generator) -> Tensor:
        """The loss of one batch, all randomness from ``rng``."""
        raise NotImplementedError

    def rows(self, rng: torch.Generator) -> Tensor:
        """(B,) patches of a batch."""
        return torch.randint(len(self.x), (self.batch_size,), generator=rng, device=self.device)

    def any_variant(self, rng: torch.Generator) -> int:
        """An orientation for a whole batch."""
        choice = torch.randint(len(self.variants), (), generator=torch.Generator().manual_seed(rng.initial_seed()))
        return self.variants[int(choice)]

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """The loss of step number ``batch``."""
        # Large odd numbers keep the streams of neighbouring seeds, stages and steps apart.
        mixed = (
            self.seed * 0x9E3779B97F4A7C15 + len(self.name) * 0xD1B54A32D192ED03 + batch * 0x2545F4914F6CDD1D
        ) % 2**63
        loss = self.objective(torch.Generator(self.device).manual_seed(mixed))
        self.loss = loss.detach()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; its learning rate is set by :meth:`on_train_batch_start`."""
        return self.optimiser

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        """A short warm-up, and a fall along a cosine to nothing where asked for."""
        factor = min(1.0, (batch + 1) / WARM_UP)
        if self.config.lr_decay:
            factor *= 0.5 * (1 + math.cos(math.pi * batch / self.steps))
        for group in self.optimiser.param_groups:
            group['lr'] = self.lr * factor

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step and count it. Callbacks come after, and find it done."""
        super().optimizer_step(*args, **kwargs)
        self.step += 1

    def result(self) -> TwoStreamDiffusion:
        """The generator as it stands."""
        return self.generator

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, nn.Module]:
        """What a checkpoint holds beside the optimiser."""
        return {'generator': self.generator}

    def save(self, file: Path, identity: Mapping[str, Any]) -> None:
        """Write everything that the next step depends on; the file appears whole or not at all."""
        write_checkpoint(file, state_of(self.weights(), self.optimisers), identity, self.name, self.step)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint of this stage."""
        restore(load_file(file), self.weights(), self.optimisers)
        self.step = int(found_checkpoint(file)['step'])

    @property
    def optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimiser, by the name that it has in checkpoints."""
        return {'adamw': self.optimiser}


class AutoencoderStage(Stage):
    """Trains both autoencoders; each has parameters and a loss of its own, so that one pass serves both.

    The image's loss is L1, the spectral angle and the KL term; the mask's is cross-entropy and the KL term. The KL
    term is summed over a code and divided by the number of pixels. Latent diffusion's adversarial and perceptual terms
    are left out: the perceptual one needs a network of RGB pictures, and the text names neither.
    """

    def __init__(self, generator: TwoStreamDiffusion, x: Tensor, y: Tensor, config: TwoStreamConfig, seed: int) -> None:
        super().__init__(
            'vae', generator, x, y, config, seed, generator.streams, config.vae_batch_size, config.vae_lr,
            config.vae_iterations,
        )  # fmt: skip

    def objective(self, rng: torch.Generator) -> Tensor:
        """Reconstruction and KL of one batch."""
        rows, variant = self.rows(rng), self.any_variant(rng)
        image, mask = arranged(self.x[rows], self.y[rows], variant)
        generator, posterior = self.generator, self.generator.posterior(image, mask)
        codes = [
            mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=rng, device=mean.device)
            for mean, logvar in posterior
        ]
        output, logits = generator.decode(codes)
        # The spectral angle is that of each date: two dates do not make up one spectrum.
        found, target, mean, std = (
            generator.by_date(x) for x in (output, image, generator.band_mean, generator.band_std)
        )
        loss = spectral_reconstruction(found, target, mean, std, self.config.sad_weight)
        loss = loss + mask_loss(logits, *generator.targets(mask), self.config.mask_loss)
        kl = torch.stack([kl_divergence(mean, logvar) for mean, logvar in posterior]).sum(dim=0).mean()
        return loss + self.config.kl_weight * kl / mask[0].numel()


class DiffusionStage(Stage):
    """Trains the denoiser on the codes of all patches; its average over the steps is what is kept."""

    def __init__(self, generator: TwoStreamDiffusion, x: Tensor, y: Tensor, config: TwoStreamConfig, seed: int) -> None:
        super().__init__(
            'diffusion', generator, x, y, config, seed, generator.denoiser, config.batch_size,
            config.diffusion_lr, config.diffusion_iterations,
        )  # fmt: skip
        self.average = copy.deepcopy(generator.denoiser)
        self.register_buffer('alphas', DDPMScheduler(**SCHEDULE).alphas_cumprod, persistent=False)
        self.register_buffer('shares', torch.empty(0), persistent=False)
        self.cache: tuple[Tensor, Tensor] | None = None

    alphas: Tensor
    shares: Tensor

    @torch.no_grad()
    def standardise_codes(self) -> None:
        """Take mean and spread of the codes, per channel, from the training patches."""
        mean, logvar = self._codes(self.variants[0])
        middle = mean.mean(dim=(0, 2, 3))
        # the spread of a code is that of the posterior means and of the posterior itself
        spread = (mean.var(dim=(0, 2, 3), unbiased=False) + logvar.exp().mean(dim=(0, 2, 3))).sqrt()
        self.generator.latent_mean.copy_(middle[:, None, None])
        self.generator.latent_std.copy_(band_scale(middle, spread)[:, None, None])

    def _codes(self, variant: int, rows: slice | Tensor = slice(None)) -> tuple[Tensor, Tensor]:
        """Means and log variances of patches, (n, L, h, w), streams joined."""
        means, logvars = [], []
        for x, y in zip(self.x[rows].split(CHUNK), self.y[rows].split(CHUNK), strict=True):
            streams = self.generator.posterior(*arranged(x, y, variant))
            means.append(torch.cat([mean for mean, _ in streams], dim=1))
            logvars.append(torch.cat([logvar for _, logvar in streams], dim=1))
        return torch.cat(means), torch.cat(logvars)

    @torch.no_grad()
    def on_fit_start(self) -> None:
        """Encode all patches once, in all orientations: the autoencoders no longer change."""
        hot = torch.cat([self.generator.one_hot(part).sum(dim=(2, 3)) for part in self.y.split(CHUNK)])
        self.shares = hot / hot.sum(dim=1, keepdim=True)
        if self.config.cache_latents:
            codes = [self._codes(variant) for variant in self.variants]
            self.cache = torch.stack([m for m, _ in codes]), torch.stack([v for _, v in codes])

    def on_fit_end(self) -> None:
        """Give the memory back."""
        self.cache = None

    def objective(self, rng: torch.Generator) -> Tensor:
        """Weighted squared error of the prediction."""
        rows, device, config = self.rows(rng), self.device, self.config
        draws = torch.randn((2, len(rows), *self.generator.code_shape), generator=rng, device=device)
        time = torch.randint(TRAIN_STEPS, (len(rows),), generator=rng, device=device)
        shares = self.shares[rows]
        if config.class_conditional and config.condition_dropout:
            keep = torch.rand((len(rows), 1), generator=rng, device=device) >= config.condition_dropout
            shares = shares * keep
        if self.cache is not None:
            variant = torch.randint(len(self.variants), (len(rows),), generator=rng, device=device)
            mean, logvar = self.cache[0][variant, rows], self.cache[1][variant, rows]
        else:
            with torch.no_grad():
                mean, logvar = self._codes(self.any_variant(rng), rows)
        code = mean + (0.5 * logvar).exp() * draws[0]
        code, noise = (code - self.generator.latent_mean) / self.generator.latent_std, draws[1]
        alpha = self.alphas[time][:, None, None, None]
        noisy = alpha.sqrt() * code + (1 - alpha).sqrt() * noise
        target = noise if config.prediction_type == 'epsilon' else alpha.sqrt() * noise - (1 - alpha).sqrt() * code
        prediction = self.generator.denoiser(noisy, time, shares)
        if config.min_snr_gamma is None:
            return mse_loss(prediction, target)
        weight = min_snr_weight(alpha.flatten(), config.min_snr_gamma, config.prediction_type)
        return (weight * mse_loss(prediction, target, reduction='none').mean(dim=(1, 2, 3))).mean()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step and average the weights."""
        super().optimizer_step(*args, **kwargs)
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            average: list[Tensor] = list(self.average.parameters())
            latest: list[Tensor] = list(self.generator.denoiser.parameters())
            torch._foreach_lerp_(average, latest, 1 - decay)

    def weights(self) -> dict[str, nn.Module]:
        """The generator, and the average."""
        return {**super().weights(), 'average': self.average}

    def result(self) -> TwoStreamDiffusion:
        """A copy of the generator with the averaged denoiser."""
        generator = copy.deepcopy(self.generator)
        generator.denoiser.load_state_dict(self.average.state_dict())
        return generator.eval()


__all__ = ['AutoencoderStage', 'DiffusionStage', 'Stage', 'turn']
