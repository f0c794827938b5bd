"""Training of networks that classify pixels or images, for a fixed number of optimiser steps: what all share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets import MixedDataset
from ..datasets.batches import fetch
from ..engine import Run, Stream
from ..engine.schedules import Polynomial
from ..engine.stream import HELD_BYTES, Batch
from ..metrics.scores import change_scores, segmentation_scores
from ..models.auxiliary_bn import synthetic_rows
from ..models.nn1d import SpectralScaler
from ..samples import Sample, SampleSpec
from .augmentation import Augmentation
from .classifier import predict
from .supervised import Supervised, supervision

ImageKind = Literal['segmentation', 'change', 'scene']
_TRAINERS = {
    'segmentation': 'train_segmenter', 'change': 'train_change_detector', 'scene': 'train_scene_classifier',
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ImageTraining:
    """What trainings of networks on images have in common.

    Args:
        upsampling: images are enlarged by this factor first.
        steps: optimiser steps.
        batch_size: images, or pairs of dates, per step, real and synthetic together.
        learning_rate: of AdamW at its highest; it rises over ``warmup`` and falls to zero as a polynomial.
        warmup: share of the steps.
        weight_decay: of AdamW.
        class_weights: ``'none'``, or ``'sqrt_inverse'``: by the inverse square root of how many real pixels, or images,
            a class has.
        augment: ``'none'``; ``'flips'`` and turns; ``'classic'``: flips, crops, noise; ``'cutmix'``: flips and CutMix.
            Images, both dates and masks always move alike.
        bfloat16: mixed precision, worth its while on a GPU.
        keep_best: steps between two looks at validation samples, after which the weights that score best on them (mIoU,
            F1 of change, accuracy) are kept; 0 keeps those of the last step.
    """

    upsampling: int = 1
    steps: int = 400
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    class_weights: Literal['none', 'sqrt_inverse'] = 'none'
    augment: Augmentation = 'none'
    bfloat16: bool = False
    keep_best: int = 0


class Standardised(nn.Module):
    """A network from images to logits of pixels or of images, with the standardisation of its input inside.

    Args:
        model: network from standardised images (n, ..., C, H, W) to logits (n, K, H, W), or (n, K).
        spec: what it was trained on.
    """

    def __init__(self, model: nn.Module, spec: SampleSpec) -> None:
        super().__init__()
        self.model, self.spec = model, spec
        self.scaler = SpectralScaler(spec.bands)

    def standardise(self, image: Tensor) -> Tensor:
        """Images (n, ..., C, H, W) in the dataset's unit to standardised bands."""
        return self.scaler(image.movedim(-3, -1)).movedim(-1, -3).contiguous()

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W), or (n, K), of images (n, ..., C, H, W) in the dataset's unit."""
        return self.model(self.standardise(image))


def optimise(
    network: Standardised,
    dataset: Dataset[Sample],
    config: Any,
    seed: int,
    device: torch.device,
    augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
    loss_of: Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor],
    synthetic_weight: float = 1.0,
    val: Dataset[Sample] | None = None,
) -> None:
    """Train a network for a fixed number of steps on batches of a dataset, and leave it in evaluation mode.

    Args:
        network: untrained; its scaling is fitted here.
        dataset: real or mixed images with masks or labels.
        config: an :class:`ImageTraining` with the name of its ``model``.
        seed: of the order of the samples; all else draws from torch's global generators.
        device: where to train.
        augment: of standardised images and their targets: masks, labels, or ``label_prob`` where samples have it.
        loss_of: loss of standardised images, targets, class weights (K,) and sample weights (n,).
        synthetic_weight: loss weight of synthetic samples, in addition to the weights that samples carry.
        val: validation samples, for ``keep_best``.

    Raises:
        ValueError: for samples that cannot be trained on, or ``keep_best`` without validation samples.
        FloatingPointError: if training diverges.
    """
    spec = network.spec
    class_weights = fit_scaling(network.scaler, dataset, spec, config.class_weights == 'sqrt_inverse')
    class_weights = class_weights if class_weights is None else class_weights.to(device)
    optimiser = torch.optim.AdamW(
        network.to(device).parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )

    def keep(batch: dict[str, Any]) -> Batch:
        _require_trainable(batch, spec)
        kept = supervision(batch, spec.target_key, synthetic_weight)
        return kept | {key: batch[key] for key in ('synthetic',) if key in batch}

    def loss_of_batch(batch: Batch) -> Tensor:
        image, target = network.standardise(batch['image']), batch['target']
        if augment is not None:
            image, target = augment(image, target)
        rows = synthetic_rows(network, batch.get('synthetic'))
        with rows, torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            return loss_of(image, target, class_weights, batch.get('weight'))

    score = None
    if config.keep_best:
        if val is None or len(val) == 0:  # type: ignore[arg-type]
            raise ValueError(
                f'{_TRAINERS[spec.kind]}: keep_best={config.keep_best} keeps the weights that validate best, and there '
                'are no validation samples; give val, or keep_best=0'
            )
        score = partial(validation_score, network, fetch(val, np.arange(len(val))), spec)  # type: ignore[arg-type]
    stream, schedule = Stream(dataset, spec, seed, device, keep), Polynomial(config.warmup)
    size, steps, rate = config.batch_size, config.steps, 'learning_rate'
    training = Supervised(
        config.model, network, optimiser, stream, size, steps, schedule, loss_of_batch, rate, score, config.keep_best
    )
    training.run(Run())
    network.eval()


