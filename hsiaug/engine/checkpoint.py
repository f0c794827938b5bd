"""Checkpoints of trainings: weights and optimisers in one safetensors file, which appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..records import written_whole

Optimisers = Mapping[str, torch.optim.Optimizer]


def state_of(modules: Mapping[str, nn.Module], optimisers: Optimisers) -> dict[str, Tensor]:
    """Everything that modules and optimisers hold, by name."""
    state = {f'{k}/{n}': v for k, module in modules.items() for n, v in module.state_dict().items()}
    for name, optimiser in optimisers.items():
        for index, values in optimiser.state_dict()['state'].items():
            state |= {f'optimiser/{name}/{index}/{key}': torch.as_tensor(v) for key, v in values.items()}
    return state


def restore(state: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimisers: Optimisers) -> None:
    """Give modules and optimisers what :func:`state_of` found in them."""
    for name, module in modules.items():
        module.load_state_dict({k.removeprefix(f'{name}/'): v for k, v in state.items() if k.startswith(f'{name}/')})
    for name, optimiser in optimisers.items():
        values = dict[int, dict[str, Tensor]]()
        for key, value in state.items():
            if key.startswith(f'optimiser/{name}/'):
                _, _, index, field = key.split('/')
                values.setdefault(int(index), {})[field] = value
        optimiser.load_state_dict({**optimiser.state_dict(), 'state': values})


def identity_of(config: Any, seed: int, rates: Collection[str] = ('lr',), **more: Any) -> dict[str, Any]:
    """What a checkpoint must agree in: all settings but learning rates, which may be lowered to resume after NaN."""
    return {**{name: value for name, value in asdict(config).items() if name not in rates}, 'seed': seed, **more}


def digest_of(*tensors: Tensor) -> str:
    """SHA-256 of the values of tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_checkpoint(
    file: Path, state: Mapping[str, Tensor], identity: Mapping[str, Any], stage: str, step: int
) -> None:
    """Write a state; a checkpoint that stood there is replaced at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {'identity': json.dumps(identity), 'stage': stage, 'step': str(step)}
    with written_whole(file) as temporary:
        save_file({k: v.detach().cpu().clone().contiguous() for k, v in state.items()}, temporary, metadata)


def found_checkpoint(file: Path, identity: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The ``identity``, ``stage`` and ``step`` of a checkpoint."""
    try:
        with safe_open(file, 'pt') as opened:
            found = dict(opened.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f'{file} is truncated or no checkpoint ({error}); remove it to start again') from error
    if missing := {'identity', 'stage', 'step'} - set(found):
        raise ValueError(f'{file} is no checkpoint of a training: it lacks {sorted(missing)}; remove it to start again')
    other = json.loads(found['identity'])
    if identity is not None and other != (mine := json.loads(json.dumps(identity))):
        differ = {k: (other.get(k), mine.get(k)) for k in {*other, *mine} if other.get(k) != mine.get(k)}
        raise ValueError(
            f'{file} is the checkpoint of another training, (found, expected): {differ}; remove it, or give another '
            'folder'
        )
    return found


def resumable(file: Path | None, identity: Mapping[str, Any]) -> dict[str, str] | None:
    """:func:`found_checkpoint` of this training; None where there is none yet."""
    return found_checkpoint(file, identity) if file is not None and file.exists() else None
