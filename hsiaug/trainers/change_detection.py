"""Training of a change-detection network for a fixed number of optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchgeo.models import FCSiamConc, FCSiamDiff

from ..losses.change import change_loss, multi_scale_loss
from ..models.changeformer import ChangeFormerV3, ChangeFormerV6
from ..models.siam_crnn import SiamCRNN
from ..models.siamese import AnySides
from ..samples import SampleSpec
from .classifier import predict
from .pixelwise import Augment, ImageTraining, Standardised, Weights, train_images

Model = Literal['changeformer-v3', 'changeformer-v6', 'siamcrnn', 'fcsiamdiff', 'fcsiamconc']
NETWORKS: dict[str, Any] = {
    'changeformer-v3': ChangeFormerV3,
    'changeformer-v6': ChangeFormerV6,
    'siamcrnn': SiamCRNN,
}
_TORCHGEO: dict[str, Any] = {'fcsiamdiff': FCSiamDiff, 'fcsiamconc': FCSiamConc}


class ChangeDetector(Standardised):
    """From pairs of dates (n, 2, C, H, W) in the dataset's unit to logits (n, K, H, W)."""


class PairAugmentation(nn.Module):
    """An augmentation of images (n, 2C, H, W) with masks (n, H, W), if any, for pairs of dates, as one picture each.

    With ``swap_dates`` the dates of half the pairs are exchanged, at random.
    """

    def __init__(self, augment: Augment | None, swap_dates: bool = False) -> None:
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


@dataclass(frozen=True)
class ChangeDetectorConfig(ImageTraining[ChangeDetector]):
    """A change-detection network and its training; the same for every arm of a study.

    For length, batches, learning rates and errors, see :class:`~hsiaug.trainers.pixelwise.ImageTraining`.

    Args:
        model: ``'changeformer-v3'``, ``'changeformer-v6'``, ``'siamcrnn'``, or torchgeo's ``'fcsiamdiff'`` and
            ``'fcsiamconc'``.
        encoder: ``'changeformer'``, ``'mit_tiny'``, ``'mit_b0'`` to ``'mit_b5'`` for ChangeFormer; ``'resnet18'``,
            ``'resnet101'``, ... for the others, and ``'resnet_tiny'`` for SiamCRNN; by default, ``'changeformer'`` or
            ``'resnet18'``.
        channels: width of the decoder; by default, the published one; fixed in torchgeo's networks.
        encoder_weights: ``'imagenet'`` or None.
        lovasz: weight of the Lovász loss added to the cross-entropy.
        swap_dates: exchange the dates of half the pairs at random. The change mask stays the same, but the network can
            no longer learn the direction of changes.
    """

    kind = 'change'
    takes_one = 'changeformer-v3'

    model: Model = 'changeformer-v3'
    encoder: str | None = None
    channels: int | None = None
    encoder_weights: str | None = None
    lovasz: float = 0.0
    swap_dates: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model in _TORCHGEO and self.channels is not None:
            raise ValueError(f'ChangeDetectorConfig: the width of {self.model!r} is fixed, found {self.channels}')

    def build(self, spec: SampleSpec) -> ChangeDetector:
        """The untrained network for samples of a spec."""
        encoder = self.encoder or ('changeformer' if self.model.startswith('changeformer') else 'resnet18')
        options: dict[str, Any] = {'encoder_weights': self.encoder_weights}
        if self.model in _TORCHGEO:
            options |= {'encoder_name': encoder, 'in_channels': spec.bands, 'classes': spec.num_classes}
            return ChangeDetector(AnySides(_TORCHGEO[self.model](**options), upsampling=self.upsampling), spec)
        options |= {'upsampling': self.upsampling} | ({} if self.channels is None else {'channels': self.channels})
        return ChangeDetector(NETWORKS[self.model](spec.bands, spec.num_classes, encoder, **options), spec)

    def loss(self, network: ChangeDetector, image: Tensor, target: Tensor, weights: Weights) -> Tensor:
        """See :func:`training_loss`."""
        return training_loss(network.model, image, target, network.spec.ignore_index, *weights, self.lovasz)

    def augmentation(self, spec: SampleSpec) -> PairAugmentation:
        """Of both dates as one picture."""
        return PairAugmentation(super().augmentation(spec), self.swap_dates)


train_change_detector = train_images


def training_loss(model: nn.Module, image: Tensor, mask: Tensor, *rest: Any) -> Tensor:
    """:func:`change_loss` of a network, and of its side outputs where it has them (ChangeFormer V6).

    The network is from (n, 2, C, H, W), images as it takes them, to logits (n, K, H, W); the other arguments are those
    of :func:`change_loss`.
    """
    if isinstance(model, ChangeFormerV6):
        logits, sides = model.forward_with_sides(image)
        return multi_scale_loss(logits.float(), [side.float() for side in sides], mask, *rest)
    return change_loss(model(image).float(), mask, *rest)


def predict_changes(model: nn.Module, image: Tensor, batch_size: int | None = None) -> Tensor:
    """(N, 1, H, W) int64 predicted changes of (N, 2, C, H, W) images, on the CPU."""
    return predict(model, image, batch_size)[:, None]
