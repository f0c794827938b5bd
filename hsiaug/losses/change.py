"""Losses of change detection: cross-entropy, Lovász, side outputs, and torchgeo's binary one with ignored pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from .segmentation import UNUSED, pixel_weights, segmentation_loss

SIDE_WEIGHTS = (0.5, 0.5, 0.5, 0.8)
"""Of the side outputs of ChangeFormer V6, coarse to fine, besides 1 for its logits; those of the published code."""


def change_loss(
    logits: Tensor,
    mask: Tensor,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    sample_weights: Tensor | None = None,
    lovasz: float = 0.0,
) -> Tensor:
    """:func:`segmentation_loss` of masks (n, 1, H, W), plus ``lovasz`` times :func:`lovasz_loss`.

    For the other arguments, see :mod:`hsiaug.losses.segmentation`. The published code of SiamCRNN has ``lovasz`` 0.75.
    """
    loss = segmentation_loss(logits, mask[:, 0], ignore_index, class_weights, sample_weights)
    if lovasz:
        loss = loss + lovasz * lovasz_loss(logits, mask, ignore_index, sample_weights)
    return loss


def multi_scale_loss(logits: Tensor, sides: Sequence[Tensor], mask: Tensor, *rest: Any, **options: Any) -> Tensor:
    """:func:`change_loss` of the logits, and of four such side outputs, coarse to fine, with :data:`SIDE_WEIGHTS`.

    The other arguments are those of :func:`change_loss`.
    """
    loss = change_loss(logits, mask, *rest, **options)
    for weight, side in zip(SIDE_WEIGHTS, sides, strict=True):
        loss = loss + weight * change_loss(side, mask, *rest, **options)
    return loss


def lovasz_loss(
    logits: Tensor, mask: Tensor, ignore_index: int | None = None, sample_weights: Tensor | None = None
) -> Tensor:
    """Lovász extension of 1 - IoU, mean over the classes that occur; 0 if all pixels are ignored.

    Berman, Triki & Blaschko (2018), The Lovász-softmax loss, https://arxiv.org/abs/1705.08790. The IoU is that of the
    whole batch, with pixels weighted by their sample's weight (n,), which segmentation-models-pytorch does not support.
    Logits are (n, K, H, W), masks (n, 1, H, W).
    """
    counts = mask[:, 0] != (UNUSED if ignore_index is None else ignore_index)
    weight = pixel_weights(counts, sample_weights, logits.dtype)
    counts = weight > 0
    probability, target, weight = logits.softmax(dim=1).movedim(1, -1)[counts], mask[:, 0][counts], weight[counts]
    losses = []
    for label in target.unique().tolist():
        own = (target == label).to(logits.dtype)
        errors, order = (own - probability[:, label]).abs().sort(descending=True)
        inside, outside = (weight * own)[order], (weight * (1 - own))[order]
        total = inside.sum()
        # 1 - IoU of a prediction that is wrong in the pixels with the largest errors: in the first, the first two, ...
        distance = 1 - (total - inside.cumsum(0)) / (total + outside.cumsum(0))
        losses.append(errors @ distance.diff(prepend=distance.new_zeros(1)))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


class BinaryChangeLoss(nn.BCEWithLogitsLoss):
    """Binary cross-entropy of single logits, as in torchgeo, with ignored pixels and sample weights.

    ``pos_weight``, the weight of changed pixels, is that of :class:`torch.nn.BCEWithLogitsLoss`.
    """

    def __init__(self, ignore_index: int | None = None, pos_weight: Tensor | None = None) -> None:
        super().__init__(pos_weight=pos_weight)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, mask: Tensor, sample_weights: Tensor | None = None) -> Tensor:
        """Mean over the valid pixels of (n, 1, H, W), weighted by (n,) sample weights; 0 if there are none."""
        counts = torch.ones_like(mask, dtype=torch.bool) if self.ignore_index is None else mask != self.ignore_index
        weight = pixel_weights(counts, sample_weights, logits.dtype)
        target = mask.to(logits.dtype)
        pixels = binary_cross_entropy_with_logits(logits, target, pos_weight=self.pos_weight, reduction='none')
        return (weight * pixels).sum() / weight.sum().clamp_min(1e-12)
