"""Training of a classifier of images for a fixed number of optimiser steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from ..functional.plain import plain_torch
from ..models.scene_classifiers import SceneModel, scene_classifier
from ..samples import Sample
from ..settings import NOT_NEGATIVE, POSITIVE, SHARE, Range, check_settings
from .augmentation import Flips
from .classifier import predict
from .pixelwise import ImageTraining, Standardised, optimise, require_spec
from .supervised import seeded


@dataclass(frozen=True)
class SceneClassifierConfig(ImageTraining):
    """A classifier of images and its training; the same for every arm of a study.

    Its length, batches and rates are those of :class:`~hsiaug.trainers.pixelwise.ImageTraining`.

    Args:
        model: see :func:`~hsiaug.models.scene_classifiers.scene_classifier`.
        narrow: the same.
        dropout: before the last layers.

    Raises:
        ValueError: for an unknown choice or a number out of range.
    """

    model: SceneModel = 'cnn2d'
    narrow: int = 1
    dropout: float = 0.0
    steps: int = field(default=300, kw_only=True)
    batch_size: int = field(default=32, kw_only=True)
    augment: Literal['none', 'flips'] = field(default='none', kw_only=True)

    def __post_init__(self) -> None:
        check_settings(
            self, keep_best=NOT_NEGATIVE, batch_size=Range(2), learning_rate=POSITIVE, warmup=SHARE, dropout=SHARE
        )

    def build(self, bands: int, num_classes: int, size: tuple[int, int]) -> nn.Module:
        """The untrained network."""
        return scene_classifier(self.model, bands, num_classes, size, self.narrow, self.dropout, self.upsampling)


class FlippedScenes(nn.Module):
    """Flips and turns of images, whose labels stay."""

    def __init__(self) -> None:
        super().__init__()
        self.flips = Flips()

    def forward(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) and labels (n,), or ``label_prob`` (n, K)."""
        return self.flips(image, image[:, 0])[0], label  # a band stands in for the mask


@plain_torch()
def train_scene_classifier(
    dataset: Dataset[Sample],
    config: SceneClassifierConfig,
    seed: int = 0,
    device: str | torch.device = 'cpu',
    val: Dataset[Sample] | None = None,
) -> Standardised:
    """Train a classifier of images.

    Batches are those of a :class:`~hsiaug.engine.Stream`, equal for arms of any size. Standardisation and class weights
    come from the real images alone. The target is ``label_prob`` where samples have it, and where a batch has
    ``weight``, samples count with it.

    Args:
        dataset: real or mixed images of kind ``'scene'``, with a ``spec``.
        config: network and training.
        seed: of the initialisation, the order of the samples, dropout and augmentation; torch's global generators are
            left as they were.
        device: where to train.
        val: validation samples, for ``keep_best``.

    Returns:
        the network from images in the dataset's unit to logits (n, K), in evaluation mode, on ``device``.

    Raises:
        ValueError: if the dataset is empty, of another kind or without a spec, or holds values that are not finite or
            a class beyond the spec's.
        FloatingPointError: if training diverges.
    """
    spec, device = require_spec(dataset, 'scene'), torch.device(device)
    with seeded(seed, device):
        network = Standardised(config.build(spec.bands, spec.num_classes, spec.size or (1, 1)), spec)

        def loss_of(image: Tensor, target: Tensor, classes: Tensor | None, samples: Tensor | None) -> Tensor:
            return scene_loss(network.model(image), target, classes, samples)

        augment = FlippedScenes() if config.augment == 'flips' else None
        optimise(network, dataset, config, seed, device, augment, loss_of, val=val)
    return network


def scene_loss(
    logits: Tensor, target: Tensor, class_weights: Tensor | None = None, sample_weights: Tensor | None = None
) -> Tensor:
    """Weighted mean of the cross-entropy.

    Args:
        logits: (n, K).
        target: (n,) int64 labels, or (n, K) probabilities.
        class_weights: (K,), or 1 for all.
        sample_weights: (n,), or 1 for all. A sample of weight 0 is as good as left out.
    """
    losses = cross_entropy(logits.float(), target, weight=class_weights, reduction='none')
    weight = torch.ones_like(losses) if sample_weights is None else sample_weights.to(losses)
    if class_weights is None:
        each = weight
    else:  # a mean, whatever the weights
        each = weight * (class_weights[target] if target.ndim == 1 else target @ class_weights)
    return (losses * weight).sum() / each.sum().clamp_min(1e-12)


def predict_scenes(model: nn.Module, image: Tensor, batch_size: int = 256) -> Tensor:
    """(N,) int64 predicted labels of (N, C, H, W) images, on the CPU."""
    return predict(model, image, batch_size)
