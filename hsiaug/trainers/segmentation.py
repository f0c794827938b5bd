"""Training of a segmentation network for a fixed number of optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..functional.plain import plain_torch
from ..losses.segmentation import edge_loss, segmentation_loss
from ..models.auxiliary_bn import add_auxiliary_bn, drop_auxiliary_bn
from ..models.pfsegnet import PFSegNet
from ..models.segformer import SegFormer
from ..samples import Sample
from ..settings import NOT_NEGATIVE, POSITIVE, SHARE, Range, check_settings
from .augmentation import augmentation
from .classifier import predict
from .pixelwise import ImageTraining, Standardised, optimise, require_spec, require_weighable
from .supervised import seeded


@dataclass(frozen=True)
class SegmenterConfig(ImageTraining):
    """A segmentation network and its training; the same for every arm of a study.

    Its length, batches and rates are those of :class:`~hsiaug.trainers.pixelwise.ImageTraining`.

    Args:
        model: ``'segformer'`` or ``'pfsegnet'``.
        encoder: ``'mit_tiny'``, ``'mit_b0'`` to ``'mit_b5'`` of SegFormer; ``'resnet_tiny'``, ``'resnet18'``,
            ``'resnet50'``, ... of PFSegNet; None is ``'mit_b0'`` or ``'resnet50'``.
        mapping: a 1x1 convolution maps the bands to 3 channels first; otherwise the encoder takes all bands.
        channels: width of the decoder.
        encoder_weights: ``'imagenet'`` or None.
        edge_weight: of the supervision of edges, of PFSegNet.
        synthetic_weight: loss weight of synthetic samples, real ones having 1.
        auxiliary_bn: synthetic samples have a batch normalisation of their own while training; see
            :mod:`~hsiaug.models.auxiliary_bn`.

    Raises:
        ValueError: for an unknown choice or a number out of range.
    """

    model: Literal['segformer', 'pfsegnet'] = 'segformer'
    encoder: str | None = None
    mapping: bool = True
    channels: int = 256
    encoder_weights: str | None = None
    edge_weight: float = 1.0
    synthetic_weight: float = 1.0
    auxiliary_bn: bool = False

    def __post_init__(self) -> None:
        # Batch normalisation of PFSegNet's pyramid pooling sees one value per patch and channel.
        fewest = Range(2 if self.model == 'pfsegnet' else 1)
        check_settings(self, keep_best=NOT_NEGATIVE, batch_size=fewest, learning_rate=POSITIVE, warmup=SHARE)

    def build(self, bands: int, num_classes: int) -> nn.Module:
        """The untrained network."""
        options: dict[str, Any] = {'mapping': self.mapping, 'encoder_weights': self.encoder_weights}
        options['upsampling'] = self.upsampling
        if self.model == 'segformer':
            return SegFormer(bands, num_classes, self.encoder or 'mit_b0', decoder_channels=self.channels, **options)
        return PFSegNet(bands, num_classes, self.encoder or 'resnet50', channels=self.channels, **options)


class Segmenter(Standardised):
    """A segmentation network with the standardisation of its input inside.

    Args:
        model: network from standardised (n, C, H, W) to logits (n, K, H, W), with ``features``.
        spec: what it was trained on.
    """

    def features(self, image: Tensor) -> Tensor:
        """(n, D) spatial mean of what the last layer sees, of images (n, C, H, W) in the dataset's unit."""
        return self.model.features(self.standardise(image)).mean(dim=(-2, -1))  # type: ignore[operator]


@plain_torch()
def train_segmenter(
    dataset: Dataset[Sample],
    config: SegmenterConfig,
    seed: int = 0,
    device: str | torch.device = 'cpu',
    val: Dataset[Sample] | None = None,
) -> Segmenter:
    """Train a segmentation network on patches.

    Batches are those of a :class:`~hsiaug.engine.Stream`, equal for arms of any size. Standardisation and class weights
    come from the real patches alone. Where a batch has ``weight``, samples count with it.

    Args:
        dataset: real or mixed patches of kind ``'segmentation'``, with a ``spec``.
        config: network and training.
        seed: of the initialisation, the order of the samples, and augmentation; torch's global generators are left as
            they were.
        device: where to train.
        val: validation samples, for ``keep_best``.

    Returns:
        the network, in evaluation mode, on ``device``.

    Raises:
        ValueError: if the dataset is empty, of another kind or without a spec, holds values that are not finite, a
            class beyond the spec's, or no pixel that counts.
        FloatingPointError: if training diverges.
    """
    spec, device = require_spec(dataset, 'segmentation'), torch.device(device)
    require_weighable(dataset, config.augment, 'segmentation', config.synthetic_weight, config.auxiliary_bn)
    with seeded(seed, device):
        segmenter = Segmenter(config.build(spec.bands, spec.num_classes), spec)
        if config.auxiliary_bn:
            add_auxiliary_bn(segmenter)

        def loss_of(image: Tensor, mask: Tensor, classes: Tensor | None, samples: Tensor | None) -> Tensor:
            loss, _ = training_loss(
                segmenter.model, image, mask, spec.ignore_index, classes, samples, config.edge_weight
            )
            return loss

        augment = augmentation(config.augment, spec.size or (1, 1))
        optimise(segmenter, dataset, config, seed, device, augment, loss_of, config.synthetic_weight, val)
    return drop_auxiliary_bn(segmenter)


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


def predict_masks(model: nn.Module, image: Tensor, batch_size: int = 64) -> Tensor:
    """(N, H, W) int64 predicted classes of (N, ..., C, H, W) images, on the CPU."""
    return predict(model, image, batch_size)