def validation_score(network: nn.Module, batch: dict[str, Any], spec: SampleSpec) -> float:
    """mIoU, F1 of change or accuracy of a network in evaluation mode on samples in the contract."""
    target = batch[spec.target_key]
    predicted = predict(network, batch['image'], 64).reshape(target.shape)
    if spec.kind == 'scene':
        return float((predicted == target).float().mean())
    if spec.kind == 'change':
        f1 = change_scores(predicted, target, spec.ignore_index).f1
        return 0.0 if math.isnan(f1) else f1
    return segmentation_scores(predicted, target, spec.num_classes, spec.ignore_index).miou


def require_spec(dataset: Any, kind: ImageKind) -> SampleSpec:
    """What a dataset holds.

    Raises:
        ValueError: if it does not say so, holds another kind, or nothing at all.
    """
    spec, who = getattr(dataset, 'spec', None), _TRAINERS[kind]
    if not isinstance(spec, SampleSpec) or spec.kind != kind:
        raise ValueError(
            f'{who}: a dataset with a spec of kind {kind!r} expected, found {type(dataset).__name__} '
            f'with {f"kind {spec.kind!r}" if isinstance(spec, SampleSpec) else "no spec"}'
        )
    if len(dataset) == 0:
        raise ValueError(f'{who}: {type(dataset).__name__} is empty')
    return spec


def require_weighable(
    dataset: Any, augment: Augmentation, kind: ImageKind, synthetic_weight: float = 1.0, auxiliary_bn: bool = False
) -> None:
    """Check that samples keep their weights, and remain real or synthetic, through the augmentation.

    Raises:
        ValueError: if that matters and the augmentation mixes samples.
    """
    if augment != 'cutmix':
        return
    if auxiliary_bn:
        raise ValueError(
            f"{_TRAINERS[kind]}: augment='cutmix' mixes samples, which auxiliary batch normalisation must tell apart; "
            'choose another augmentation'
        )
    if getattr(dataset, 'weight', None) is not None or synthetic_weight != 1:
        raise ValueError(f"{_TRAINERS[kind]}: augment='cutmix' mixes samples, which then have no weight of their own")


def fit_scaling(scaler: SpectralScaler, dataset: Any, spec: SampleSpec, weigh_classes: bool) -> Tensor | None:
    """Fit the scaling to real patches, evenly spaced ones where all are too many, and give class weights (K,)."""
    real: Any = dataset.real if isinstance(dataset, MixedDataset) else dataset
    stride = -(-len(real) * spec.sample_bytes // HELD_BYTES)
    batch = fetch(real, np.arange(0, len(real), stride))
    _require_trainable(batch, spec)
    target = batch[spec.target_key]
    counted = target if spec.ignore_index is None else target[target != spec.ignore_index]
    if counted.numel() == 0:
        raise ValueError(f'{_TRAINERS[spec.kind]}: every pixel of {len(target)} real patches is ignored')
    pixels = torch.bincount(counted.reshape(-1), minlength=spec.num_classes).float()
    # Synthetic changes can stand in for real ones, but not where real ones are to weigh them.
    if spec.kind == 'change' and not pixels[1:].any() and (weigh_classes or (real is dataset and stride == 1)):
        raise ValueError(
            f'{_TRAINERS[spec.kind]}: no pixel of {len(target)} real pairs has changed; check the masks, or mix '
            "in synthetic changes with class_weights='none'"
        )
    scaler.fit(batch['image'].movedim(-3, -1).reshape(-1, spec.bands))
    if not weigh_classes:
        return None
    weights = pixels.clamp_min(1).rsqrt() * (pixels > 0)  # a class without a pixel has nothing to weigh
    return weights / (weights * pixels).sum() * pixels.sum()


def _require_trainable(batch: dict[str, Tensor], spec: SampleSpec) -> None:
    """What would end in NaN, or in an assertion on the device, is said here."""
    bad = int((~torch.isfinite(batch['image']).flatten(1).all(dim=1)).sum())
    if bad:
        raise ValueError(
            f'{_TRAINERS[spec.kind]}: {bad} of {len(batch["image"])} patches hold values that are not finite; fill them'
        )
    key = spec.target_key
    target = batch[key] if spec.ignore_index is None else batch[key][batch[key] != spec.ignore_index]
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < spec.num_classes:
        raise ValueError(
            f'{_TRAINERS[spec.kind]}: {key} classes must lie in [0, {spec.num_classes}) or be ignore_index='
            f'{spec.ignore_index}, found [{int(target.min())}, {int(target.max())}]'
        )
