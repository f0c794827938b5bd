"""Trainings that diverge stop before anything is saved, and say where they did and what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from .checkpoint import found_checkpoint

CHECK_EVERY = 50  # steps between two looks at the losses: each look waits for the device


class DivergedError(FloatingPointError, ValueError):
    """A training whose loss or weights are no longer finite, because of its settings or its data."""


def require_finite(
    diverged: str,
    losses: Mapping[str, float],
    modules: Mapping[str, nn.Module],
    rate: str,
    file: Path | None = None,
    stage: str | None = None,
) -> None:
    """Stop a training that has diverged, by its last losses or, where these are finite, the weights of ``modules``.

    ``diverged`` is what has, and when, such as ``'nn1d diverged at step 50'``; ``rate`` the learning rate, by the name
    of its setting and with its value; ``file`` that of the checkpoint, if one is kept, and ``stage`` that of the
    training.

    Raises:
        DivergedError: a ``FloatingPointError`` that names the losses, what to try, and the last good checkpoint.
    """
    if all(math.isfinite(loss) for loss in losses.values()):
        weights = (value for module in modules.values() for value in module.state_dict().values())
        if all(bool(torch.isfinite(value).all()) for value in weights):
            return
        losses = {**losses, 'weights': math.nan}
    found = ', '.join(f'{name} {loss:.4g}' for name, loss in losses.items())
    kept = '' if stage is None else _kept(file, stage)
    raise DivergedError(f'{diverged}: {found}; lower {rate}, and check the data for outliers{kept}')


def _kept(file: Path | None, stage: str) -> str:
    if file is None:
        return '; give a folder to keep checkpoints'
    if not file.exists():
        return '; no checkpoint was written yet'
    found = found_checkpoint(file)
    where = f'step {found["step"]}' if found['stage'] == stage else f'stage {found["stage"]!r}, step {found["step"]}'
    return f'; the last good checkpoint ({where}) is {file}, from which the same call resumes'
