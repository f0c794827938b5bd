"""Losses of segmentation: cross-entropy with weights of classes and of samples, supervision of edges."""

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
    """Weighted mean of the cross-entropy over all pixels that count; 0 where none does.

    Args:
        logits: (n, K, H, W).
        mask: (n, H, W) int64.
        ignore_index: mask value of pixels that do not count.
        class_weights: (K,), or 1 for all.
        sample_weights: (n,), or 1 for all. A sample of weight 0 is as good as left out.
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

    Ignored pixels, and their neighbours, which may border on anything, are NaN unless an edge is certain.
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
    """Binary cross-entropy of edges (n, 1, H, W) predicted at each level, the mean over the levels.

    Those of masks (n, H, W) are :func:`edges_of`. Edges are rare, so that edge and no-edge pixels have equal weight in
    total; samples have weights (n,), or 1 each.
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
