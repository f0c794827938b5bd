"""Training of a classifier of images for a fixed number of optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..models.scene_classifiers import SceneModel, scene_classifier
from ..samples import SampleSpec
from .classifier import predict
from .pixelwise import Augment, ImageTraining, Standardised, Weights, train_images


@dataclass(frozen=True)
class SceneClassifierConfig(ImageTraining[Standardised]):
    """A classifier of images and its training; the same for every arm of a study.

    For length, batches, learning rates and errors, see :class:`~hsiaug.trainers.pixelwise.ImageTraining`.

    Args:
        model: see :func:`~hsiaug.models.scene_classifiers.scene_classifier`.
        narrow: see :func:`~hsiaug.models.scene_classifiers.scene_classifier`.
        dropout: dropout before the last layers.
    """

    kind = 'scene'

    model: SceneModel = 'cnn2d'
    narrow: int = 1
    dropout: float = 0.0
    steps: int = field(default=300, kw_only=True)
    batch_size: int = field(default=32, kw_only=True)
    augment: Literal['none', 'flips'] = field(default='none', kw_only=True)

    def build(self, spec: SampleSpec) -> Standardised:
        """The untrained network for samples of a spec."""
        rest = spec.size or (1, 1), self.narrow, self.dropout, self.upsampling
        return Standardised(scene_classifier(self.model, spec.bands, spec.num_classes, *rest), spec)

    def loss(self, network: Standardised, image: Tensor, target: Tensor, weights: Weights) -> Tensor:
        """See :func:`scene_loss`."""
        return scene_loss(network.model(image), target, *weights)

    def augmentation(self, spec: SampleSpec) -> Augment | None:
        """Flips and turns of images, whose labels stay; a band stands in for the mask."""
        flips = super().augmentation(spec)
        return None if flips is None else lambda image, label: (flips(image, image[:, 0])[0], label)


train_scene_classifier = train_images
predict_scenes = predict


def scene_loss(
    logits: Tensor, target: Tensor, class_weights: Tensor | None = None, sample_weights: Tensor | None = None
) -> Tensor:
    """Weighted mean of the cross-entropy of logits (n, K).

    Targets are labels (n,) int64 or probabilities (n, K). Classes (K,) and samples (n,) have a weight of 1 if none is
    given; a sample of weight 0 is as good as left out.
    """
    losses = cross_entropy(logits.float(), target, weight=class_weights, reduction='none')
    weight = torch.ones_like(losses) if sample_weights is None else sample_weights.to(losses)
    if class_weights is None:
        each = weight
    else:  # a mean, whatever the weights
        each = weight * (class_weights[target] if target.ndim == 1 else target @ class_weights)
    return (losses * weight).sum() / each.sum().clamp_min(1e-12)
