"""Training of the patch GAN: binary cross-entropy, or a Wasserstein distance with gradient penalty.

The tutorial mentions both, and calls the second more robust. Steps of critic and generator alternate.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ...datasets.real.class_patches import Rule, class_patches
from ...engine import Run, Training
from ...engine.checkpoint import identity_of
from ...functional.gradient_penalty import gradient_penalty_autograd
from ...functional.plain import learning
from ...models.patch_cnn import Dims
from ...settings import POSITIVE, Range, check_settings
from ...streams import seeded
from ..base import TrainingData
from ..pictures import Pictures
from ..training import trains
from ..training_data import require_classes, require_images
from .model import PatchCritic, PatchGAN, Upsampling

CHECKPOINT_FILE = 'training.safetensors'
Loss = Literal['bce', 'wgan-gp']


@dataclass(frozen=True)
class PatchGANConfig:
    """Training settings. The tutorial gives only the layers; learning rates are DCGAN's, lengths our choice.

    The settings from ``latent_dim`` to ``upsampling`` are those of the generator,
    :class:`~hsiaug.systems.patch_gan.PatchGAN`; they apply to the critic too.

    Args:
        loss: ``'bce'`` or ``'wgan-gp'``.
        calibrate: after training, match the mean and standard deviation of each class to its training patches; needs
            ``conditional``.
        spectral_norm: apply spectral normalisation to the critic's weights.
        size: side of the patches to cut from image-mask pairs, divisible by 4.
        rule: how these patches are labelled, see :func:`~hsiaug.datasets.real.class_patches.class_patches`.
        per_class: largest number of these patches per class; None for all.
        iterations: number of generator steps.
        critic_steps: critic steps per generator step; must be 1 for ``'bce'``.
        batch_size: real patches per step; the number of synthetic ones is the same.
        lr: learning rate of Adam (β 0.5, 0.9).
        penalty: weight of the gradient penalty.

    Raises:
        ValueError: if a setting is out of its range.
    """

    loss: Loss = 'bce'
    latent_dim: int = 100
    conditional: bool = True
    dims: Dims = 2
    upsampling: Upsampling = 'transposed'
    calibrate: bool = False
    spectral_norm: bool = False
    size: int = 8
    rule: Rule = 'centre'
    per_class: int | None = None
    iterations: int = 1000
    critic_steps: int = 1
    batch_size: int = 32
    lr: float = 2e-4
    penalty: float = 10.0

    def __post_init__(self) -> None:
        check_settings(self, batch_size=Range(2), lr=POSITIVE)
        if self.calibrate and not self.conditional:
            raise ValueError('PatchGANConfig: calibrate gives classes their moments; it needs conditional=True')


class PatchGANTraining(Training):
    """The training: a generator, a critic, and the patches on the device."""

    replayable = True

    def __init__(
        self, generator: PatchGAN, critic: PatchCritic, data: TrainingData, config: PatchGANConfig, seed: int
    ) -> None:
        modules: dict[str, nn.Module] = {'generator': generator.train(), 'critic': critic.train()}
        optimisers = {
            name: torch.optim.Adam(module.parameters(), lr=config.lr, betas=(0.5, 0.9), fused=True)
            for name, module in modules.items()
        }
        super().__init__('patch_gan', modules, optimisers, config.iterations, seed, generator.device)
        self.generator, self.critic, self.config, self.batch_size = generator, critic, config, config.batch_size
        self.real, self.labels = generator.normalise(data.x.to(self.device)), data.y.to(self.device)

    def result(self) -> PatchGAN:
        """The generator as it stands."""
        return copy.deepcopy(self.generator).eval()

    def _fake(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Synthetic patches of these classes."""
        return self.generator(self.noise((self.generator.latent_dim,), rng), labels)

    def update(self, rng: torch.Generator) -> None:
        """``critic_steps`` steps of the critic, one of the generator."""
        for _ in range(self.config.critic_steps):
            self._critic_step(rng)
        self.critic.requires_grad_(False)
        labels = self.labels[self.rows(len(self.real), rng)]  # in training frequencies
        scores = self.critic(self._fake(labels, rng), labels)
        bce = self.config.loss == 'bce'
        loss = binary_cross_entropy_with_logits(scores, torch.ones_like(scores)) if bce else -scores.mean()
        self.minimise('generator', loss)
        self.critic.requires_grad_(True)

    def _critic_step(self, rng: torch.Generator) -> None:
        rows = self.rows(len(self.real), rng)
        real, labels = self.real[rows], self.labels[rows]
        with torch.no_grad():
            fake = self._fake(labels, rng)
        on_real, on_fake = self.critic(real, labels), self.critic(fake, labels)
        if self.config.loss == 'bce':
            on_real_loss = binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
            loss = (on_real_loss + binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))) / 2
            self.losses['discriminator'] = loss.detach()
        else:
            distance = on_fake.mean() - on_real.mean()
            epsilon = self.share(torch.rand((self.batch_size, 1, 1, 1), generator=rng, device=self.device))
            penalty = gradient_penalty_autograd(lambda x: self.critic(x, labels), torch.lerp(fake, real, epsilon))
            loss = distance + self.config.penalty * penalty
            self.losses['critic'] = distance.detach()
        self.descend('critic', loss)


@trains('patch_gan', PatchGANConfig, {'iterations': 300})
@learning()
def train_patch_gan(data: TrainingData, config: PatchGANConfig | None = None, run: Run | None = None) -> PatchGAN:
    """Train a patch GAN.

    Args:
        data: training part of a split, of kind ``'scene'``, or of kind ``'segmentation'``, from which labelled patches
            are cut.
        config: settings; the default ones if None.
        run: see :class:`~hsiaug.engine.Run`; the checkpoint is removed when the training ends.

    Returns:
        the generator, of kind ``'scene'``, on the device.

    Raises:
        ValueError: if the data cannot be used, or the checkpoint belongs to another training.
        FloatingPointError: if the training diverges; the last good checkpoint is kept.
    """
    config, run = config or PatchGANConfig(), run or Run()
    if data.spec.kind == 'segmentation':
        x, y, spec = class_patches(
            data.x, data.y, data.spec, config.size, config.rule, per_class=config.per_class, seed=run.seed
        )
        data = replace(data, spec=spec, x=x, y=y)
    data = replace(data, unlabelled=data.x[:0])  # the critic is given the class of each
    require_images('a patch GAN', data, 'scene', 'segmentation')  # of which patches were cut
    if config.conditional:
        require_classes('a patch GAN', data)
    identity = identity_of(config, run.seed, split=data.split_name, patches=len(data.x))
    with seeded(run.seed):
        generator = PatchGAN(data.spec, **PatchGAN.settings_in(config))
        size, classes = (data.x.shape[-2], data.x.shape[-1]), data.spec.num_classes if config.conditional else 0
        norm: Any = 'batch' if config.loss == 'bce' else 'layer'
        critic = PatchCritic(data.spec.bands, size, classes, norm, config.spectral_norm, config.dims)
    generator.observe(data)
    training = PatchGANTraining(generator.to(run.device), critic.to(run.device), data, config, run.seed)
    training.preview = Pictures(data, run.folder)
    training.complete(run, CHECKPOINT_FILE, identity)
    generator.eval()
    if config.calibrate:
        generator.calibrate(data, run.seed)
    generator.adopt(data, run.seed, config)
    return generator
