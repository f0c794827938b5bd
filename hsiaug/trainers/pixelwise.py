"""Training of networks that classify pixels or images, for a fixed number of optimiser steps: what all share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets import MixedDataset
from ..datasets.batches import fetch
from ..engine.divergence import CHECK_EVERY, require_finite
from ..models.auxiliary_bn import synthetic_rows
from ..models.nn1d import SpectralScaler
from ..samples import Sample, SampleSpec
from .augmentation import Augmentation
from .classifier import sample_weights

ImageKind = Literal['segmentation', 'change', 'scene']
_TRAINERS = {
    'segmentation': 'train_segmenter', 'change': 'train_change_detector', 'scene': 'train_scene_classifier',
}  # fmt: skip
_EXTRAS = ('label_prob', 'weight', 'synthetic')
HELD_BYTES = 4 << 30
"""An epoch up to this size is read at once and kept on the device; a larger one is read batch by batch."""


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


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed inside, and leave torch's global generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        yield


def optimise(
    network: Standardised,
    dataset: Dataset[Sample],
    config: Any,
    seed: int,
    device: torch.device,
    augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
    loss_of: Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor],
    synthetic_weight: float = 1.0,
) -> None:
    """Train a network for a fixed number of steps on batches of a dataset, and leave it in evaluation mode.

    Args:
        network: untrained; its scaling is fitted here.
        dataset: real or mixed images with masks or labels.
        config: a frozen configuration with the steps, batches, rates and weights of :class:`SegmenterConfig`.
        seed: of the order of the samples; all else draws from torch's global generators.
        device: where to train.
        augment: of standardised images and their targets: masks, labels, or ``label_prob`` where samples have it.
        loss_of: loss of standardised images, targets, class weights (K,) and sample weights (n,).
        synthetic_weight: loss weight of synthetic samples, beside the weights that samples carry.

    Raises:
        ValueError: for samples that cannot be trained on.
        FloatingPointError: if training diverges.
    """
    spec = network.spec
    class_weights = fit_scaling(network.scaler, dataset, spec, config.class_weights == 'sqrt_inverse')
    network.to(device).train()
    class_weights = class_weights if class_weights is None else class_weights.to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    warm = max(config.warmup * config.steps, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 1.0) * (1 - step / config.steps) ** 0.9
    )
    stream = Stream(dataset, spec, torch.Generator().manual_seed(seed), device)
    for step in range(1, config.steps + 1):
        batch = stream.take(config.batch_size)
        image, target = network.standardise(batch['image']), batch.get('label_prob', batch[target_key(spec)])
        if augment is not None:
            image, target = augment(image, target)
        weights = sample_weights(batch, synthetic_weight)
        rows = synthetic_rows(network, batch.get('synthetic'))
        with rows, torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            loss = loss_of(image, target, class_weights, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % CHECK_EVERY == 0 or step == config.steps:
            modules = {'network': network} if step == config.steps else {}
            rate = f'learning_rate ({config.learning_rate:g})'
            require_finite(f'{config.model} diverged by step {step}', {'loss': float(loss.detach())}, modules, rate)
    network.eval()


class Stream:
    """Batches without end: epoch after epoch of a dataset in random order."""

    def __init__(self, dataset: Any, spec: SampleSpec, rng: torch.Generator, device: torch.device) -> None:
        self.dataset, self.spec, self.rng, self.device = dataset, spec, rng, device
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)
        self.held: dict[str, Tensor] | None = None

    def take(self, count: int) -> dict[str, Tensor]:
        """The next ``image``, target and what else samples have of :data:`_EXTRAS`, on the device."""
        parts = []
        while count > 0:
            if len(self.order) == 0:
                self._next_epoch()
            rows, self.order = self.order[:count], self.order[count:]
            parts.append(self._read(rows) if self.held is None else {k: v[rows] for k, v in self.held.items()})
            count -= len(rows)
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _next_epoch(self) -> None:
        self.epoch += 1
        fresh = isinstance(self.dataset, MixedDataset)
        if fresh:
            self.dataset.set_epoch(self.epoch)
        size = len(self.dataset)
        if _bytes(self.spec, size) > HELD_BYTES:
            self.held = None
        elif fresh or self.epoch == 0:
            self.held = self._read(torch.arange(size))
        self.order = torch.randperm(size, generator=self.rng).to('cpu' if self.held is None else self.device)

    def _read(self, rows: Tensor) -> dict[str, Tensor]:
        batch = fetch(self.dataset, rows.numpy())
        keys = ('image', target_key(self.spec), *_EXTRAS)
        batch = {key: batch[key] for key in keys if key in batch}
        _require_trainable(batch, self.spec)
        return {key: value.to(self.device) for key, value in batch.items()}


def target_key(spec: SampleSpec) -> str:
    """The key of the target in samples of a spec."""
    return 'label' if spec.kind == 'scene' else 'mask'


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
    stride = -(-_bytes(spec, len(real)) // HELD_BYTES)
    batch = fetch(real, np.arange(0, len(real), stride))
    _require_trainable(batch, spec)
    target = batch[target_key(spec)]
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


def _bytes(spec: SampleSpec, count: int) -> int:
    height, width = spec.size or (1, 1)
    return count * height * width * (4 * spec.bands * (2 if spec.kind == 'change' else 1) + 8)


def _require_trainable(batch: dict[str, Tensor], spec: SampleSpec) -> None:
    """What would end in NaN, or in an assertion on the device, is said here."""
    bad = int((~torch.isfinite(batch['image']).flatten(1).all(dim=1)).sum())
    if bad:
        raise ValueError(
            f'{_TRAINERS[spec.kind]}: {bad} of {len(batch["image"])} patches hold values that are not finite; fill them'
        )
    key = target_key(spec)
    target = batch[key] if spec.ignore_index is None else batch[key][batch[key] != spec.ignore_index]
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < spec.num_classes:
        raise ValueError(
            f'{_TRAINERS[spec.kind]}: {key} classes must lie in [0, {spec.num_classes}) or be ignore_index='
            f'{spec.ignore_index}, found [{int(target.min())}, {int(target.max())}]'
        )
