"""Training of a segmentation network for a fixed number of optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ..losses.segmentation import edge_loss, segmentation_loss
from ..models.pfsegnet import PFSegNet
from ..models.segformer import SegFormer
from ..samples import SampleSpec
from .classifier import predict
from .pixelwise import ImageTraining, Standardised, Weights, train_images


class Segmenter(Standardised):
    """A segmentation network, with ``features``, and the standardisation of its input inside."""

    def features(self, image: Tensor) -> Tensor:
        """(n, D) spatial mean of what the last layer sees, of images (n, C, H, W) in the dataset's unit."""
        return self.model.features(self.standardise(image)).mean(dim=(-2, -1))  # type: ignore[operator]


@dataclass(frozen=True)
class SegmenterConfig(ImageTraining[Segmenter]):
    """A segmentation network and its training; the same for every arm of a study.

    For length, batches, learning rates and errors, see :class:`~hsiaug.trainers.pixelwise.ImageTraining`.

    Args:
        model: ``'segformer'`` or ``'pfsegnet'``.
        encoder: ``'mit_tiny'``, ``'mit_b0'`` to ``'mit_b5'`` for SegFormer; ``'resnet_tiny'``, ``'resnet18'``,
            ``'resnet50'``, ... for PFSegNet; by default, ``'mit_b0'`` or ``'resnet50'``.
        mapping: map the bands to 3 channels with a 1x1 convolution first; otherwise the encoder takes all bands.
        channels: width of the decoder.
        encoder_weights: ``'imagenet'`` or None.
        edge_weight: weight of the edge loss of PFSegNet.
        synthetic_weight: loss weight of synthetic samples; that of real ones is 1.
        auxiliary_bn: use a separate batch normalisation for synthetic samples in training; see
            :mod:`~hsiaug.models.auxiliary_bn`.
    """

    kind = 'segmentation'
    takes_one = 'segformer'

    model: Literal['segformer', 'pfsegnet'] = 'segformer'
    encoder: str | None = None
    mapping: bool = True
    channels: int = 256
    encoder_weights: str | None = None
    edge_weight: float = 1.0
    synthetic_weight: float = 1.0
    auxiliary_bn: bool = False

    def build(self, spec: SampleSpec) -> Segmenter:
        """The untrained network for samples of a spec."""
        rest: dict[str, Any] = {'encoder_weights': self.encoder_weights, 'upsampling': self.upsampling}
        network = (
            SegFormer(spec.bands, spec.num_classes, self.encoder or 'mit_b0', self.mapping,
                      decoder_channels=self.channels, **rest)
            if self.model == 'segformer'
            else PFSegNet(spec.bands, spec.num_classes, self.encoder or 'resnet50', self.mapping,
                          channels=self.channels, **rest)
        )  # fmt: skip
        return Segmenter(network, spec)

    def loss(self, network: Segmenter, image: Tensor, target: Tensor, weights: Weights) -> Tensor:
        """See :func:`training_loss`."""
        return training_loss(network.model, image, target, network.spec.ignore_index, *weights, self.edge_weight)[0]


train_segmenter = train_images
predict_masks = predict


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

    Returns the logits (n, K, H, W), too, of images (n, C, H, W) as the network takes them. For weights and
    ``ignore_index`` see :func:`~hsiaug.losses.segmentation.segmentation_loss`.
    """
    logits, edges = model.forward_with_edges(image) if isinstance(model, PFSegNet) else (model(image), [])
    loss = segmentation_loss(logits.float(), mask, ignore_index, class_weights, sample_weights)
    if edges:
        loss = loss + edge_weight * edge_loss(edges, mask, ignore_index, sample_weights)
    return loss, logits
