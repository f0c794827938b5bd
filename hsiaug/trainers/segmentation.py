"""Training of a segmentation network for a fixed number of optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets import MixedDataset
from ..datasets.batches import fetch
from ..losses.segmentation import edge_loss, segmentation_loss
from ..models.nn1d import SpectralScaler
from ..models.pfsegnet import PFSegNet
from ..models.segformer import SegFormer
from ..samples import Sample, SampleSpec
from .augmentation import Augmentation, augmentation

HELD_BYTES = 4 << 30
"""An epoch up to this size is read at once and kept on the device; a larger one is read batch by batch."""


@dataclass(frozen=True)
class SegmenterConfig:
    """A segmentation network and its training; the same for every arm of a study.

    Args:
        model: ``'segformer'`` or ``'pfsegnet'``.
        encoder: ``'mit_tiny'``, ``'mit_b0'`` to ``'mit_b5'`` of SegFormer; ``'resnet_tiny'``, ``'resnet18'``,
            ``'resnet50'``, ... of PFSegNet; None is ``'mit_b0'`` or ``'resnet50'``.
        mapping: a 1x1 convolution maps the bands to 3 channels first; otherwise the encoder takes all bands.
        channels: width of the decoder.
        upsampling: the input is enlarged by this factor; see :class:`~hsiaug.models.SegFormer`.
        encoder_weights: ``'imagenet'`` or None.
        steps: optimiser steps.
        batch_size: patches per step, real and synthetic together.
        learning_rate: of AdamW at its highest; it rises over ``warmup`` and falls to zero as a polynomial.
        warmup: share of the steps.
        weight_decay: of AdamW.
        class_weights: ``'none'``, or ``'sqrt_inverse'``: by the inverse square root of the real pixels per class.
        augment: ``'none'``; ``'flips'`` and turns; ``'classic'``: flips, crops, noise; ``'cutmix'``: flips and CutMix.
        edge_weight: of the supervision of edges, of PFSegNet.
        bfloat16: mixed precision, worth its while on a GPU.

    Raises:
        ValueError: for an unknown choice or a number out of range.
    """

    model: Literal['segformer', 'pfsegnet'] = 'segformer'
    encoder: str | None = None
    mapping: bool = True
    channels: int = 256
    upsampling: int = 1
    encoder_weights: str | None = None
    steps: int = 400
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    class_weights: Literal['none', 'sqrt_inverse'] = 'none'
    augment: Augmentation = 'none'
    edge_weight: float = 1.0
    bfloat16: bool = False

    def __post_init__(self) -> None:
        choices = {
            'model': ('segformer', 'pfsegnet'), 'class_weights': ('none', 'sqrt_inverse'),
            'augment': get_args(Augmentation),
        }  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f'SegmenterConfig: unknown {name} {getattr(self, name)!r}; choose from {known}')
        # Batch normalisation of PFSegNet's pyramid pooling sees one value per patch and channel.
        at_least = {'channels': 1, 'upsampling': 1, 'steps': 1, 'batch_size': 2 if self.model == 'pfsegnet' else 1}
        for name, lowest in at_least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f'SegmenterConfig: {name} must be at least {lowest}, found {getattr(self, name)}')
        if not 0 <= self.warmup < 1:
            raise ValueError(f'SegmenterConfig: warmup is a share of the steps in [0, 1), found {self.warmup}')

    def build(self, bands: int, num_classes: int) -> nn.Module:
        """The untrained network."""
        options: dict[str, Any] = {'mapping': self.mapping, 'encoder_weights': self.encoder_weights}
        options['upsampling'] = self.upsampling
        if self.model == 'segformer':
            return SegFormer(bands, num_classes, self.encoder or 'mit_b0', decoder_channels=self.channels, **options)
        return PFSegNet(bands, num_classes, self.encoder or 'resnet50', channels=self.channels, **options)


class Segmenter(nn.Module):
    """A segmentation network with the standardisation of its input inside.

    Args:
        model: network from standardised (n, C, H, W) to logits (n, K, H, W), with ``features``.
        spec: what it was trained on.
    """

    def __init__(self, model: nn.Module, spec: SampleSpec) -> None:
        super().__init__()
        self.model, self.spec = model, spec
        self.scaler = SpectralScaler(spec.bands)

    def standardise(self, image: Tensor) -> Tensor:
        """Images (n, C, H, W) in the dataset's unit to standardised bands."""
        return self.scaler(image.movedim(1, -1)).movedim(-1, 1).contiguous()

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W) of images (n, C, H, W) in the dataset's unit."""
        return self.model(self.standardise(image))

    def features(self, image: Tensor) -> Tensor:
        """(n, D) spatial mean of what the last layer sees, of images (n, C, H, W) in the dataset's unit."""
        return self.model.features(self.standardise(image)).mean(dim=(-2, -1))  # type: ignore[operator]


