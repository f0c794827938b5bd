"""Batches without end, for trainings that count steps instead of epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets import MixedDataset
from ..datasets.contract.batches import fetch
from ..samples import SampleSpec
from ..streams import stream

Batch = dict[str, Tensor]
HELD_BYTES = 4 << 30
"""An epoch up to this size is read at once and kept on the device; a larger one is read batch by batch."""


class Stream:
    """Epoch after epoch of a dataset, each in a random order of its own, in batches of any size.

    The last, smaller batch of an epoch is filled from the next, so that datasets of any size take the same number of
    equal steps. A mixed dataset gets the number of each epoch and is read anew in it.

    Args:
        dataset: real or mixed.
        spec: of its samples.
        seed: of the order.
        device: of the batches.
        keep: what of samples as they are read is kept, for example after a check.
        after_epoch: called with the number of an epoch that is over, before samples of the next are read.
    """

    def __init__(
        self,
        dataset: Any,
        spec: SampleSpec,
        seed: int,
        device: str | torch.device,
        keep: Callable[[dict[str, Any]], Batch],
        after_epoch: Callable[[int], None] | None = None,
    ) -> None:
        self.dataset, self.spec, self.seed, self.device = dataset, spec, seed, torch.device(device)
        self.keep, self.after_epoch, self.changes = keep, after_epoch, isinstance(dataset, MixedDataset)
        self.held: Batch | None = None
        self.there = self.device.type != 'cpu'  # of pageable memory, read at once; back would not be
        self.order = torch.empty(0, dtype=torch.int64)
        self.seek(0)

    def take(self, count: int) -> Batch:
        """The next samples, on the device.

        Raises:
            ValueError: if an epoch has none.
        """
        parts = []
        while count > 0:
            if len(self.order) == 0:
                if self.after_epoch is not None and self.epoch >= 0:
                    self.after_epoch(self.epoch)
                self._begin_epoch()
            rows, self.order = self.order[:count], self.order[count:]
            parts.append(self._read(rows))
            count -= len(rows)
        return parts[0] if len(parts) == 1 else {k: torch.cat([part[k] for part in parts]) for k in parts[0]}

    def seek(self, taken: int) -> None:
        """Continue as after ``taken`` samples, whatever their batches were."""
        self.rng, self.epoch, self.order = stream(self.seed), -1, self.order[:0]
        while taken > 0:
            self._begin_epoch()
            passed = min(taken, len(self.order))
            self.order, taken = self.order[passed:], taken - passed

    def _begin_epoch(self) -> None:
        self.epoch += 1
        if self.changes:
            self.dataset.set_epoch(self.epoch)
        size = len(self.dataset)
        if size == 0:
            raise ValueError(f'{type(self.dataset).__name__} has no sample to train on in epoch {self.epoch}')
        self._fits = size * self.spec.sample_bytes <= HELD_BYTES
        self.order = torch.randperm(size, generator=self.rng)
        if self._fits:
            self.order = self.order.to(self.device, non_blocking=self.there)
        if self.changes or not self._fits:
            self.held = None

    def _read(self, rows: Tensor) -> Batch:
        if self._fits and self.held is None:
            self.held = self._fetch(np.arange(len(self.dataset)))
        return self._fetch(rows.numpy()) if self.held is None else {k: v[rows] for k, v in self.held.items()}

    def _fetch(self, rows: np.ndarray) -> Batch:
        batch = self.keep(fetch(self.dataset, rows))
        return {key: value.to(self.device, non_blocking=self.there) for key, value in batch.items()}
