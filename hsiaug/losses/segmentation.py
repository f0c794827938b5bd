"""Segmentation losses: cross-entropy with class and sample weights, and edge supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, max_pool2d

UNUSED = -100
"""Used as ignore index where there is none."""


def segmentation_loss(
    logits: Tensor,
    mask: Tensor,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Weighted mean of the cross-entropy over all valid pixels; 0 if there are none.

    Args:
        logits: (n, K, H, W).
        mask: (n, H, W) int64.
        ignore_index: mask value of pixels to ignore.
        class_weights: (K,); by default, 1 for all.
        sample_weights: (n,); by default, 1 for all. A sample with weight 0 has no influence.
    """
    ignored = UNUSED if ignore_index is None else ignore_index
    if sample_weights is None and class_weights is None:
        total = cross_entropy(logits, mask, ignore_index=ignored, reduction='sum')
        return total / (mask != ignored).sum().clamp_min(1)
    counts = mask != ignored
    weight = pixel_weights(counts, sample_weights, logits.dtype)
    if class_weights is not None:
        weight = weight * class_weights.to(logits.dtype)[mask.where(counts, 0)]
    pixels = cross_entropy(logits, mask, ignore_index=ignored, reduction='none')
    return (weight * pixels).sum() / weight.sum().clamp_min(1e-12)


def pixel_weights(counts: Tensor, sample_weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weights of pixels (n, ..., H, W): that of their sample (n,), or 1, where bool says that they count, else 0."""
    weight = counts.to(dtype)
    return weight if sample_weights is None else weight * sample_weights.to(dtype).view(-1, *[1] * (counts.ndim - 1))


def edges_of(mask: Tensor, ignore_index: int | None = None) -> Tensor:
    """(n, H, W) float32 edges of masks (n, H, W): 1 where the 3x3 neighbourhood holds another class.

    Ignored pixels and their neighbours are NaN unless an edge is certain, since ignored pixels may be of any class.
    """
    ignored = torch.zeros_like(mask, dtype=torch.bool) if ignore_index is None else mask == ignore_index
    value = mask.to(torch.float32)[:, None]
    highest = max_pool2d(value.masked_fill(ignored[:, None], -torch.inf), 3, 1, 1)
    lowest = -max_pool2d(-value.masked_fill(ignored[:, None], torch.inf), 3, 1, 1)
    edge = (highest > lowest)[:, 0].to(torch.float32)
    near = max_pool2d(ignored[:, None].to(torch.float32), 3, 1, 1)[:, 0] > 0
    return edge.masked_fill(ignored | (near & (edge == 0)), torch.nan)


def edge_loss(
    edge_logits: Sequence[Tensor], mask: Tensor, ignore_index: int | None = None, sample_weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of predicted edges (n, 1, H, W), mean over the levels.

    The targets are :func:`edges_of` masks (n, H, W). As edges are rare, edge and other pixels have equal total weight;
    samples have weights (n,), by default 1.
    """
    target = edges_of(mask, ignore_index)
    weight = pixel_weights(~target.isnan(), sample_weights, torch.float32)
    target = target.nan_to_num(0.0)
    halves = [part / part.sum().clamp_min(1e-12) for part in (weight * target, weight * (1 - target))]
    weight = (halves[0] + halves[1]) / 2
    losses = [
        (weight * binary_cross_entropy_with_logits(logits[:, 0].float(), target, reduction='none')).sum()
        for logits in edge_logits
    ]
    return torch.stack(losses).mean()
