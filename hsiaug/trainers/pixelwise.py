"""Training of networks that classify pixels or images, for a fixed number of optimiser steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets import MixedDataset
from ..datasets.contract.batches import fetch
from ..engine import Run, Stream
from ..engine.schedules import Polynomial
from ..engine.stream import HELD_BYTES, Batch
from ..functional.plain import plain_torch
from ..metrics.scores import change_scores, segmentation_scores
from ..models.auxiliary_bn import add_auxiliary_bn, drop_auxiliary_bn, synthetic_rows
from ..models.nn1d import SpectralScaler
from ..samples import Sample, SampleSpec, require_compatible
from ..settings import NOT_NEGATIVE, POSITIVE, SHARE, Range, check_settings
from ..streams import seeded
from .augmentation import Augmentation, augmentation
from .classifier import predict
from .supervised import TRAINERS, Supervised, require_trainable, supervision

N = TypeVar('N', bound='Standardised')
Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Weights = tuple[Tensor | None, Tensor | None]


class Standardised(nn.Module):
    """A network from images to logits of pixels or of images, with the standardisation of its input inside.

    ``model`` takes standardised images (n, ..., C, H, W), of ``spec``, to logits (n, K, H, W), or (n, K).
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


@dataclass(frozen=True, kw_only=True)
class ImageTraining(ABC, Generic[N]):
    """Settings common to all networks on images; a subclass defines the network and its loss.

    Args:
        upsampling: factor by which images are enlarged first.
        steps: number of optimiser steps.
        batch_size: images, or pairs of dates, per step, real and synthetic together.
        learning_rate: peak learning rate of AdamW, which rises over ``warmup`` and falls to zero as a polynomial.
        warmup: share of the steps with a rising learning rate.
        weight_decay: weight decay of AdamW.
        class_weights: ``'none'``, or ``'sqrt_inverse'``: inverse square root of the number of real pixels, or images,
            of a class.
        augment: ``'none'``; ``'flips'``: flips and rotations; ``'classic'``: flips, crops, noise; ``'cutmix'``: flips
            and CutMix. Images, both dates and masks always move together.
        bfloat16: mixed precision, useful on a GPU.
        keep_best: number of steps between evaluations on validation samples, to keep the weights with the best score
            (mIoU, F1 of change, accuracy); 0 keeps those of the last step.

    Raises:
        ValueError: for an unknown choice or a number out of range.
    """

    kind: ClassVar[Literal['segmentation', 'change', 'scene']]
    takes_one: ClassVar[str | None] = None
    """Model that learns from batches of one; batch normalisation of others may see one value per channel then."""

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

    def __post_init__(self) -> None:
        fewest = Range(1 if vars(self)['model'] == self.takes_one else 2)
        rates = {'learning_rate': POSITIVE, 'warmup': SHARE, 'dropout': SHARE}
        check_settings(self, keep_best=NOT_NEGATIVE, batch_size=fewest, **rates)

    @property
    def replayable(self) -> bool:
        """Whether a step asks nothing of the host: which samples are synthetic, or which classes there are."""
        return not (getattr(self, 'auxiliary_bn', False) or getattr(self, 'lovasz', 0))

    @abstractmethod
    def build(self, spec: SampleSpec) -> N:
        """The untrained network for samples of a spec."""

    @abstractmethod
    def loss(self, network: N, image: Tensor, target: Tensor, weights: Weights) -> Tensor:
        """Loss of standardised images and their targets, with weights of classes (K,) and of samples (n,)."""

    def augmentation(self, spec: SampleSpec) -> Augment | None:
        """Of standardised images and their targets: masks, labels, or ``label_prob`` where samples have it."""
        return augmentation(self.augment, spec.size or (1, 1))


