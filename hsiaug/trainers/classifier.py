"""Training of a classifier of spectra for a fixed number of optimiser steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..datasets import MixedDataset, SpectraDataset
from ..datasets.contract.batches import fetch
from ..engine import Run, Stream
from ..engine.schedules import Cosine
from ..engine.stream import Batch
from ..functional.plain import plain_torch
from ..functional.scaling import BandScaler
from ..models.nn1d import NN1D, Scaling
from ..settings import POSITIVE, SHARE, Range, check_settings
from ..streams import seeded
from .supervised import Supervised, require_trainable, supervision


@dataclass(frozen=True)
class ClassifierConfig:
    """NN-1D and its training; the same for every arm of a study.

    Args:
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        dropout: dropout after each hidden layer.
        scaling: scaling of the input, see :class:`~hsiaug.models.SpectralScaler`.
        steps: number of optimiser steps.
        batch_size: samples per step, real and synthetic together.
        lr: initial learning rate of AdamW, which falls to zero along a cosine.
        weight_decay: weight decay of AdamW.
        label_smoothing: label smoothing of the cross-entropy.
        synthetic_weight: loss weight of synthetic samples; that of real ones is 1.

    Raises:
        ValueError: for a number out of range.
    """

    hidden: int = 256
    layers: int = 4
    dropout: float = 0.0
    scaling: Scaling = 'standard'
    steps: int = 400
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    synthetic_weight: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, dropout=SHARE, lr=POSITIVE, label_smoothing=Range(0, 1))


@plain_torch()
def train_nn1d(
    dataset: MixedDataset | SpectraDataset,
    config: ClassifierConfig,
    seed: int = 0,
    device: str = 'cpu',
    after_epoch: Callable[[int, NN1D], None] | None = None,
) -> NN1D:
    """Train NN-1D on a dataset of spectra.

    Batches come from a :class:`~hsiaug.engine.Stream` and have the same size for datasets of any length. The scaling is
    fitted to real spectra only. If samples have a ``weight``, it is used in the loss.

    Args:
        dataset: real or mixed spectra; the target is ``label_prob`` if there is one.
        config: network and training.
        seed: seed of the initialisation and the order of the samples; torch's global generator is not changed.
        device: device to train on.
        after_epoch: called with the number of each finished epoch of the dataset and the network, in evaluation mode,
            before samples of the next epoch are read; for schedules such as
            :class:`~hsiaug.quality.adaptive_ratio.AdaptiveRatio`.

    Returns:
        the network, in evaluation mode, on ``device``.

    Raises:
        FloatingPointError: if training diverges.
        ValueError: if there is only one class.
    """
    real: Any = dataset.real if isinstance(dataset, MixedDataset) else dataset
    spec = dataset.spec
    assert spec is not None
    if spec.num_classes < 2:
        raise ValueError(f'train_nn1d: two classes or more are needed, found {spec.classes}')
    with seeded(seed, device):
        model = NN1D(spec.bands, spec.num_classes, config.hidden, config.layers, config.dropout, config.scaling)
        everything = fetch(real, np.arange(len(real)))
        require_trainable(everything, spec)
        model.scaler.fit(everything['image'], everything['label'])
        model = model.to(device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)

        def report(epoch: int) -> None:
            if after_epoch is not None:
                after_epoch(epoch, model.eval())
                model.train()

        def loss_of(batch: Batch) -> Tensor:
            logits, target, weight = model(batch['image']), batch['target'], batch.get('weight')
            if weight is None:
                return cross_entropy(logits, target, label_smoothing=config.label_smoothing)
            losses = cross_entropy(logits, target, reduction='none', label_smoothing=config.label_smoothing)
            return (weight * losses).sum() / weight.sum().clamp_min(1e-12)

        def keep(batch: dict[str, Any]) -> Batch:
            require_trainable(batch, spec)
            return supervision(batch, 'label', config.synthetic_weight)

        stream = Stream(dataset, spec, seed, device, keep, report)
        size, steps = config.batch_size, config.steps
        training = Supervised('nn1d', model, optimiser, stream, size, steps, Cosine(), loss_of, 'lr', replayable=True)
        training.run(Run())
    return model.eval()


@torch.no_grad()
def predict(model: nn.Module, image: Tensor, batch_size: int | None = None) -> Tensor:
    """Predicted classes on the CPU: (N,) of (N, C) spectra and of labelled images, (N, H, W) of images with masks.

    By default, 8192 spectra or 64 images are processed at a time.
    """
    device, batch_size = next(model.parameters()).device, batch_size or (8192 if image.ndim == 2 else 64)
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
