"""Training of the generators of abundances: what a step does for each kind, and how they are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ....engine import Average, Run, Training
from ....engine.checkpoint import digest_of, identity_of
from ....engine.data import require_finite_samples
from ....engine.schedules import Cosine, constant
from ....functional.orientations import any_orientation
from ....functional.plain import plain_torch
from ....losses.min_snr import denoising_loss
from ....models.diffusion import TRAIN_STEPS
from ....streams import seeded
from .base import AbundanceModel, label_index
from .config import AbundanceConfig, abundance_model
from .diffusion import AbundanceDiffusion
from .style_gan import StyleDiscriminator, StyleGAN
from .vae import HierarchicalVAE

CHECKPOINT_FILE = 'abundances.safetensors'
WARM_UP = 20
MIN_SNR = 5.0
R1_EVERY = 8  # steps of the discriminator per penalty, which is weighted by the same number


class AbundanceTraining(Training):
    """What the kinds have in common: batches, the average of the weights and the learning rate.

    The model has observed the data, which are on its device: abundances (N, k, s, s), (N,) indices of labels and (N,)
    weights that say how often each map is met. ``others`` are networks that are trained besides, by name, ``betas``
    those of Adam.
    """

    replayable = True
    rate: ClassVar[Any] = Cosine(WARM_UP)
    """Schedule of the learning rate."""

    def __init__(
        self,
        model: AbundanceModel,
        abundances: Tensor,
        index: Tensor,
        weights: Tensor,
        config: AbundanceConfig,
        seed: int,
        others: dict[str, nn.Module] | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        trained = {'model': model.train(), **(others or {})}
        optimisers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(module.parameters(), lr=config.rate, betas=betas, fused=True)
            for name, module in trained.items()
        }
        self.average = Average(model, config.ema)
        modules = {**trained, 'average': self.average.module}
        super().__init__(config.kind, modules, optimisers, config.iterations, seed, model.device, self.rate)
        self.abundances, self.index, self.weights, self.config = abundances, index, weights, config
        self.precision, self.batch_size = config.precision, config.batch_size

    def batch(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Maps (B, k, s, s), and (B,) indices of their labels."""
        rows = torch.multinomial(self.weights, self.batch_size, replacement=True, generator=rng)
        maps = self.abundances[rows]
        maps = any_orientation(maps, rng) if self.config.augment else maps
        return self.share(maps), self.share(self.index[rows])

    def after_step(self) -> None:
        """Let the average follow the weights."""
        self.average.follow(self.step)


class VAETraining(AbundanceTraining):
    """Steps of the hierarchical VAE."""

    def update(self, rng: torch.Generator) -> None:
        """One step down the negative evidence lower bound, which is reported in nats per pixel."""
        model: HierarchicalVAE = self.modules['model']  # type: ignore[assignment]
        maps, index = self.batch(rng)
        with self.mixed():
            negative_log_likelihood, kls = model.evidence(maps, index, self.own_stream(rng))
        pixels = maps[0, 0].numel()
        reconstruction, kl = negative_log_likelihood.mean() / pixels, kls.sum(dim=1).mean() / pixels
        self.descend('model', (reconstruction + kl) / model.counts, clip=1.0)
        self.losses = {'reconstruction': reconstruction.detach(), 'kl': kl.detach()}


class DiffusionTraining(AbundanceTraining):
    """Steps of the denoiser."""

    def update(self, rng: torch.Generator) -> None:
        """One step down the squared error of the velocity, weighted by the signal-to-noise ratio, or of the noise."""
        model: AbundanceDiffusion = self.modules['model']  # type: ignore[assignment]
        maps, index = self.batch(rng)
        x, ddpm = model.standardise(maps), model.form == 'ddpm'
        noise = self.noise(x.shape[1:], rng)
        time = self.share(torch.randint(TRAIN_STEPS, (self.batch_size,), generator=rng, device=x.device))
        form: Any = ('epsilon', math.inf) if ddpm else ('v_prediction', MIN_SNR)  # all times count alike, or by min-SNR
        with self.mixed():
            loss = denoising_loss(lambda noisy: model(noisy, time, index), x, noise, model.alphas[time], *form)
        self.descend('model', loss, clip=1.0)
        self.losses = {'loss': loss.detach()}


