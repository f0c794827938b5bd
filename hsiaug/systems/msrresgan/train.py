"""Training of super-resolution: MSRResGAN with its MSRResNet, and the baselines SRGAN and SRCNN.

As in the paper, the gradient network is trained first; we then freeze it. The generator minimises the mean squared
error of the residual that it adds to the interpolated image, plus λ times the adversarial loss; the discriminator
minimises a binary cross-entropy (Eq. 5 as printed has log(0 − D)). The squared error is a mean over values of
normalised images, which sets the meaning of λ. SRGAN has the same content loss here, as its perceptual loss needs a
network for three bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, mse_loss

from ...engine import Run, Training
from ...engine.checkpoint import identity_of
from ...engine.schedules import Staircase
from ...engine.training import Precision, run_stages
from ...functional.degradation import degrade, padded, upsample
from ...functional.plain import plain_torch
from ...named_configs import published_settings
from ...settings import NOT_NEGATIVE, Range, check_settings
from ...streams import seeded
from ..base import TrainingData
from ..training import trains
from ..training_data import require_images
from .model import CHUNK, Augmentation, MSRResGAN
from .network import ADVERSARIAL, MSRResNet, Network, SRDiscriminator, SRResNet, gradient_magnitude

Deception = Literal['non_saturating', 'minimax']

CHECKPOINT_FILE = 'training.safetensors'


@dataclass(frozen=True)
class SuperResolutionConfig:
    """Training settings. The defaults are small, for minutes on a CPU; :meth:`paper` gives the published ones.

    The settings up to ``noise`` are those of the generator, :class:`~hsiaug.systems.msrresgan.MSRResGAN`; ``mtf`` and
    ``noise`` also describe the low-resolution sensor in training.

    Args:
        adversarial: weight λ of the adversarial loss.
        deception: adversarial loss of the generator: ``'minimax'`` is log(1 − D), as in Eq. 6, whose gradient vanishes
            when the discriminator is certain, as early in training; ``'non_saturating'`` is −log D.
        gradient_iterations: number of steps of the gradient network.
        iterations: number of steps of the generator.
        batch_size: patches per step.
        lr: learning rate of all networks.
        lr_decay: factor applied to the learning rate after each quarter of a stage.
        discriminator_width: kernels of the discriminator's first layer.
        shrink: after training, multiply the residual of a residual network by the number from 0 to 1 with the smallest
            error on the validation part, if there is one, so that it is no worse there than interpolation. Not in the
            paper.
        precision: ``'32'``; ``'tf32'`` or ``'bf16'``, faster on a GPU.

    Raises:
        ValueError: if a setting is out of its range.
    """

    network: Network = 'msrresgan'
    factor: int = 2
    width: int = 32
    blocks: int | None = 4
    augmentation: Augmentation = 'zoom'
    mtf: float = 0.3
    noise: float = 0.0
    adversarial: float = 1e-4
    deception: Deception = 'non_saturating'
    gradient_iterations: int = 300
    iterations: int = 600
    batch_size: int = 8
    lr: float = 1e-3
    lr_decay: float = 0.5
    discriminator_width: int = 16
    shrink: bool = True
    precision: Precision = '32'

    def __post_init__(self) -> None:
        rate = Range(0, 1, open_low=True)
        check_settings(self, gradient_iterations=NOT_NEGATIVE, batch_size=Range(2), lr=rate, lr_decay=rate)

    @classmethod
    def paper(cls, network: Network = 'msrresgan', factor: int = 5) -> SuperResolutionConfig:
        """The published setting; the paper gives neither batch size nor number of steps, these are of our choice."""
        return cls(**{**published_settings('msrresgan'), 'network': network, 'factor': factor})


class _Stage(Training):
    """What both stages share: batches of both resolutions, and the learning rate."""

    replayable = True

    def __init__(
        self,
        name: str,
        generator: MSRResGAN,
        trained: dict[str, Iterable[nn.Parameter]],
        low: Tensor | None,
        config: SuperResolutionConfig,
        steps: int,
        seed: int,
        discriminator: nn.Module | None = None,
    ) -> None:
        self.network: Any = generator.network.train()
        modules: dict[str, nn.Module] = {'network': self.network}
        if discriminator is not None:
            modules['discriminator'] = discriminator.train()
        optimisers = {k: torch.optim.Adam(p, lr=config.lr, fused=True) for k, p in trained.items()}
        super().__init__(name, modules, optimisers, steps, seed, generator.device, Staircase(config.lr_decay))
        self.generator, self.config, self.low, self.precision = generator, config, low, config.precision

    def batch(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normalised images of low resolution, or of high resolution interpolated from it, and of high resolution."""
        rows = torch.randint(len(self.generator.image), (self.config.batch_size,), generator=rng, device=self.device)
        high = self.generator.normalise(self.generator.image[rows])
        if self.low is not None:
            low = self.generator.normalise(self.low[rows])
        else:  # of the whole batch, so that many processes draw the noise of one
            low = degrade(padded(high, self.config.factor), self.config.factor, self.config.mtf, self.config.noise, rng)
        return self.share(low), self.share(high)


