"""Training of a classifier of spectra for a fixed number of optimiser steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..datasets import MixedDataset, SpectraDataset
from ..engine.divergence import CHECK_EVERY, require_finite
from ..functional.band_scaler import BandScaler
from ..functional.plain import plain_torch
from ..models.nn1d import NN1D, SCALINGS
from ..settings import POSITIVE, SHARE, Range, check_settings


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
        synthetic_weight: loss weight of synthetic samples, real ones having 1.

    Raises:
        ValueError: for a number out of range.
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
    synthetic_weight: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, dropout=SHARE, lr=POSITIVE, label_smoothing=Range(0, 1))
        if self.scaling not in SCALINGS:
            raise ValueError(f'ClassifierConfig: unknown scaling {self.scaling!r}; choose from {SCALINGS}')


@plain_torch()
def train_nn1d(
    dataset: MixedDataset | SpectraDataset,
    config: ClassifierConfig,
    seed: int = 0,
    device: str = 'cpu',
    after_epoch: Callable[[int, NN1D], None] | None = None,
) -> NN1D:
    """Train NN-1D on a dataset of spectra.

    Every epoch of the dataset is read once as tensors and dealt to the steps in random order; the last, smaller batch
    of an epoch is filled from the next, so that arms of any size take the same number of equal steps. The scaling is
    fitted on the real spectra alone. Where samples have ``weight``, they count with it.

    Args:
        dataset: real or mixed spectra; ``label_prob`` is the target where it exists.
        config: network and training.
        seed: of the initialisation and the order of the samples; torch's global generator is left as it was.
        device: where to train.
        after_epoch: called with the number of each epoch of the dataset and the network, in evaluation mode, before
            samples of the next epoch are read; tells a schedule such as
            :class:`~hsiaug.quality.adaptive_ratio.AdaptiveRatio` how training goes.

    Returns:
        the network, in evaluation mode, on ``device``.

    Raises:
        FloatingPointError: if training diverges.
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

        def report(epoch: int) -> None:
            if after_epoch is not None:
                after_epoch(epoch, model.eval())
                model.train()

        stream = _Stream(dataset, torch.Generator().manual_seed(seed), device, config.synthetic_weight, report)
        for step in range(1, config.steps + 1):
            image, target, weight = stream.take(config.batch_size)
            logits = model(image)
            if weight is None:
                loss = cross_entropy(logits, target, label_smoothing=config.label_smoothing)
            else:
                losses = cross_entropy(logits, target, reduction='none', label_smoothing=config.label_smoothing)
                loss = (weight * losses).sum() / weight.sum().clamp_min(1e-12)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            if step % CHECK_EVERY == 0 or step == config.steps:
                modules = {'model': model} if step == config.steps else {}
                found = {'loss': float(loss.detach())}
                require_finite(f'nn1d diverged by step {step}', found, modules, f'lr ({config.lr:g})')
    return model.eval()


class _Stream:
    """Batches without end: epoch after epoch of a dataset in random order."""

    def __init__(
        self,
        dataset: MixedDataset | SpectraDataset,
        rng: torch.Generator,
        device: str,
        synthetic_weight: float = 1.0,
        after_epoch: Callable[[int], None] | None = None,
    ) -> None:
        self.dataset, self.rng, self.device = dataset, rng, device
        self.synthetic_weight, self.after_epoch = synthetic_weight, after_epoch
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)
        self.held: dict[str, Tensor] = {}

    def take(self, count: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, targets and, where samples differ in it, weights."""
        parts = []
        while count > 0:
            if len(self.order) == 0:
                self._next_epoch()
            rows, self.order = self.order[:count], self.order[count:]
            parts.append({key: value[rows] for key, value in self.held.items()})
            count -= len(rows)
        batch = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        return batch['image'], batch['target'], batch.get('weight')

    def _next_epoch(self) -> None:
        if self.after_epoch is not None and self.epoch >= 0:
            self.after_epoch(self.epoch)
        self.epoch += 1
        fresh = isinstance(self.dataset, MixedDataset)
        if fresh:
            self.dataset.set_epoch(self.epoch)  # type: ignore[union-attr]
        if fresh or self.epoch == 0:
            batch = self.dataset.batch(range(len(self.dataset)))
            held = {'image': batch['image'], 'target': batch.get('label_prob', batch['label'])}
            if (weight := sample_weights(batch, self.synthetic_weight)) is not None:
                held['weight'] = weight
            self.held = {key: value.to(self.device) for key, value in held.items()}
        self.order = torch.randperm(len(self.held['image']), generator=self.rng).to(self.device)


def sample_weights(batch: Mapping[str, Tensor], synthetic_weight: float) -> Tensor | None:
    """(n,) loss weights: those that samples carry, times ``synthetic_weight`` of synthetic ones; None for 1 for all."""
    weight = batch.get('weight')
    if synthetic_weight == 1 or 'synthetic' not in batch:
        return weight
    scale = torch.where(batch['synthetic'], synthetic_weight, 1.0)
    return scale if weight is None else weight * scale


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
        self.scaler, self.svm = BandScaler(), SVC(C=c, kernel='linear')

    def fit(self, image: Tensor | np.ndarray, label: Tensor | np.ndarray, real: Tensor | None = None) -> LinearSVM:
        """Fit on (N, C) spectra; bands are standardised by ``real`` spectra where they are given."""
        self.scaler.fit(np.asarray(image if real is None else real))
        self.svm.fit(self.scaler.transform(np.asarray(image)), np.asarray(label))
        return self

    def predict(self, image: Tensor | np.ndarray) -> Tensor:
        """(N,) labels."""
        return torch.from_numpy(np.asarray(self.svm.predict(self.scaler.transform(np.asarray(image)))).astype(np.int64))