def train_segmenter(
    dataset: Dataset[Sample], config: SegmenterConfig, seed: int = 0, device: str | torch.device = 'cpu'
) -> Segmenter:
    """Train a segmentation network on patches.

    An epoch of the dataset is dealt to the steps in random order; the last, smaller batch of an epoch is filled from
    the next, so that arms of any size take the same number of equal steps. Standardisation and class weights come
    from the real patches alone. Where a batch has ``weight``, samples count with it.

    Args:
        dataset: real or mixed patches of kind ``'segmentation'``, with a ``spec``.
        config: network and training.
        seed: of the initialisation, the order of the samples, and augmentation; torch's global generators are left as
            they were.
        device: where to train.

    Returns:
        the network, in evaluation mode, on ``device``.

    Raises:
        ValueError: if the dataset is empty, of another kind or without a spec, holds values that are not finite, a
            class beyond the spec's, or no pixel that counts.
        FloatingPointError: if training diverges.
    """
    spec, device = _segmentation_spec(dataset), torch.device(device)
    if config.augment == 'cutmix' and getattr(dataset, 'weight', None) is not None:
        raise ValueError("train_segmenter: augment='cutmix' mixes samples, which then have no weight of their own")
    with torch.random.fork_rng(devices=[device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        segmenter = Segmenter(config.build(spec.bands, spec.num_classes), spec)
        real = dataset.real if isinstance(dataset, MixedDataset) else dataset
        class_weights = _fit(segmenter.scaler, real, spec, config.class_weights == 'sqrt_inverse')
        segmenter = segmenter.to(device).train()
        class_weights = class_weights if class_weights is None else class_weights.to(device)
        augment = augmentation(config.augment, spec.size or (1, 1))
        optimiser = torch.optim.AdamW(
            segmenter.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        warm = max(config.warmup * config.steps, 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / warm, 1.0) * (1 - step / config.steps) ** 0.9
        )
        stream = _Stream(dataset, spec, torch.Generator().manual_seed(seed), device)
        loss = torch.zeros(())
        for _ in range(config.steps):
            batch = stream.take(config.batch_size)
            image, mask = segmenter.standardise(batch['image']), batch['mask']
            if augment is not None:
                image, mask = augment(image, mask)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                loss, _ = training_loss(
                    segmenter.model,
                    image,
                    mask,
                    spec.ignore_index,
                    class_weights,
                    batch.get('weight'),
                    config.edge_weight,
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f'{config.model} diverged: loss {float(loss.detach())} after {config.steps} steps; lower learning_rate '
            f'({config.learning_rate:g}), and check the patches for outliers'
        )
    return segmenter.eval()


def training_loss(
    model: nn.Module,
    image: Tensor,
    mask: Tensor,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    sample_weights: Tensor | None = None,
    edge_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a network, and the supervision of its edges where it predicts them (PFSegNet).

    Args:
        model: network from (n, C, H, W) to logits (n, K, H, W).
        image: (n, C, H, W) as the network takes it.
        mask: (n, H, W) int64.
        ignore_index: mask value of pixels that do not count.
        class_weights: (K,), or 1 for all.
        sample_weights: (n,), or 1 for all.
        edge_weight: of the supervision of edges.

    Returns:
        the loss, and the logits (n, K, H, W).
    """
    edges: list[Tensor] = []
    if isinstance(model, PFSegNet):
        logits, edges = model.forward_with_edges(image)
    else:
        logits = model(image)
    loss = segmentation_loss(logits.float(), mask, ignore_index, class_weights, sample_weights)
    if edges:
        loss = loss + edge_weight * edge_loss(edges, mask, ignore_index, sample_weights)
    return loss, logits


@torch.no_grad()
def predict_masks(model: nn.Module, image: Tensor, batch_size: int = 64) -> Tensor:
    """(N, H, W) int64 predicted classes of (N, C, H, W) images, on the CPU."""
    device = next(model.parameters()).device
    return torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in image.split(batch_size)])


class _Stream:
    """Batches without end: epoch after epoch of a dataset in random order."""

    def __init__(self, dataset: Any, spec: SampleSpec, rng: torch.Generator, device: torch.device) -> None:
        self.dataset, self.spec, self.rng, self.device = dataset, spec, rng, device
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.int64)
        self.held: dict[str, Tensor] | None = None

    def take(self, count: int) -> dict[str, Tensor]:
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
        batch = {key: batch[key] for key in ('image', 'mask', 'weight') if key in batch}
        _require_trainable(batch, self.spec)
        return {key: value.to(self.device) for key, value in batch.items()}


def _bytes(spec: SampleSpec, count: int) -> int:
    height, width = spec.size or (1, 1)
    return count * height * width * (4 * spec.bands + 8)


def _segmentation_spec(dataset: Any) -> SampleSpec:
    spec = getattr(dataset, 'spec', None)
    if not isinstance(spec, SampleSpec) or spec.kind != 'segmentation':
        raise ValueError(
            f"train_segmenter: a dataset with a spec of kind 'segmentation' expected, found {type(dataset).__name__} "
            f'with {f"kind {spec.kind!r}" if isinstance(spec, SampleSpec) else "no spec"}'
        )
    if len(dataset) == 0:
        raise ValueError(f'train_segmenter: {type(dataset).__name__} is empty')
    return spec


def _require_trainable(batch: dict[str, Tensor], spec: SampleSpec) -> None:
    """What would end in NaN, or in an assertion on the device, is said here."""
    bad = int((~torch.isfinite(batch['image']).flatten(1).all(dim=1)).sum())
    if bad:
        raise ValueError(
            f'train_segmenter: {bad} of {len(batch["image"])} patches hold values that are not finite; fill them'
        )
    mask = batch['mask'] if spec.ignore_index is None else batch['mask'][batch['mask'] != spec.ignore_index]
    if mask.numel() and not 0 <= int(mask.min()) <= int(mask.max()) < spec.num_classes:
        raise ValueError(
            f'train_segmenter: mask classes must lie in [0, {spec.num_classes}) or be ignore_index='
            f'{spec.ignore_index}, found [{int(mask.min())}, {int(mask.max())}]'
        )


def _fit(scaler: SpectralScaler, real: Any, spec: SampleSpec, weigh_classes: bool) -> Tensor | None:
    """Fit the scaling to real patches, evenly spaced ones where all are too many, and give class weights (K,)."""
    count = len(real)
    stride = -(-_bytes(spec, count) // HELD_BYTES)
    batch = fetch(real, np.arange(0, count, stride))
    _require_trainable(batch, spec)
    mask = batch['mask'][batch['mask'] != spec.ignore_index] if spec.ignore_index is not None else batch['mask']
    if mask.numel() == 0:
        raise ValueError(f'train_segmenter: every pixel of {len(batch["mask"])} real patches is ignored')
    scaler.fit(batch['image'].movedim(1, -1).reshape(-1, spec.bands))
    if not weigh_classes:
        return None
    pixels = torch.bincount(mask.reshape(-1), minlength=spec.num_classes).float()
    weights = pixels.clamp_min(1).rsqrt() * (pixels > 0)  # a class without a pixel has nothing to weigh
    return weights / (weights * pixels).sum() * pixels.sum()
