"""Training of the spectral GAN (Audebert et al. 2018): WGAN with gradient penalty and an auxiliary classifier.

The published notebook trains its critic on mixed-up batches, back-propagates through the generator in the critic's
step, and its semi-supervised path is never switched on. Here the critic's step builds no graph of the generator, the
critic sees real and synthetic samples in one pass, and semi-supervised means: the critic also sees unlabelled pixels of
the training area, the classifier labelled ones only.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ...engine import Run
from ...engine.checkpoint import resumable, write_checkpoint
from ...engine.cuda_graphs import capture
from ...functional.gradient_penalty import gradient_penalty_mlp, interpolates
from ...metrics.distribution import sliced_wasserstein
from ...models.mlp import MLP
from ..base import Generator, TrainingData
from ..ensemble import Ensemble
from ..training import trains
from .model import Space, SpectralGAN

CHECKPOINT_FILE = 'training.safetensors'


@dataclass(frozen=True)
class SpectralGANConfig:
    """Setting of a training. The defaults are short; :meth:`paper` is the published setting.

    Args:
        iterations: generator steps.
        critic_steps: steps of critic and classifier per generator step.
        batch_size: real samples per step, and as many synthetic ones.
        optimiser: ``'adam'`` (β 0.5, 0.9) or ``'rmsprop'``.
        lr: learning rate.
        penalty: weight of the gradient penalty.
        class_weight: weight of the classifier's penalty on the generator.
        noise_dim: length of the noise vector.
        hidden: width of all three networks.
        layers: hidden layers of all three networks.
        space: ``'unit'`` (the paper's) or ``'pca'``, see :class:`~hsiaug.systems.spectral_gan.model.SpectralSpace`.
        components: principal components of the space ``'pca'``.
        conditional: False trains generator and critic alone, without labels.
        ema: decay of the exponential moving average of the generator's weights; 0 for none.
        calibrate: match mean and spread per class after training, see :meth:`SpectralGAN.calibrate`.
        select_every: every so many iterations the distance to the validation part is measured, and the best
            generator is kept; 0 keeps the last.
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
    select_every: int = 0

    def __post_init__(self) -> None:
        for name in ('iterations', 'critic_steps', 'batch_size', 'noise_dim', 'hidden', 'layers', 'components'):
            if getattr(self, name) < 1:
                raise ValueError(f'SpectralGANConfig: {name} must be at least 1, found {getattr(self, name)}')
        if self.optimiser not in ('adam', 'rmsprop'):
            raise ValueError(f"SpectralGANConfig: unknown optimiser {self.optimiser!r}; choose from 'adam', 'rmsprop'")
        if not 0 <= self.ema < 1:
            raise ValueError(f'SpectralGANConfig: ema must be in [0, 1), found {self.ema}')

    @classmethod
    def paper(cls) -> SpectralGANConfig:
        """The published setting: text, and the authors' notebook where the text is silent."""
        return cls(
            iterations=100_000,
            batch_size=256,
            optimiser='rmsprop',
            lr=5e-5,
            hidden=512,
            space='unit',
            ema=0.0,
            calibrate=False,
        )


class SpectralGANTraining:
    """State of a training: three networks, two optimisers, the data on the device and one random stream.

    Args:
        data: training part of a split.
        config: setting.
        seed: of everything random.
        semi_supervised: the critic also sees unlabelled pixels.
        device: where to train.
        cuda_graph: record one iteration as a CUDA graph and replay it; for CUDA devices only.
    """

    def __init__(
        self,
        data: TrainingData,
        config: SpectralGANConfig,
        seed: int,
        semi_supervised: bool,
        device: str,
        cuda_graph: bool = False,
    ) -> None:
        _require_trainable(data, config)
        if semi_supervised and len(data.unlabelled) == 0:
            semi_supervised = False  # a split without unlabelled pixels: both settings are the same
        self.config, self.device, self.iteration = config, torch.device(device), 0
        if cuda_graph and self.device.type != 'cuda':
            raise ValueError(f'cuda_graph needs a CUDA device, found {device!r}; leave it off')
        self.cuda_graph = cuda_graph
        self._replay: Callable[[], None] | None = None
        classes = data.spec.num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fields = ('noise_dim', 'hidden', 'layers', 'space', 'components', 'conditional')
            self.generator = SpectralGAN(data.spec, **{f: getattr(config, f) for f in fields})
            dim = self.generator.space.dim
            self.critic = MLP(dim, 1, config.hidden, config.layers)
            self.classifier = MLP(dim, classes, config.hidden, config.layers)
        area = torch.cat([data.x, data.unlabelled]) if semi_supervised or not config.conditional else data.x
        self.generator.space.fit(area)
        for network in (self.generator, self.critic, self.classifier):
            network.to(self.device)
        self.average = copy.deepcopy(self.generator.network) if config.ema else None
        self.real = self.generator.space.encode(area.to(self.device))
        self.labelled = self.generator.space.encode(data.x.to(self.device))
        self.labels = data.y.to(self.device)
        self.one_draw = len(self.real) == len(self.labelled) and config.conditional
        self.eye = torch.eye(classes, device=self.device)
        self.rng = torch.Generator(self.device).manual_seed(seed)
        self.critic_parameters = [*self.critic.parameters(), *self.classifier.parameters()]
        self.critic_optimiser = self._optimiser(self.critic_parameters)
        self.generator_optimiser = self._optimiser([*self.generator.network.parameters()])
        self.losses = torch.zeros(3, device=self.device)  # critic, classifier, generator
        self.best: tuple[float, SpectralGAN] | None = None  # validation distance, and the generator that reached it

    def _optimiser(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        lr, graph = self.config.lr, self.cuda_graph
        if self.config.optimiser == 'adam':
            return torch.optim.Adam(parameters, lr=lr, betas=(0.5, 0.9), fused=True, capturable=graph)
        return torch.optim.RMSprop(parameters, lr=lr, foreach=True, capturable=graph)

    def _rows(self, pool: Tensor) -> Tensor:
        return torch.randint(len(pool), (self.config.batch_size,), generator=self.rng, device=self.device)

    def _inputs(self) -> tuple[Tensor, Tensor]:
        """Noise and the labels of synthetic samples, in training frequencies."""
        shape = (self.config.batch_size, self.config.noise_dim)
        noise = torch.randn(shape, generator=self.rng, device=self.device)
        return noise, self.labels[self._rows(self.labels)] if self.config.conditional else noise[:, 0].long()

    def _fake(self) -> tuple[Tensor, Tensor]:
        noise, labels = self._inputs()
        return self.generator(noise, self.eye[labels] if self.config.conditional else noise), labels

    def critic_step(self) -> None:
        """One step of critic and classifier. No graph of the generator is built."""
        rows = self._rows(self.real)
        real = self.real[rows]
        with torch.no_grad():
            fake, _ = self._fake()
        scores = self.critic(torch.cat([real, fake]))
        critic_loss = scores[len(real) :].mean() - scores[: len(real)].mean()
        penalty = gradient_penalty_mlp(self.critic, interpolates(real, fake, self.rng))
        loss = critic_loss + self.config.penalty * penalty
        if self.config.conditional:
            mine = rows if self.one_draw else self._rows(self.labelled)
            class_loss = cross_entropy(self.classifier(self.labelled[mine]), self.labels[mine])
            loss = loss + class_loss
            self.losses[1] = class_loss.detach()
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimiser.step()
        self.losses[0] = critic_loss.detach()

    def generator_step(self) -> None:
        """One step of the generator, through critic and classifier at fixed weights."""
        for parameter in self.critic_parameters:
            parameter.requires_grad_(False)
        fake, labels = self._fake()
        loss = -self.critic(fake).mean()
        if self.config.conditional:
            loss = loss + self.config.class_weight * cross_entropy(self.classifier(fake), labels)
        self.generator_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.generator_optimiser.step()
        for parameter in self.critic_parameters:
            parameter.requires_grad_(True)
        self.losses[2] = loss.detach()

    def update(self) -> None:
        """``critic_steps`` steps of critic and classifier, one of the generator."""
        for _ in range(self.config.critic_steps):
            self.critic_step()
        self.generator_step()

    def step(self) -> None:
        """One iteration: an update, and the average of the weights."""
        if self.cuda_graph:
            self._replay = self._replay or capture(self)
            self._replay()
        else:
            self.update()
        self.iteration += 1
        if self.average is not None:
            decay = min(self.config.ema, self.iteration / (self.iteration + 10))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.average.parameters()), list(self.generator.network.parameters()), 1 - decay
                )

    def require_finite(self) -> None:
        """Stop a training that has diverged.

        Raises:
            FloatingPointError: naming the iteration and the losses.
        """
        if not torch.isfinite(self.losses).all():
            names = dict(zip(('critic', 'classifier', 'generator'), self.losses.tolist(), strict=True))
            raise FloatingPointError(
                f'the GAN diverged at iteration {self.iteration}: losses {names}; lower lr ({self.config.lr:g}), and '
                'check the spectra for outliers'
            )

    def result(self) -> SpectralGAN:
        """The generator as it stands, averaged where there is an average."""
        generator = copy.deepcopy(self.generator)
        if self.average is not None:
            generator.network.load_state_dict(self.average.state_dict())
        return generator.eval()

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {'critic': self.critic, 'classifier': self.classifier}
        modules |= {'generator': self.generator} | ({'average': self.average} if self.average is not None else {})
        return modules

    def state(self) -> dict[str, Tensor]:
        """Everything that the next iteration depends on, as tensors."""
        state = {'rng': self.rng.get_state(), 'iteration': torch.tensor(self.iteration)}
        for name, module in self._modules().items():
            state |= {f'{name}.{key}': value.detach().clone() for key, value in module.state_dict().items()}
        for name, optimiser in (('critic', self.critic_optimiser), ('generator', self.generator_optimiser)):
            for index, values in optimiser.state_dict()['state'].items():
                state |= {f'optimiser.{name}.{index}.{key}': torch.as_tensor(v).clone() for key, v in values.items()}
        if self.best is not None:
            state['distance'] = torch.tensor(self.best[0], dtype=torch.float64)
            state |= {f'best.{key}': value.clone() for key, value in self.best[1].state_dict().items()}
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state."""
        self.rng.set_state(state['rng'].cpu())  # a generator's state lives on the CPU, whatever its device
        self.iteration = int(state['iteration'])
        for name, module in self._modules().items():
            prefix = f'{name}.'
            module.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        for name, optimiser in (('critic', self.critic_optimiser), ('generator', self.generator_optimiser)):
            full, values = optimiser.state_dict(), dict[int, dict[str, Tensor]]()
            for key, value in state.items():
                if key.startswith(f'optimiser.{name}.'):
                    _, _, index, field = key.split('.')
                    values.setdefault(int(index), {})[field] = value
            optimiser.load_state_dict({**full, 'state': values})
        if 'distance' in state:
            best = self.result()
            best.load_state_dict({k.removeprefix('best.'): v for k, v in state.items() if k.startswith('best.')})
            self.best = (float(state['distance']), best)


def _require_trainable(data: TrainingData, config: SpectralGANConfig) -> None:
    if data.spec.num_classes == 0:
        raise ValueError("the spec has no classes; give it one for data without labels, such as ('unlabelled',)")
    if config.conditional and len(data.y) == 0:
        raise ValueError('a conditional spectral GAN needs labelled spectra; set conditional=False to train without')
    counts = torch.bincount(data.y, minlength=data.spec.num_classes)
    if config.conditional and (counts == 0).any():
        missing = [data.spec.classes[k] for k in torch.nonzero(counts == 0).flatten().tolist()]
        raise ValueError(f'no labelled spectra of {missing}: the GAN cannot learn them; leave them out of the spec')
    for name in ('x', 'unlabelled'):
        bad = int((~torch.isfinite(getattr(data, name)).all(dim=1)).sum())
        if bad:
            raise ValueError(f'{bad} {name} spectra hold NaN or infinite values; leave these pixels or bands out')
    if config.select_every:
        counts = torch.bincount(data.val_y, minlength=1)
        if (int(counts.max()) if config.conditional else len(data.val_x)) < 2:
            raise ValueError('select_every needs two validation spectra of some class; set select_every=0')


def train_spectral_gan(
    data: TrainingData,
    config: SpectralGANConfig | None = None,
    seed: int = 0,
    semi_supervised: bool = False,
    device: str = 'cpu',
    progress: bool = False,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1000,
    cuda_graph: bool = False,
) -> SpectralGAN:
    """Train a spectral GAN.

    Args:
        data: training part of a split.
        config: setting; the short one if None.
        seed: of everything random; torch's global generator is left as it was.
        semi_supervised: the critic also sees unlabelled pixels of the training area.
        device: where to train.
        progress: show a progress bar.
        checkpoint: folder in which a long training leaves its state, and from which it goes on after a kill with the
            same result; emptied when the training ends.
        checkpoint_every: iterations between two checkpoints.
        cuda_graph: record one iteration as a CUDA graph and replay it; for CUDA devices only.

    Raises:
        ValueError: if there are no labelled spectra, or the checkpoint is of another training.
        FloatingPointError: if the training diverges.
    """
    config = config or SpectralGANConfig()
    training = SpectralGANTraining(data, config, seed, semi_supervised, device, cuda_graph)
    identity = {**dataclasses.asdict(config), 'seed': seed, 'semi_supervised': semi_supervised}
    identity['split'] = data.provenance.split if data.provenance else None
    file = None if checkpoint is None else checkpoint / CHECKPOINT_FILE
    if file is not None and resumable(file, identity) is not None:
        training.load_state(load_file(file, device=str(training.device)))
    with tqdm(total=config.iterations, initial=training.iteration, unit='it', disable=not progress) as bar:
        while training.iteration < config.iterations:
            training.step()
            bar.update()
            if training.iteration % 100 == 0 or training.iteration == config.iterations:
                training.require_finite()
                if progress:
                    bar.set_postfix(critic=f'{float(training.losses[0]):.3f}')
            if config.select_every and training.iteration % config.select_every == 0:
                candidate = training.result()
                distance = validation_distance(candidate, data, seed)
                if training.best is None or distance < training.best[0]:
                    training.best = (distance, candidate)
            if file is not None and training.iteration % checkpoint_every == 0:
                write_checkpoint(file, training.state(), identity, 'gan', training.iteration)
    generator = training.result() if training.best is None else training.best[1]
    if config.calibrate and config.conditional:
        generator.calibrate(data, seed)
    generator.adopt(data, seed, {**dataclasses.asdict(config), 'semi_supervised': semi_supervised})
    if file is not None:
        file.unlink(missing_ok=True)
    return generator


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


__all__ = ['SpectralGANConfig', 'SpectralGANTraining', 'train_spectral_gan', 'validation_distance']


@dataclass(frozen=True)
class SpectralGANSettings(SpectralGANConfig):
    """Setting of one GAN, or of several as one generator.

    Args:
        semi_supervised: the critic also sees unlabelled pixels.
        members: GANs that differ in their seeds, as an ensemble.
    """

    semi_supervised: bool = False
    members: int = 1


@trains('spectral_gan', SpectralGANSettings, {'iterations': 200})
def fit_spectral_gan(data: TrainingData, settings: SpectralGANSettings, run: Run) -> Generator:
    """Train one GAN, or an ensemble of them."""
    gans: list[Generator] = [
        train_spectral_gan(
            data, settings, run.seed + 7919 * member, settings.semi_supervised, device=run.device,
            progress=run.progress,
        )
        for member in range(settings.members)
    ]  # fmt: skip
    return gans[0] if settings.members == 1 else Ensemble.of(gans, data, run.seed)