@plain_torch()
def train_images(
    dataset: Dataset[Sample],
    config: ImageTraining[N],
    seed: int = 0,
    device: str | torch.device = 'cpu',
    val: Dataset[Sample] | None = None,
) -> N:
    """Train a network on images with masks or labels, or on pairs of dates with change masks.

    Batches come from a :class:`~hsiaug.engine.Stream` and have the same size for datasets of any length.
    Standardisation (the same for both dates) and class weights come from real samples only. The target of labelled
    images is ``label_prob`` if samples have it; if a batch has ``weight``, it is used in the loss.

    Args:
        dataset: real or mixed samples of the config's kind, with a ``spec``.
        config: network and training.
        seed: seed of the initialisation, the order of the samples, dropout and augmentation; torch's global generators
            are not changed.
        device: device to train on.
        val: validation samples, for ``keep_best``.

    Returns:
        the network from images in the dataset's unit to logits, in evaluation mode, on ``device``.

    Raises:
        ValueError: if the dataset is empty, of another kind or without a spec; if it holds values that are not finite,
            a class outside the spec, only ignored pixels or, for pairs of dates, no changed pixel; if the augmentation
            mixes samples that need their own weights or normalisation; for ``keep_best`` without ``val``.
        FloatingPointError: if training diverges.
    """
    spec, device = _require_images(dataset, config), torch.device(device)
    with seeded(seed, device):
        network = config.build(spec)
        if getattr(config, 'auxiliary_bn', False):
            add_auxiliary_bn(network)
        augment = config.augmentation(spec)
        weights = fit_scaling(network.scaler, dataset, spec, config.class_weights == 'sqrt_inverse')
        weights = None if weights is None else weights.to(device)
        optimiser = torch.optim.AdamW(
            network.to(device).parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

        def keep(batch: dict[str, Any]) -> Batch:
            require_trainable(batch, spec)
            kept = supervision(batch, spec.target_key, getattr(config, 'synthetic_weight', 1.0))
            return kept | {key: batch[key] for key in ('synthetic',) if key in batch}

        def prepared(batch: Batch) -> Batch:
            image, target = network.standardise(batch['image']), batch['target']
            if augment is not None:
                image, target = augment(image, target)
            return {**batch, 'image': image, 'target': target}

        def loss_of(batch: Batch) -> Tensor:
            rows = synthetic_rows(network, batch.get('synthetic'))
            with rows, torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                return config.loss(network, batch['image'], batch['target'], (weights, batch.get('weight')))

        score = None
        if config.keep_best:
            if val is None or len(val) == 0:  # type: ignore[arg-type]
                raise ValueError(
                    f'{TRAINERS[spec.kind]}: keep_best={config.keep_best} keeps the weights that validate best, and '
                    'there are no validation samples; give val, or keep_best=0'
                )
            require_compatible(spec, _require_images(val, config))
            score = partial(validation_score, network, fetch(val, np.arange(len(val))), spec)  # type: ignore[arg-type]
        batches, schedule = Stream(dataset, spec, seed, device, keep), Polynomial(config.warmup)
        Supervised(
            vars(config)['model'], network, optimiser, batches, config.batch_size, config.steps, schedule, loss_of,
            'learning_rate', score, config.keep_best, config.replayable, prepared,
        ).run(Run())  # fmt: skip
    return drop_auxiliary_bn(network.eval())


def validation_score(network: nn.Module, batch: dict[str, Any], spec: SampleSpec) -> float:
    """mIoU, F1 of change or accuracy of a network in evaluation mode on samples in the contract."""
    target = batch[spec.target_key]
    predicted = predict(network, batch['image']).reshape(target.shape)
    if spec.kind == 'scene':
        return float((predicted == target).float().mean())
    if spec.kind == 'change':
        f1 = change_scores(predicted, target, spec.ignore_index).f1
        return 0.0 if math.isnan(f1) else f1
    return segmentation_scores(predicted, target, spec.num_classes, spec.ignore_index).miou


def _require_images(dataset: Any, config: ImageTraining[N]) -> SampleSpec:
    """What a dataset holds, if it can be trained on."""
    spec, who = getattr(dataset, 'spec', None), TRAINERS[config.kind]
    if not isinstance(spec, SampleSpec) or spec.kind != config.kind:
        raise ValueError(
            f'{who}: a dataset with a spec of kind {config.kind!r} expected, found {type(dataset).__name__} '
            f'with {f"kind {spec.kind!r}" if isinstance(spec, SampleSpec) else "no spec"}'
        )
    if len(dataset) == 0:
        raise ValueError(f'{who}: {type(dataset).__name__} is empty')
    if config.augment == 'cutmix' and getattr(config, 'auxiliary_bn', False):
        raise ValueError(
            f"{who}: augment='cutmix' mixes samples, which auxiliary batch normalisation must tell apart; choose "
            'another augmentation'
        )
    weighed = getattr(dataset, 'weight', None) is not None or getattr(config, 'synthetic_weight', 1) != 1
    if config.augment == 'cutmix' and weighed:
        raise ValueError(f"{who}: augment='cutmix' mixes samples, which then have no weight of their own")
    return spec


def fit_scaling(scaler: SpectralScaler, dataset: Any, spec: SampleSpec, weigh_classes: bool) -> Tensor | None:
    """Fit the scaling to real patches, evenly spaced ones where all are too many, and give class weights (K,)."""
    real: Any = dataset.real if isinstance(dataset, MixedDataset) else dataset
    stride = -(-len(real) * spec.sample_bytes // HELD_BYTES)
    batch = fetch(real, np.arange(0, len(real), stride))
    require_trainable(batch, spec)
    target = batch[spec.target_key]
    counted = target if spec.ignore_index is None else target[target != spec.ignore_index]
    if counted.numel() == 0:
        raise ValueError(f'{TRAINERS[spec.kind]}: every pixel of {len(target)} real patches is ignored')
    pixels = torch.bincount(counted.reshape(-1), minlength=spec.num_classes).float()
    # Synthetic changes can stand in for real ones, but not where real ones are to weigh them.
    if spec.kind == 'change' and not pixels[1:].any() and (weigh_classes or (real is dataset and stride == 1)):
        raise ValueError(
            f'{TRAINERS[spec.kind]}: no pixel of {len(target)} real pairs has changed; check the masks, or mix '
            "in synthetic changes with class_weights='none'"
        )
    scaler.fit(batch['image'].movedim(-3, -1).reshape(-1, spec.bands))
    if not weigh_classes:
        return None
    weights = pixels.clamp_min(1).rsqrt() * (pixels > 0)  # a class without a pixel has nothing to weigh
    return weights / (weights * pixels).sum() * pixels.sum()
