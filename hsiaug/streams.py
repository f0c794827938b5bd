"""Random streams, handed out in one place: draws depend on a seed and on what it serves, on no order of calls.

Tests promise bits, and what was saved or killed must come out again: no number here ever changes. What needs a stream
of its own takes the next free one.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# What a seed of mixing is drawn with: the last part of stream_seed, where chunks of synthetic samples count from 1.
POSITIONS = -1  # of synthetic samples in an epoch
LABELS = -3  # of a chunk of a pool
DRAWS = -4  # of a pool
SHUFFLE = -5  # of the batches of an epoch
REPLACED = -6  # rows of a batch
SOURCES = -7  # seeds of the second source, the third, ...
WHICH = -8  # source each draw is from
REAL = -9  # rows of an epoch that takes others each time
ALTERED, ALTERATIONS = -7, -8  # rows of a batch, and how; after two parts more than those of sources


def as_seed(seed: Any) -> int:
    """A seed as Python's integer; those of numpy and torch are seeds too."""
    try:
        if not isinstance(seed, bool | np.bool_) and -(1 << 63) <= (found := operator.index(seed)) < 1 << 63:
            return found
    except TypeError:
        pass
    raise TypeError(f'seed must be a whole number of at most 64 bits, found {seed!r}')


def drawn_seed(rng: torch.Generator | None = None) -> int:
    """A seed out of a stream on the CPU, or fresh entropy from torch's global generator."""
    return int(torch.randint(2**62, (), generator=rng))


def stream(seed: int | None) -> torch.Generator:
    """The stream of a seed, on the CPU, so that it means the same on every device; None takes a :func:`drawn_seed`."""
    return torch.Generator().manual_seed(drawn_seed() if seed is None else as_seed(seed))


def shuffled(n: int, seed: int) -> torch.Tensor:
    """(n,) int64 numbers 0, ..., n - 1 in random order."""
    return torch.randperm(n, generator=stream(seed))


def stream_seed(*parts: int) -> int:
    """One seed out of several numbers; streams of different parts are independent (numpy's SeedSequence)."""
    entropy = [operator.index(part) & 0xFFFFFFFFFFFFFFFF for part in parts]  # numpy's integers too
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def stream_of_step(seed: int, stage: str, step: int) -> int:
    """Seed of one step's random numbers; large odd factors keep neighbouring seeds, stages and steps apart."""
    mixed = seed * 0x9E3779B97F4A7C15 + len(stage) * 0xD1B54A32D192ED03
    return (mixed + step * 0x2545F4914F6CDD1D) % 2**63


def stream_of_process(rng: torch.Generator, rank: int) -> torch.Generator:
    """One process's own stream, out of one that all processes have."""
    return torch.Generator(rng.device).manual_seed((rng.initial_seed() + (rank + 1) * 0xD1342543DE82EF95) % 2**63)


@contextmanager
def seeded(seed: int, device: str | torch.device = 'cpu') -> Iterator[None]:
    """Draw from a seed inside, and leave torch's global generators as they were."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        yield