class StyleGANTraining(AbundanceTraining):
    """Steps of the discriminator and of the style-based generator by turns.

    The losses are the non-saturating ones, with the R1 penalty of Mescheder et al., ICML 2018,
    https://arxiv.org/abs/1801.04406, on real maps. Between two steps with a penalty there are some without, as in
    StyleGAN2.
    """

    rate = staticmethod(constant)

    def __init__(
        self, model: StyleGAN, abundances: Tensor, index: Tensor, weights: Tensor, config: AbundanceConfig, seed: int
    ) -> None:
        self.discriminator = StyleDiscriminator(model.k, model.size, model.num_labels).to(model.device)
        others: dict[str, nn.Module] = {'discriminator': self.discriminator.train()}
        super().__init__(model, abundances, index, weights, config, seed, others, betas=(0.0, 0.99))
        self.model = model

    def phase(self) -> bool:
        """Whether the next step has a penalty."""
        return bool(self.config.r1) and self.step % R1_EVERY == 0

    def scores(self, maps: Tensor, index: Tensor) -> Tensor:
        """Logits of being real (n,) of abundances."""
        return self.discriminator(self.model.standardise(maps), index).float()

    def fake(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """Synthetic maps with these labels."""
        return self.model(self.noise((self.model.noise_dim,), rng), index)

    def update(self, rng: torch.Generator) -> None:
        """One step of the discriminator, one of the generator."""
        maps, index = self.batch(rng)
        self.discriminator_step(maps, index, rng)
        self.generator_step(index, rng)

    def discriminator_step(self, maps: Tensor, index: Tensor, rng: torch.Generator) -> None:
        """One step of the discriminator."""
        with self.mixed():
            with torch.no_grad():
                fake = self.fake(index, rng)
            loss = (softplus(-self.scores(maps, index)).mean() + softplus(self.scores(fake, index)).mean()) / 2
        self.losses['discriminator'] = loss.detach()
        if self.phase():
            with self.mixed(enabled=False):
                real = maps.clone().requires_grad_(True)
                (slope,) = torch.autograd.grad(self.scores(real, index).sum(), real, create_graph=True)
            # With respect to standardised maps, which is what the discriminator sees.
            penalty = (slope * self.model.std).square().flatten(1).sum(dim=1).mean()
            loss = loss + self.config.r1 / 2 * R1_EVERY * penalty
        self.descend('discriminator', loss)

    def generator_step(self, index: Tensor, rng: torch.Generator) -> None:
        """One step of the generator, through the discriminator at fixed weights."""
        self.discriminator.requires_grad_(False)
        with self.mixed():
            loss = softplus(-self.scores(self.fake(index, rng), index)).mean()
        self.descend('model', loss)
        self.discriminator.requires_grad_(True)
        self.losses['generator'] = loss.detach()


_TRAININGS: dict[str, Callable[..., AbundanceTraining]] = {
    'vae': VAETraining, 'style_gan': StyleGANTraining, 'diffusion': DiffusionTraining,
}  # fmt: skip


@plain_torch()
def train_abundances(
    abundances: Tensor,
    labels: Tensor | None,
    num_labels: int,
    config: AbundanceConfig | None = None,
    run: Run | None = None,
    weights: Tensor | None = None,
) -> AbundanceModel:
    """Train a generator of abundances, whose averaged weights come back on the device.

    Args:
        abundances: (N, k, s, s) float32 maps on the simplex.
        labels: (N,) int64, −1 for maps without label; None where there are no labels to learn.
        num_labels: how many labels there are, 0 for none.
        config: setting; the default one if None.
        run: how, see :class:`~hsiaug.engine.Run`; the checkpoint is removed when the training ends.
        weights: (N,) how often a map is met, relative to the others; alike if None.

    Raises:
        FloatingPointError: if the training diverges; the last good checkpoint stays.
    """
    config, run = config or AbundanceConfig(), run or Run()
    _require_trainable(abundances)
    abundances = abundances.detach().float().cpu()
    index = _indices(abundances, labels, num_labels)
    shares = _shares(len(abundances), weights)
    digest = digest_of(abundances, index, shares)
    identity = identity_of(config, run.seed, ('learning_rate',), maps=list(abundances.shape), data=digest)
    with seeded(run.seed):
        k, size = abundances.shape[1:3]
        model = abundance_model(config.kind, k, size, num_labels, **config.network)
        model.observe(abundances, index, shares)
        there = (part.to(run.device) for part in (model, abundances, index, shares))
        training = _TRAININGS[config.kind](*there, config, run.seed)
    training.complete(run, CHECKPOINT_FILE, identity)
    return training.average.module.requires_grad_(True).eval()


def _require_trainable(abundances: Tensor) -> None:
    """Raises ValueError unless these are maps of abundances."""
    shape = tuple(abundances.shape)
    if len(shape) != 4 or shape[2] != shape[3] or 0 in shape or not abundances.is_floating_point():
        raise ValueError(
            f'abundances must be square maps (N, k, s, s) of floating point, found {shape} of {abundances.dtype}'
        )
    require_finite_samples(abundances, 'maps', 'patches')
    low, total = float(abundances.min()), abundances.sum(dim=1)
    if low < -1e-4 or float((total - 1).abs().max()) > 1e-3:
        raise ValueError(
            f'abundances must not be negative and add up to one at each pixel; found a least value of {low:.3g} and '
            f'sums from {float(total.min()):.4g} to {float(total.max()):.4g}'
        )


def _indices(abundances: Tensor, labels: Tensor | None, num_labels: int) -> Tensor:
    """(N,) indices of labels on the CPU."""
    if num_labels == 0 or labels is None:
        if num_labels:
            raise ValueError(f'labels must be given for num_labels={num_labels}, found None; num_labels=0 learns none')
        return torch.zeros(len(abundances), dtype=torch.int64)
    index = label_index(labels, len(abundances), num_labels, 'train_abundances')
    missing = sorted(set(range(num_labels)) - set(index.tolist()))
    if missing:
        raise ValueError(f'no map has the labels {missing} of {num_labels}: they cannot be learnt; leave them out')
    return index


def _shares(n: int, weights: Tensor | None) -> Tensor:
    """(n,) float32 weights on the CPU that add up to one."""
    if weights is None:
        return torch.full((n,), 1 / n)
    weights = weights.float().cpu()
    if weights.shape != (n,) or not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise ValueError(f'weights must be ({n},), finite and not negative, found {tuple(weights.shape)}: {weights}')
    if not bool(weights.sum() > 0):
        raise ValueError('weights of all maps are 0: nothing is left to learn from')
    return weights / weights.sum()
