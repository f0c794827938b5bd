"""Trainings whose networks take steps by turns, as GANs do: run, watched, and kept in checkpoints.

A step depends on its number, the seed and the state of the weights only, so that a training that goes on from a
checkpoint ends where an undisturbed one ends.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from .checkpoint import found_checkpoint, restore, state_of, write_checkpoint
from .divergence import CHECK_EVERY, require_finite

COLLAPSED = 0.01  # binary cross-entropy of a discriminator that nothing deceives; that of guessing is 0.69
PATIENCE = 6  # looks in a row that find it collapsed


class AlternatingTraining:
    """State of a training, or of a stage of one. A subclass says what a step does.

    Args:
        name: of the stage, in checkpoints and messages.
        modules: all that a step changes or reads, by name, on the device.
        optimisers: by name.
        steps: how many there are to take.
        seed: of everything random.
        device: where to train.
    """

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        optimisers: Mapping[str, torch.optim.Optimizer],
        steps: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.name, self.modules, self.optimisers = name, dict(modules), dict(optimisers)
        self.steps, self.step, self.seed, self.device = steps, 0, seed, device
        self.losses: dict[str, Tensor] = {}
        """Of the last step; ``'discriminator'`` is the binary cross-entropy of one, where there is one."""
        self._beaten = 0

    def update(self, rng: torch.Generator) -> None:
        """Take one step with all randomness from ``rng``, and leave its ``losses``."""
        raise NotImplementedError

    def run(self, file: Path | None, identity: Mapping[str, Any], every: int, progress: bool) -> None:
        """Take the steps that are left.

        Args:
            file: of the checkpoint, or None for none.
            identity: of the training, written into it.
            every: steps between two checkpoints.
            progress: show a progress bar.

        Raises:
            FloatingPointError: if the training diverges; the last good checkpoint stays.
        """
        rng = torch.Generator(self.device)
        with tqdm(
            total=self.steps, initial=self.step, desc=self.name, unit='it', leave=False, disable=not progress
        ) as bar:
            while self.step < self.steps:
                # Large odd numbers keep the streams of neighbouring seeds, stages and steps apart.
                mixed = self.seed * 0x9E3779B97F4A7C15 + len(self.name) * 0xD1B54A32D192ED03
                self.update(rng.manual_seed((mixed + self.step * 0x2545F4914F6CDD1D) % 2**63))
                self.step += 1
                due = file is not None and self.step % every == 0
                if due or self.step == self.steps or self.step % CHECK_EVERY == 0:
                    values = self._look(file, thorough=due or self.step == self.steps)
                    bar.set_postfix({name: f'{value:.4f}' for name, value in values.items()})
                bar.update()
                if due and file is not None:
                    self.save(file, identity)

    def _look(self, file: Path | None, thorough: bool) -> dict[str, float]:
        """Losses as numbers, after a check that they, and if ``thorough`` the weights, are finite."""
        names = list(self.losses)
        values = dict(zip(names, torch.stack([self.losses[name] for name in names]).tolist(), strict=True))
        diverged = f'training diverged in stage {self.name!r} by step {self.step}'
        modules = self.modules if thorough else {}
        require_finite(diverged, values, modules, 'the learning rate', file, self.name)
        self._beaten = self._beaten + 1 if values.get('discriminator', 1.0) < COLLAPSED else 0
        if self._beaten == PATIENCE:
            warnings.warn(
                f'the discriminator is no longer deceived (loss {values["discriminator"]:.2g} at step {self.step} of '
                f'{self.name!r}, where guessing gives 0.69): the adversarial loss teaches little from here on; lower '
                'its learning rate or the number of steps, or give it more data',
                stacklevel=5,
            )
        return values

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def save(self, file: Path, identity: Mapping[str, Any]) -> None:
        """Write everything that the next step depends on; the file appears whole or not at all."""
        write_checkpoint(file, state_of(self.modules, self.optimisers), identity, self.name, self.step)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint of this stage."""
        restore(load_file(file), self.modules, self.optimisers)
        self.step = int(found_checkpoint(file)['step'])


__all__ = ['AlternatingTraining']
