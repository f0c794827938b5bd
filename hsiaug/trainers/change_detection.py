"""Training of a change-detection network for a fixed number of optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchgeo.models import FCSiamConc, FCSiamDiff

from ..functional.plain import plain_torch
from ..losses.change import change_loss, multi_scale_loss
from ..models.changeformer import ChangeFormerV3, ChangeFormerV6
from ..models.siam_crnn import SiamCRNN
from ..models.siamese import AnySides
from ..samples import Sample
from ..settings import NOT_NEGATIVE, POSITIVE, SHARE, Range, check_settings
from .augmentation import augmentation
from .pixelwise import ImageTraining, Standardised, optimise, require_spec, require_weighable
from .segmentation import predict_masks
from .supervised import seeded

Model = Literal['changeformer-v3', 'changeformer-v6', 'siamcrnn', 'fcsiamdiff', 'fcsiamconc']
NETWORKS: dict[str, Any] = {
    'changeformer-v3': ChangeFormerV3,
    'changeformer-v6': ChangeFormerV6,
    'siamcrnn': SiamCRNN,
}
_TORCHGEO: dict[str, Any] = {'fcsiamdiff': FCSiamDiff, 'fcsiamconc': FCSiamConc}


@dataclass(frozen=True)
class ChangeDetectorConfig(ImageTraining):
    """A change-detection network and its training; the same for every arm of a study.

    Its length, batches and rates are those of :class:`~hsiaug.trainers.pixelwise.ImageTraining`.

    Args:
        model: ``'changeformer-v3'``, ``'changeformer-v6'``, ``'siamcrnn'``; torchgeo's ``'fcsiamdiff'`` and
            ``'fcsiamconc'``.
        encoder: ``'changeformer'``, ``'mit_tiny'``, ``'mit_b0'`` to ``'mit_b5'`` of ChangeFormer; ``'resnet18'``,
            ``'resnet101'``, ... of the others, and ``'resnet_tiny'`` of SiamCRNN; None is ``'changeformer'`` or
            ``'resnet18'``.
        channels: width of the decoder, the published one if None; that of torchgeo's networks is fixed.
        encoder_weights: ``'imagenet'`` or None.
        lovasz: weight of the Lovász loss added to the cross-entropy.
        swap_dates: exchange the dates of half the pairs, at random. What has changed stays changed, but a network
            that may learn the direction of a change no longer can.

    Raises:
        ValueError: for an unknown choice or a number out of range.
    """

    model: Model = 'changeformer-v3'
    encoder: str | None = None
    channels: int | None = None
    encoder_weights: str | None = None
    lovasz: float = 0.0
    swap_dates: bool = False

    def __post_init__(self) -> None:
        # Batch normalisation at the coarsest scale sees one value per pair and channel.
        fewest = Range(1 if self.model == 'changeformer-v3' else 2)
        check_settings(self, keep_best=NOT_NEGATIVE, batch_size=fewest, learning_rate=POSITIVE, warmup=SHARE)
        if self.model in _TORCHGEO and self.channels is not None:
            raise ValueError(f'ChangeDetectorConfig: the width of {self.model!r} is fixed, found {self.channels}')

    def build(self, bands: int, num_classes: int = 2) -> nn.Module:
        """The untrained network."""
        encoder = self.encoder or ('changeformer' if self.model.startswith('changeformer') else 'resnet18')
        if self.model in _TORCHGEO:
            network = _TORCHGEO[self.model](
                encoder_name=encoder, encoder_weights=self.encoder_weights, in_channels=bands, classes=num_classes
            )
            return AnySides(network, upsampling=self.upsampling)
        options: dict[str, Any] = {'encoder_weights': self.encoder_weights, 'upsampling': self.upsampling}
        if self.channels is not None:
            options['channels'] = self.channels
        return NETWORKS[self.model](bands, num_classes, encoder, **options)


class ChangeDetector(Standardised):
    """A change-detection network with the standardisation of its input inside.

    Args:
        model: network from standardised (n, 2, C, H, W) to logits (n, 2, H, W).
        spec: what it was trained on.
    """


class PairAugmentation(nn.Module):
    """An augmentation of images with masks, and a swap of dates, for pairs of dates.

    Args:
        augment: of (n, 2C, H, W) and (n, H, W), in which both dates are one picture; None for none.
        swap_dates: exchange the dates of half the pairs, at random.
    """

    def __init__(self, augment: nn.Module | None, swap_dates: bool = False) -> None:
        super().__init__()
        self.augment, self.swap_dates = augment, swap_dates

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 2, C, H, W) and masks (n, 1, H, W)."""
        if self.augment is not None:
            flat, turned = self.augment(image.flatten(1, 2), mask[:, 0])
            image, mask = flat.unflatten(1, (2, -1)), turned[:, None]
        if self.swap_dates:
            # Drawn on the CPU: a seed means the same everywhere.
            swap = (torch.rand(len(image)) < 0.5).to(image.device, non_blocking=True)
            image = torch.where(swap[:, None, None, None, None], image.flip(1), image)
        return image, mask