def interpolated(low: Tensor, high: Tensor, factor: int) -> Tensor:
    """The low resolution, interpolated first and then cut to the size of the high one."""
    if low.shape == high.shape:
        return low
    return upsample(low, factor)[..., : high.shape[-2], : high.shape[-1]]


class GradientStage(_Stage):
    """Trains the gradient network."""

    def __init__(self, generator: MSRResGAN, low: Tensor | None, config: SuperResolutionConfig, seed: int) -> None:
        trained = {'gradient': generator.network.gradient.parameters()}  # type: ignore[union-attr]
        super().__init__('gradient', generator, trained, low, config, config.gradient_iterations, seed)

    def update(self, rng: torch.Generator) -> None:
        """Squared error of the learned gradient."""
        low, high = self.batch(rng)
        with self.mixed():
            gradient = self.network.learned_gradient(interpolated(low, high, self.config.factor))
        self.minimise('gradient', mse_loss(gradient.float(), gradient_magnitude(high)))


class GeneratorStage(_Stage):
    """Trains the generator, and by turns a discriminator where there is one."""

    def __init__(
        self,
        generator: MSRResGAN,
        discriminator: nn.Module | None,
        low: Tensor | None,
        config: SuperResolutionConfig,
        seed: int,
    ) -> None:
        parts = generator.network.named_parameters()
        trained: dict[str, Iterable[nn.Parameter]] = {
            'generator': [p for name, p in parts if not name.startswith('gradient.')]
        }
        if discriminator is not None:
            trained['discriminator'] = discriminator.parameters()
        super().__init__('generator', generator, trained, low, config, config.iterations, seed, discriminator)
        self.discriminator = discriminator
        if getattr(self.network, 'gradient', None) is not None:
            self.network.gradient.eval().requires_grad_(False)

    def restored(self, low: Tensor, high: Tensor) -> Tensor:
        """What the network makes of the low resolution, of the size of the high one."""
        if isinstance(self.network, SRResNet):  # it interpolates by itself
            return self.network(low)[..., : high.shape[-2], : high.shape[-1]]
        return self.network.restore(interpolated(low, high, self.config.factor))

    def update(self, rng: torch.Generator) -> None:
        """The discriminator's step, then the generator's on the same batch."""
        low, high = self.batch(rng)
        with self.mixed():
            fake = self.restored(low, high).float()
        loss = mse_loss(fake, high)  # the residual's error (Eq. 2): the outer skip is part of the network
        if self.discriminator is not None:
            # Apart, as batch normalisation would tell a mixed batch's halves from their common mean.
            with self.mixed():
                scores = [self.discriminator(image).float() for image in (high, fake.detach())]
            losses = [
                binary_cross_entropy_with_logits(score, torch.full_like(score, truth))
                for score, truth in zip(scores, (1.0, 0.0), strict=True)
            ]
            self.minimise('discriminator', (losses[0] + losses[1]) / 2)
            self.discriminator.requires_grad_(False)
            with self.mixed():
                score = self.discriminator(fake).float()
            # log(1 − D) and −log D of a logit
            adversarial = logsigmoid(-score) if self.config.deception == 'minimax' else -logsigmoid(score)
            loss = loss + self.config.adversarial * adversarial.mean()
            self.discriminator.requires_grad_(True)
        self.minimise('generator', loss)


