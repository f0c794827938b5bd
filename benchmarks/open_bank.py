"""Time and memory of a bank in a fresh process: opened, read at random by four workers, mixed with ten million samples.

Called by speed_mixing.py. Linux only.
"""

from __future__ import annotations

import operator
import os
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import resident_mb
from speed_data import InMemory
from torch.utils.data import DataLoader, Dataset, default_collate

from hsiaug.datasets import MixedDataset, SyntheticBank
from hsiaug.samplers import MixedBatchSampler
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator

WORKERS, BATCH = 4, 1024


class Watched(Dataset[Any]):
    """Reads whole batches of a bank, and returns the process and its anonymous memory instead."""

    def __init__(self, bank: SyntheticBank) -> None:
        self.bank = bank

    def __getitems__(self, rows: list[int]) -> list[tuple[int, float]]:
        batch = self.bank.batch(rows)
        if len(batch['image']) != len(rows):
            raise RuntimeError(f'read {len(batch["image"])} samples, expected {len(rows)}')
        return [(os.getpid(), resident_mb('RssAnon'))]


def read(bank: SyntheticBank, reads: int) -> dict[str, Any]:
    """Anonymous memory of four workers that read random batches."""
    loader = DataLoader(
        Watched(bank),
        batch_sampler=np.random.default_rng(0).integers(len(bank), size=(reads, BATCH)).tolist(),
        num_workers=WORKERS,
        collate_fn=operator.itemgetter(0),
        multiprocessing_context='fork',
    )
    seen: dict[int, list[float]] = {}
    for worker, megabytes in loader:
        seen.setdefault(worker, []).append(megabytes)
    first = min(10, reads // (2 * WORKERS))  # by then workers have their buffers
    workers = [{'before': v[first], 'after': v[-1], 'highest': max(v[first:])} for v in seen.values()]
    row_bytes = sum(value.nbytes for value in bank.batch([0]).values())
    return {
        'anonymous_mb': [{key: round(value, 2) for key, value in worker.items()} for worker in workers],
        'largest_growth_mb': round(max(worker['highest'] - worker['before'] for worker in workers), 2),
        'mb_read_per_worker': round(reads * BATCH * row_bytes / WORKERS / 1e6),
    }


def opened(root: Path, reads: int) -> dict[str, Any]:
    """Milliseconds and memory of opening a bank, and what four workers take for ``reads`` batches of it."""
    before, anonymous, start = resident_mb('VmRSS'), resident_mb('RssAnon'), time.perf_counter()
    bank = SyntheticBank(root)
    result: dict[str, Any] = {'ms': (time.perf_counter() - start) * 1e3}
    result |= {'rss_mb': resident_mb('VmRSS') - before, 'anonymous_mb': resident_mb('RssAnon') - anonymous}
    return {**result, 'workers': read(bank, reads)} if reads else result


def begin(root: Path, ratio: float, live: bool, workers: int) -> dict[str, float]:
    """Seconds and memory of a mixture of ten million spectra with a bank, or with a generator (``live``).

    Up to its batch number 100; memory is that of the process that makes the batches.
    """
    torch.set_num_threads(1)
    bank = SyntheticBank(root)
    real, source = InMemory(bank.spec, 10_000, length=10_000_000), bank if not live else fitted(bank)
    before, wall, cpu = resident_mb('RssAnon'), time.perf_counter(), time.process_time()
    mixed = MixedDataset(real, source, ratio, replacement=not live)

    def collated(samples: Any) -> tuple[float, Any]:
        batch = default_collate(samples)
        return resident_mb('RssAnon'), batch

    loader = DataLoader(
        mixed, batch_sampler=MixedBatchSampler(mixed, 256), num_workers=workers, collate_fn=collated,
        multiprocessing_context='fork' if workers else None,
    )  # fmt: skip
    batches = iter(loader)
    next(batches)
    taken = {'seconds': time.perf_counter() - wall, 'cpu_seconds': time.process_time() - cpu}
    held = [memory for memory, _ in islice(batches, 100)]
    found = {**taken, 'mb': max(held) - before, 'mb_of_sampler': resident_mb('RssAnon') - before}
    return {key: round(value, 3) for key, value in found.items()}


def fitted(bank: SyntheticBank) -> Any:
    """A generator of such spectra."""
    batch = bank.batch(range(1000))
    x, y = batch['image'], batch['label']
    return fit_generator('gaussian', TrainingData(bank.spec, x, y, x[:0], x[:0], y[:0]), {})
