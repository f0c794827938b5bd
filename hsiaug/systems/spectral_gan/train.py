"""Training of the spectral GAN (Audebert et al. 2018): WGAN with gradient penalty and an auxiliary classifier.

The published notebook trains its critic on mixed-up batches, back-propagates through the generator in the critic's
step, and its semi-supervised path is never switched on. Here the critic's step builds no graph of the generator, the
critic sees real and synthetic samples in one pass, and semi-supervised means: the critic also sees unlabelled pixels of
the training area, the classifier labelled ones only.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...engine import Average, Best, Run, Training, world
from ...engine.checkpoint import digest_of, identity_of
from ...functional.gradient_penalty import gradient_penalty_mlp
from ...functional.plain import learning
from ...metrics.frechet import sliced_wasserstein
from ...models.mlp import MLP
from ...named_configs import published_settings
from ...settings import NOT_NEGATIVE, POSITIVE, SHARE, check_settings
from ..base import Generator, TrainingData
from ..ensemble import Ensemble
from ..pictures import Pictures
from ..training import trains
from ..training_data import require_classes, require_samples
from .model import Calibration, Space, SpectralGAN

CHECKPOINT_FILE = 'training.safetensors'


@dataclass(frozen=True)
class SpectralGANConfig:
    """Setting of a training. The defaults are short; :meth:`paper` is the published setting.

    ``noise_dim``, ``hidden``, ``layers``, ``space``, ``components``, ``conditional`` and ``calibration`` are those of
    the generator, :class:`~hsiaug.systems.spectral_gan.SpectralGAN`; all three networks have the same hidden layers,
    and without classes there is no classifier.

    Args:
        iterations: generator steps.
        critic_steps: steps of critic and classifier per generator step.
        batch_size: real samples per step, and the same number of synthetic ones.
        optimiser: ``'adam'`` (β 0.5, 0.9) or ``'rmsprop'``.
        lr: learning rate.
        penalty: weight of the gradient penalty.
        class_weight: weight of the classifier's penalty on the generator.
        ema: decay of the exponential moving average of the generator's weights; 0 for none.
        calibrate: match moments of each class after training, see :meth:`SpectralGAN.calibrate`.
        select_every: every ``select_every`` iterations the distance to the validation part is measured, and the best
            generator is kept; 0 keeps the last.
        semi_supervised: the critic also sees unlabelled pixels of the training area.
        members: GANs that differ in their seeds, as one generator.
    """

    iterations: int = 1000
    critic_steps: int = 2
    batch_size: int = 64
    optimiser: Literal['adam', 'rmsprop'] = 'adam'
    lr: float = 2e-4
    penalty: float = 10.0
    class_weight: float = 0.2
    noise_dim: int = 30
    hidden: int = 256
    layers: int = 4
    space: Space = 'pca'
    components: int = 30
    conditional: bool = True
    ema: float = 0.99
    calibrate: bool = True
    calibration: Calibration = 'joint'
    select_every: int = 0
    semi_supervised: bool = False
    members: int = 1

    def __post_init__(self) -> None:
        check_settings(self, lr=POSITIVE, ema=SHARE, select_every=NOT_NEGATIVE)

    @classmethod
    def paper(cls) -> SpectralGANConfig:
        """The published setting: the paper, and the authors' notebook where the paper is silent."""
        return cls(**published_settings('audebert2018'))


