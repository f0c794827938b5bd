"""Samples that a training takes: in memory, or read ahead by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.own.adapted import AdaptedDataset
from ..datasets.own.reading import read_ahead

Rows = Callable[[int], Tensor]
"""Which samples a step is going to ask for."""


class Held:
    """Samples in memory, or on the device: images (N, ...) and targets (N, ...), empty where they have none."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images and targets of some samples."""
        return self.x[rows], self.y[rows] if len(self.y) else self.y

    def ahead(self, rows: Rows, first: int, last: int) -> None:
        """Nothing is to be read ahead."""


class Read:
    """Samples of a dataset too large for memory, read by worker processes while the steps before are taken.

    Targets of a dataset without labels are empty; of ``rows`` None means all.
    """

    def __init__(self, dataset: AdaptedDataset, rows: np.ndarray | None = None, workers: int = 1) -> None:
        self.dataset, self.workers = dataset, workers
        self.rows = np.arange(len(dataset)) if rows is None else rows
        self._batches: Iterator[tuple[list[int], Tensor, Tensor]] = iter(())
        self._left = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_batches': iter(())}

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images and targets of some samples, from those read ahead where they are the next."""
        wanted = rows.tolist()
        found, x, y = next(self._batches, ([], torch.empty(0), torch.empty(0)))
        self._left -= 1
        if self._left <= 0:
            self._batches = iter(())  # its workers end now, not when the interpreter does
        if found != wanted:
            x, y = self.read(np.array(wanted))
        return x.to(rows.device), y.to(rows.device)

    def ahead(self, rows: Rows, first: int, last: int) -> None:
        """Begin to read, in the order of the steps."""
        planned = (rows(step).tolist() for step in range(first, last))
        self._batches, self._left = read_ahead(self._numbered, planned, self.workers), last - first

    def only(self, rows: np.ndarray) -> Read:
        """Some of the samples."""
        return Read(self.dataset, self.rows[rows], self.workers)

    def read(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images and targets of some samples, in this process."""
        samples, key = [self.dataset[int(row)] for row in self.rows[rows]], self.dataset.spec.target_key
        x = torch.stack([sample['image'] for sample in samples])
        y = torch.stack([sample[key] for sample in samples]) if self.dataset.labelled else torch.empty(0)
        return x, y

    def _numbered(self, rows: list[int]) -> tuple[list[int], Tensor, Tensor]:
        return rows, *self.read(np.array(rows))


Samples = Held | Read
"""Images (N, ...) and their targets (N, ...), by number."""


LARGEST = 1e18
"""Of values, squares are single-precision numbers too. What marks missing data is often beyond, such as -3.4e38."""


def require_finite_samples(samples: Tensor, what: str = 'images', within: str = 'patches or bands') -> None:
    """Refuse samples (N, ...) if any holds NaN, or values beyond :data:`LARGEST`: one would end a training in NaN."""
    for found, unfit in (
        ('NaN or infinite values', ~samples.isfinite()),
        (f'values beyond {LARGEST:g}, as missing data are marked', samples.abs() > LARGEST),
    ):
        if bad := int(unfit.flatten(1).any(dim=1).sum()):
            raise ValueError(f'{bad} of {len(samples)} {what} hold {found}; leave these {within} out')