@plain_torch()
def train_change_detector(
    dataset: Dataset[Sample],
    config: ChangeDetectorConfig,
    seed: int = 0,
    device: str | torch.device = 'cpu',
    val: Dataset[Sample] | None = None,
) -> ChangeDetector:
    """Train a change-detection network on pairs of dates.

    Batches are those of a :class:`~hsiaug.engine.Stream`, equal for arms of any size. Standardisation, one for both
    dates, and class weights come from the real pairs alone. Where a batch has ``weight``, samples count with it.

    Args:
        dataset: real or mixed pairs of kind ``'change'``, with a ``spec``.
        config: network and training.
        seed: of the initialisation, the order of the samples, and augmentation; torch's global generators are left as
            they were.
        device: where to train.
        val: validation samples, for ``keep_best``.

    Returns:
        the network, in evaluation mode, on ``device``.

    Raises:
        ValueError: if the dataset is empty, of another kind or without a spec, holds values that are not finite, a
            mask value beyond the spec's classes, no pixel that counts, or none that has changed.
        FloatingPointError: if training diverges.
    """
    spec, device = require_spec(dataset, 'change'), torch.device(device)
    require_weighable(dataset, config.augment, 'change')
    with seeded(seed, device):
        detector = ChangeDetector(config.build(spec.bands, spec.num_classes), spec)

        def loss_of(image: Tensor, mask: Tensor, classes: Tensor | None, samples: Tensor | None) -> Tensor:
            return training_loss(detector.model, image, mask, spec.ignore_index, classes, samples, config.lovasz)

        augment = PairAugmentation(augmentation(config.augment, spec.size or (1, 1)), config.swap_dates)
        optimise(detector, dataset, config, seed, device, augment, loss_of, val=val)
    return detector


def training_loss(
    model: nn.Module,
    image: Tensor,
    mask: Tensor,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    sample_weights: Tensor | None = None,
    lovasz: float = 0.0,
) -> Tensor:
    """Loss of a network, and of its side outputs where it has them (ChangeFormer V6).

    Args:
        model: network from (n, 2, C, H, W) to logits (n, K, H, W).
        image: (n, 2, C, H, W) as the network takes it.
        mask: (n, 1, H, W) int64.
        ignore_index: mask value of pixels that do not count.
        class_weights: (K,), or 1 for all.
        sample_weights: (n,), or 1 for all.
        lovasz: weight of the Lovász loss.
    """
    options = (mask, ignore_index, class_weights, sample_weights, lovasz)
    if isinstance(model, ChangeFormerV6):
        logits, sides = model.forward_with_sides(image)
        return multi_scale_loss(logits.float(), [side.float() for side in sides], *options)
    return change_loss(model(image).float(), *options)


def predict_changes(model: nn.Module, image: Tensor, batch_size: int = 64) -> Tensor:
    """(N, 1, H, W) int64 predicted changes of (N, 2, C, H, W) images, on the CPU."""
    return predict_masks(model, image, batch_size)[:, None]