@trains('msrresgan', SuperResolutionConfig)
@plain_torch()
def train_super_resolution(
    data: TrainingData, config: SuperResolutionConfig | None = None, run: Run | None = None, low: Tensor | None = None
) -> MSRResGAN:
    """Train a super-resolution network on patches, and make the generator that augments with it.

    Args:
        data: training part of a split, of kind ``'segmentation'`` or ``'scene'``, with patches of high resolution.
        config: settings; the default ones if None.
        run: seed, device, checkpoints, progress; see :class:`~hsiaug.engine.Run`. The checkpoint is removed when the
            training ends.
        low: the same patches from a real low-resolution sensor, in the same unit: (N, C, ⌈H/k⌉, ⌈W/k⌉), or (N, C, H, W)
            if the whole image was interpolated before patches were cut, as in the paper; by default, those of ``data``.
            If there are none, the patches are degraded.

    Returns:
        the generator, on the device.

    Raises:
        ValueError: if the data cannot be used, or the checkpoint belongs to another training.
        FloatingPointError: if the training diverges; the last good checkpoint is kept.
    """
    config, run = config or SuperResolutionConfig(), run or Run()
    if low is None and data.coarse is not None:
        low = data.coarse.image
        if data.coarse.factor != config.factor:
            raise ValueError(
                f'the scene of low resolution is {data.coarse.factor} times coarser, but factor is {config.factor}; '
                f'set factor to {data.coarse.factor}'
            )
    _require_trainable(data, config, low)
    identity = identity_of(config, run.seed, split=data.split_name, patches=len(data.x), paired=low is not None)
    with seeded(run.seed):
        generator = MSRResGAN(data.spec, **MSRResGAN.settings_in(config))
        discriminator = None
        if config.network in ADVERSARIAL and config.adversarial:
            size = (data.x.shape[-2], data.x.shape[-1])
            discriminator = SRDiscriminator(data.spec.bands, size, config.discriminator_width).to(run.device)
    generator.observe(data)
    generator.to(run.device)
    low = None if low is None else low.to(run.device, torch.float32)
    network: Any = generator.network
    stages: dict[str, Callable[[], _Stage]] = {}
    if isinstance(network, MSRResNet) and network.gradient is not None:
        stages['gradient'] = partial(GradientStage, generator, low, config, run.seed)
    if any(True for _ in network.parameters()):
        stages['generator'] = partial(GeneratorStage, generator, discriminator, low, config, run.seed)
    run_stages(stages, run, CHECKPOINT_FILE, identity)
    generator.eval().requires_grad_(True)
    if config.shrink and isinstance(network, MSRResNet) and len(data.val_x):
        shrink_residual(network, *_validation(generator, data, config, low is not None))
    generator.adopt(data, run.seed, config)
    return generator


@torch.no_grad()
def shrink_residual(network: MSRResNet, image: Tensor, high: Tensor) -> float:
    """Multiply what a network adds by the number from 0 to 1 that leaves the least squared error.

    Args:
        network: in evaluation mode; its last layer, which is linear, is changed.
        image: (n, C, H, W) interpolated images.
        high: (n, C, H, W) of high resolution.

    Returns:
        the number; 1 where nothing is added or there is no image.
    """
    product, square = torch.zeros(2, dtype=torch.float64)
    for part, wanted in zip(image.split(CHUNK), high.split(CHUNK), strict=True):
        added = (network.restore(part) - part).double()
        product += (added * (wanted - part)).sum().cpu()
        square += added.square().sum().cpu()
    share = float((product / square).clamp(0, 1)) if square > 0 else 1.0
    for parameter in network.residual.last.parameters():
        parameter.mul_(share)
    return share


def _validation(
    generator: MSRResGAN, data: TrainingData, config: SuperResolutionConfig, paired: bool
) -> tuple[Tensor, Tensor]:
    """Normalised validation images, interpolated and of high resolution; none where only training has real pairs."""
    high = generator.normalise(data.val_x.to(generator.device))
    if not paired:
        low = degrade(padded(high, config.factor), config.factor, config.mtf)
    elif data.val_coarse is not None:
        low = generator.normalise(data.val_coarse.image.to(generator.device))
    else:
        return high[:0], high[:0]
    return interpolated(low, high, config.factor), high


def _require_trainable(data: TrainingData, config: SuperResolutionConfig, low: Tensor | None) -> None:
    require_images('super-resolution', data, 'segmentation', 'scene')
    if low is None:
        return
    if not isinstance(low, Tensor):
        raise TypeError(f'low-resolution patches must be a tensor, found {type(low).__name__}')
    fine = tuple(data.x.shape)
    coarse = (*fine[:2], *(-(-side // config.factor) for side in fine[2:]))
    if tuple(low.shape) not in (coarse, fine) or not torch.isfinite(low).all():
        raise ValueError(
            f'low-resolution patches must be {coarse} and finite at a factor of {config.factor}, found '
            f'{tuple(low.shape)}; or {fine} where they were interpolated before they were cut'
        )
    if tuple(low.shape) == fine and config.network == 'srgan':
        raise ValueError(
            'the network srgan takes patches of low resolution, and cannot learn from interpolated ones; leave it out'
        )
