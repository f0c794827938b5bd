"""Training of a classifier of spectra for a fixed number of optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..datasets import MixedDataset, SpectraDataset
from ..models.nn1d import NN1D


@dataclass(frozen=True)
class ClassifierConfig:
    """NN-1D and its training; the same for every arm of a study.

    Args:
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        dropout: dropout after each.
        scaling: ``'standard'`` or ``'minmax'``.
        steps: optimiser steps.
        batch_size: samples per step, real and synthetic together.
        lr: learning rate of AdamW at the start; it falls to zero as a cosine.
        weight_decay: of AdamW.
        label_smoothing: of the cross-entropy.
    """

    hidden: int = 256
    layers: int = 4
    dropout: float = 0.0
    scaling: str = 'standard'
    steps: int = 400
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ('hidden', 'layers', 'steps', 'batch_size'):
            if getattr(self, name) < 1:
                raise ValueError(f'ClassifierConfig: {name} must be at least 1, found {getattr(self, name)}')


def train_nn1d(
    dataset: MixedDataset | SpectraDataset, config: ClassifierConfig, seed: int = 0, device: str = 'cpu'
) -> NN1D:
    """Train NN-1D on a dataset of spectra.

    Every epoch of the dataset is read once as tensors and dealt to the steps in random order; the last, smaller batch
    of an epoch is filled from the next, so that arms of any size take the same number of equal steps. The scaling is
    fitted on the real spectra alone.

    Args:
        dataset: real or mixed spectra; ``label_prob`` is the target where it exists.
        config: network and training.
        seed: of the initialisation and the order of the samples; torch's global generator is left as it was.
        device: where to train.

    Returns:
        the network, in evaluation mode, on ``device``.
    """
    real: Any = dataset.real if isinstance(dataset, MixedDataset) else dataset
    spec = dataset.spec
    assert spec is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NN1D(spec.bands, spec.num_classes, config.hidden, config.layers, config.dropout, config.scaling)
        model.scaler.fit(real.batch(range(len(real)))['image'])
        model = model.to(device).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
        stream = _Stream(dataset, torch.Generator().manual_seed(seed), device)
        for _ in range(config.steps):
            image, target = stream.take(config.batch_size)
            loss = cross_entropy(model(image), target, label_smoothing=config.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


class _Stream:
    """Batches without end: epoch after epoch of a dataset in random order."""

    def __init__(self, dataset: MixedDataset | SpectraDataset, rng: torch.Generator, device: str) -> None:
        self.dataset, self.rng, self.device = dataset, rng, device
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)
        self.image, self.target = torch.empty(0), torch.empty(0)

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        images, targets = [], []
        while count > 0:
            if len(self.order) == 0:
                self._next_epoch()
            rows, self.order = self.order[:count], self.order[count:]
            images.append(self.image[rows])
            targets.append(self.target[rows])
            count -= len(rows)
        return torch.cat(images), torch.cat(targets)

    def _next_epoch(self) -> None:
        self.epoch += 1
        fresh = isinstance(self.dataset, MixedDataset)
        if fresh:
            self.dataset.set_epoch(self.epoch)  # type: ignore[union-attr]
        if fresh or self.epoch == 0:
            batch = self.dataset.batch(range(len(self.dataset)))
            self.image = batch['image'].to(self.device)
            self.target = batch.get('label_prob', batch['label']).to(self.device)
        self.order = torch.randperm(len(self.image), generator=self.rng).to(self.device)


@torch.no_grad()
def predict(model: nn.Module, image: Tensor, batch_size: int = 8192) -> Tensor:
    """(N,) predicted labels of (N, C) spectra, on the CPU."""
    device = next(model.parameters()).device
    return torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in image.split(batch_size)])


class LinearSVM:
    """Linear support vector machine on standardised bands (Table 1 of Audebert et al. 2018).

    Args:
        c: penalty C.
    """

    def __init__(self, c: float = 1.0) -> None:
        self.scaler, self.svm = StandardScaler(), SVC(C=c, kernel='linear')

    def fit(self, image: Tensor | np.ndarray, label: Tensor | np.ndarray, real: Tensor | None = None) -> LinearSVM:
        """Fit on (N, C) spectra; bands are standardised by ``real`` spectra where they are given."""
        self.scaler.fit(np.asarray(image if real is None else real))
        self.svm.fit(self.scaler.transform(np.asarray(image)), np.asarray(label))
        return self

    def predict(self, image: Tensor | np.ndarray) -> Tensor:
        """(N,) labels."""
        return torch.from_numpy(np.asarray(self.svm.predict(self.scaler.transform(np.asarray(image)))).astype(np.int64))
