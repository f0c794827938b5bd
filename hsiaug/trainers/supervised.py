"""The training of downstream models for a fixed number of optimiser steps, common to all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..engine import Best, Run, Training
from ..engine.schedules import Schedule
from ..engine.stream import Batch
from ..samples import Kind, SampleSpec


class Supervised(Training):
    """Training of a network by this process alone, whoever else trains, to be run under :func:`seeded`.

    Dropout draws from torch's global generators, as do augmentations. ``batches`` are such as a
    :class:`~hsiaug.engine.Stream`; each is ``prepared``, for example augmented, and ``loss_of`` is its mean loss;
    ``replayable``, whether that asks nothing of the host, see :class:`~hsiaug.engine.Training`. ``name`` and
    ``rate_setting``, that of the learning rate among the settings, are for messages. ``every`` so many steps, and after
    the last, the network has a ``score`` on validation data: the weights with the highest are kept, later ones of
    equals. Without it the last are.
    """

    alone = True

    def __init__(
        self, name: str, network: nn.Module, optimiser: torch.optim.Optimizer, batches: _Batches, batch_size: int,
        steps: int, schedule: Schedule, loss_of: Callable[[Batch], Tensor], rate_setting: str,
        score: Callable[[], float] | None = None, every: int = 1, replayable: bool = False,
        prepared: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:  # fmt: skip
        modules: dict[str, nn.Module] = {'network': network.train(), 'random': _GlobalGenerators()}
        self.best: Best[nn.Module] | None = None
        if score is not None:
            modules['best'] = self.best = Best(network)
        device = next(network.parameters()).device
        super().__init__(name, modules, {'optimiser': optimiser}, steps, 0, device, schedule)
        self.batches, self.batch_size, self.prepared, self.loss_of = batches, batch_size, prepared, loss_of
        self.score, self.every, self.replayable = score, every, replayable
        self.rate_setting = f'{rate_setting} ({self.rates["optimiser"][0]:g})'
        self.history: list[Tensor] = []
        """Loss of each step that this process has taken."""

    def prepare(self, rng: torch.Generator) -> tuple[Tensor, ...]:
        """The next batch."""
        batch = self.prepared(self.batches.take(self.batch_size))
        self.keys = tuple(batch)
        return tuple(batch.values())

    def phase(self) -> tuple[str, ...]:
        """What the batch holds."""
        return self.keys

    def update(self, rng: torch.Generator) -> None:
        """Descend the loss of the batch."""
        loss = self.loss_of(dict(zip(self.keys, self.given, strict=True)))
        self.descend('optimiser', loss)
        self.losses = {'loss': loss.detach()}

    def after_step(self) -> None:
        """Keep the loss, and the weights if none before have validated better."""
        self.history.append(self.losses['loss'].clone())
        if self.score is not None and (self.step % self.every == 0 or self.step == self.steps):
            network = self.modules['network']
            network.eval()
            score = self.score()
            network.train()
            if self.best is not None and score >= float(self.best.score):
                self.best.keep(network, score)

    def run(self, run: Run, file: Path | None = None, identity: Mapping[str, Any] | None = None) -> None:
        """Take the steps that are left, and leave their losses with the network.

        What they say: :func:`~hsiaug.trainers.convergence.loss_still_falls`.
        """
        super().run(run, file, identity)
        network: Any = self.modules['network']
        if self.best is not None:
            network.load_state_dict(self.best.module.state_dict())
        network.loss_history = torch.stack(self.history).tolist() if len(self.history) == self.steps else None

    def load(self, file: Path) -> None:
        """Resume from a checkpoint, with the batch that would have come next."""
        super().load(file)
        self.batches.seek(self.step * self.batch_size)


class _Batches(Protocol):
    def take(self, count: int) -> Batch: ...
    def seek(self, taken: int) -> None: ...


class _GlobalGenerators(nn.Module):
    """Torch's global generators, of the CPU and of the current GPU, in the form that checkpoints keep."""

    def get_extra_state(self) -> Tensor:
        gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
        return torch.cat([torch.get_rng_state(), *gpu])

    def set_extra_state(self, state: Tensor) -> None:
        size = len(torch.get_rng_state())
        torch.set_rng_state(state[:size])
        if len(state) > size and torch.cuda.is_available():  # a checkpoint of a GPU trains on on a CPU too
            torch.cuda.set_rng_state(state[size:])


TRAINERS: dict[Kind, str] = {
    'spectrum': 'train_nn1d', 'scene': 'train_scene_classifier', 'segmentation': 'train_segmenter',
    'change': 'train_change_detector',
}  # fmt: skip
"""The function that trains on samples of a kind, for messages."""


def require_trainable(batch: Mapping[str, Any], spec: SampleSpec) -> None:
    """What would end in NaN, or in an assertion on the device, is said here."""
    who, key, image = TRAINERS[spec.kind], spec.target_key, batch['image']
    if bad := int((~image.isfinite().flatten(1).all(dim=1)).sum()):
        samples = 'spectra' if spec.kind == 'spectrum' else 'patches'
        raise ValueError(f'{who}: {bad} of {len(image)} {samples} hold values that are not finite; fill them')
    pixels = key == 'mask' and spec.ignore_index is not None  # a sample of one label counts
    target = batch[key][batch[key] != spec.ignore_index] if pixels else batch[key]
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < spec.num_classes:
        raise ValueError(
            f'{who}: {key} classes must lie in [0, {spec.num_classes})'
            f'{f" or be ignore_index={spec.ignore_index}" if pixels else ""}, found [{int(target.min())}, '
            f'{int(target.max())}]{"" if key == "mask" else "; leave samples without a class out"}'
        )


def supervision(batch: Mapping[str, Any], key: str, synthetic_weight: float = 1.0) -> Batch:
    """A batch's ``image``, ``target`` (n, ...), and ``weight`` (n,) unless all count alike.

    ``key`` is that of the target where there is no ``label_prob``. ``synthetic_weight`` is a loss weight of synthetic
    samples, in addition to the weights that samples carry.
    """
    found = {'image': batch['image'], 'target': batch.get('label_prob', batch[key])}
    weight = batch.get('weight')
    if synthetic_weight != 1 and 'synthetic' in batch:
        scale = torch.where(batch['synthetic'], synthetic_weight, 1.0)
        weight = scale if weight is None else weight * scale
    return found if weight is None else {**found, 'weight': weight}