class SpectralGANTraining(Training):
    """State of a training: three networks, two optimisers, and the data on the device."""

    replayable = True

    def __init__(self, data: TrainingData, config: SpectralGANConfig, seed: int, device: str = 'cpu') -> None:
        _require_trainable(data, config)
        where = torch.device(device)
        self.config, self.data, self.batch_size = config, data, config.batch_size
        classes = data.spec.num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            settings = SpectralGAN.settings_in(config)
            if not (config.calibrate and config.conditional):
                settings['calibration'] = 'marginal'  # whose identity takes the least room
            self.generator = SpectralGAN(data.spec, **settings)
            dim = self.generator.space.dim
            self.critic = MLP(dim, 1, config.hidden, config.layers)
            self.classifier = MLP(dim, classes, config.hidden, config.layers)
        # Of a split without unlabelled pixels, supervised and semi-supervised are the same.
        wide = config.semi_supervised or not config.conditional
        area = torch.cat([data.x, data.unlabelled]) if wide else data.x
        self.generator.space.fit(area)
        modules: dict[str, nn.Module] = {
            'generator': self.generator.to(where), 'critic': self.critic.to(where),
            'classifier': self.classifier.to(where),
        }  # fmt: skip
        self.average = Average(self.generator.network, config.ema) if config.ema else None
        if self.average is not None:
            modules['average'] = self.average.module
        self.best = Best(self.generator) if config.select_every else None
        if self.best is not None:
            modules['best'] = self.best
        self.opponents = [*self.critic.parameters(), *self.classifier.parameters()]
        optimisers = {
            'critic': self._optimiser(self.opponents),
            'generator': self._optimiser([*self.generator.network.parameters()]),
        }
        self.rate_setting = f'lr ({config.lr:g})'
        super().__init__('gan', modules, optimisers, config.iterations, seed, where)
        self.real = self.generator.space.encode(area.to(where))
        self.labelled = self.generator.space.encode(data.x.to(where))
        self.labels = data.y.to(where)
        self.one_draw = len(self.real) == len(self.labelled) and config.conditional
        self.eye = torch.eye(classes, device=where)

    def _optimiser(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        lr = self.config.lr
        if self.config.optimiser == 'adam':
            return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.9), fused=True)
        return torch.optim.RMSprop(parameters, lr=lr, foreach=True)

    def _fake(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Synthetic codes, and their labels in training frequencies."""
        noise = self.noise((self.config.noise_dim,), rng)
        if not self.config.conditional:
            return self.generator(noise, noise), noise[:, 0].long()
        labels = self.labels[self.rows(len(self.labels), rng)]
        return self.generator(noise, self.eye[labels]), labels

    def critic_step(self, rng: torch.Generator) -> None:
        """One step of critic and classifier. No graph of the generator is built."""
        rows = self.rows(len(self.real), rng)
        real = self.real[rows]
        with torch.no_grad():
            fake, _ = self._fake(rng)
        scores = self.critic(torch.cat([real, fake]))
        critic_loss = scores[len(real) :].mean() - scores[: len(real)].mean()
        epsilon = self.share(torch.rand((self.config.batch_size, 1), generator=rng, device=self.device))
        penalty = gradient_penalty_mlp(self.critic, torch.lerp(fake, real, epsilon))
        loss = critic_loss + self.config.penalty * penalty
        self.losses['critic'] = critic_loss.detach()
        if self.config.conditional:
            mine = rows if self.one_draw else self.rows(len(self.labelled), rng)
            class_loss = cross_entropy(self.classifier(self.labelled[mine]), self.labels[mine])
            loss = loss + class_loss
            self.losses['classifier'] = class_loss.detach()
        self.descend('critic', loss)

    def generator_step(self, rng: torch.Generator) -> None:
        """One step of the generator, through critic and classifier at fixed weights."""
        for parameter in self.opponents:
            parameter.requires_grad_(False)
        fake, labels = self._fake(rng)
        loss = -self.critic(fake).mean()
        if self.config.conditional:
            loss = loss + self.config.class_weight * cross_entropy(self.classifier(fake), labels)
        self.descend('generator', loss)
        for parameter in self.opponents:
            parameter.requires_grad_(True)
        self.losses['generator'] = loss.detach()

    def update(self, rng: torch.Generator) -> None:
        """``critic_steps`` steps of critic and classifier, one of the generator."""
        for _ in range(self.config.critic_steps):
            self.critic_step(rng)
        self.generator_step(rng)

    def after_step(self) -> None:
        """Average the weights, and from time to time compare with the best so far."""
        if self.average is not None:
            self.average.follow(self.step)
        if self.best is not None and self.step % self.config.select_every == 0:
            score = -validation_distance(self.result(), self.data, self.seed)
            if score > float(self.best.score):
                self.best.keep(self.result(), score)

    def result(self) -> SpectralGAN:
        """The generator as it stands, averaged where there is an average."""
        generator = copy.deepcopy(self.generator)
        if self.average is not None:
            generator.network.load_state_dict(self.average.module.state_dict())
        return generator.eval()


def _require_trainable(data: TrainingData, config: SpectralGANConfig) -> None:
    SpectralGAN.require_kind(data.spec)
    if data.spec.num_classes == 0:
        raise ValueError("the spec has no classes; give it one for data without labels, such as ('unlabelled',)")
    if config.conditional and len(data.y) == 0:
        raise ValueError('a conditional spectral GAN needs labelled spectra; set conditional=False to train without')
    if config.conditional:
        require_classes('a spectral GAN', data)
    require_samples('a spectral GAN', data, labelled=config.conditional)
    if config.select_every:
        counts = torch.bincount(data.val_y, minlength=1)
        if (int(counts.max()) if config.conditional else len(data.val_x)) < 2:
            raise ValueError('select_every needs two validation spectra of some class; set select_every=0')


@learning()
def train_spectral_gan(
    data: TrainingData,
    config: SpectralGANConfig | None = None,
    run: Run | None = None,
    keep: bool = False,
) -> SpectralGAN:
    """Train one spectral GAN.

    Args:
        data: training part of a split.
        config: setting; the short one if None.
        run: how: seed, device, checkpoints, progress; see :class:`~hsiaug.engine.Run`. The checkpoint is removed when
            the training ends.
        keep: leave the checkpoint of the last step, from which the same call has its result at once.

    Raises:
        ValueError: if there are no labelled spectra, or the checkpoint is of another training.
        FloatingPointError: if the training diverges; the last good checkpoint stays.
    """
    config, run = config or SpectralGANConfig(), run or Run()
    training = SpectralGANTraining(data, config, run.seed, run.device)
    digest, device = digest_of(data.x, data.y, data.unlabelled), torch.device(run.device).type
    identity = identity_of(config, run.seed, ('lr', 'members'), split=data.split_name, data=digest, device=device)
    training.preview = Pictures(data, run.folder)
    training.complete(run, CHECKPOINT_FILE, identity, keep)
    generator, best = training.result(), training.best
    if best is not None and best.found:
        generator = best.module.requires_grad_(True).eval()
    if config.calibrate and config.conditional:
        generator.calibrate(data, run.seed)
    generator.adopt(data, run.seed, {k: v for k, v in dataclasses.asdict(config).items() if k != 'members'})
    return generator


@trains('spectral_gan', SpectralGANConfig, {'iterations': 200})
def train_spectral_gans(data: TrainingData, config: SpectralGANConfig, run: Run) -> Generator:
    """Train one spectral GAN, or an ensemble of ``members`` that differ in their seeds."""
    if config.members == 1:
        return train_spectral_gan(data, config, run)
    # A member that is done keeps its checkpoint until all are: a killed training resumes with the next.
    folders = [None if run.folder is None else Path(run.folder) / f'member_{k}' for k in range(config.members)]
    log = run.losses
    logs = [None if log is None else log.with_stem(f'{log.stem}_member_{k}') for k in range(config.members)]
    gans: list[Generator] = [
        train_spectral_gan(
            data, config, replace(run, seed=run.seed + 7919 * k, folder=folder, losses=losses), keep=True
        )
        for k, (folder, losses) in enumerate(zip(folders, logs, strict=True))
    ]
    ensemble = Ensemble.of(gans, data, run.seed)
    for folder in folders:
        if folder is not None and world()[0] == 0:
            (folder / CHECKPOINT_FILE).unlink()
            if not any(folder.iterdir()):  # of pictures
                folder.rmdir()
    return ensemble


@torch.no_grad()
def validation_distance(generator: SpectralGAN, data: TrainingData, seed: int, per_class: int = 500) -> float:
    """Sliced Wasserstein distance to the validation spectra in the network's space, mean over classes."""
    distances = []
    for label in range(data.spec.num_classes if generator.conditional else 1):
        real = data.val_x[data.val_y == label] if generator.conditional else data.val_x
        if len(real) < 2:
            continue
        batch = generator.sample(per_class, torch.full((per_class,), label), seed=seed)
        codes = [generator.space.encode(x.to(generator.device)) for x in (real, batch['image'])]
        distances.append(float(sliced_wasserstein(codes[0], codes[1], seed=seed)))
    return sum(distances) / len(distances)
