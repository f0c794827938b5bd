"""Statistics of masks: class shares, neighbouring classes, and layout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, one_hot

_QUADRANTS, _CELLS = 2, 8  # cells along a side
_CHUNK = 256  # masks at a time


def class_indicators(mask: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """(n, K, H, W) float32 one-hot masks of (n, H, W) ones of any dtype, all zero where a pixel is ignored.

    Raises:
        ValueError: for a value that is neither a class nor ignored.
    """
    known = (mask >= 0) & (mask < num_classes)
    counts = known if ignore_index is None else known & (mask != ignore_index)
    wrong = mask[~known] if ignore_index is None else mask[~known & (mask != ignore_index)]
    if len(wrong):
        raise ValueError(
            f'masks must hold classes 0 to {num_classes - 1} or the ignore index {ignore_index}, found '
            f'{wrong.unique()[:5].tolist()}; map other values to the ignore index'
        )
    return one_hot(mask.where(counts, 0).long(), num_classes).movedim(-1, 1).float() * counts[:, None]


def class_shares(mask: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """(K,) float64 share of each class in all valid pixels of (n, H, W) masks; NaN if there are none."""
    counts = torch.zeros(num_classes, dtype=torch.float64)
    for some in mask.cpu().split(_CHUNK):
        counts += class_indicators(some, num_classes, ignore_index).sum(dim=(0, 2, 3), dtype=torch.float64)
    return counts / counts.sum()


def cooccurrence(mask: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """(K, K) float64 co-occurrence of neighbouring classes in (n, H, W) int64 masks.

    The share of valid 4-neighbour pairs in a patch that are of classes i and j; symmetric, adding up to one, NaN if
    there are no such pairs.
    """
    pairs = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for some in mask.cpu().split(_CHUNK):
        x = class_indicators(some, num_classes, ignore_index)
        for a, b in _neighbours(x):
            pairs += torch.einsum('nihw,njhw->ij', a, b).double()
    pairs = pairs + pairs.T
    return pairs / pairs.sum()


def total_variation(p: Tensor, q: Tensor) -> float:
    """Total variation distance of two distributions of the same shape, from 0 to 1."""
    return float((p - q).abs().sum() / 2)


def mask_features(mask: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """(n, 6 K) float64 fixed features of the layout of (n, H, W) int64 masks, for Fréchet distances of masks.

    For each class: its share in each quadrant (position); the standard deviation of its share over 8 x 8 cells
    (clustering); and the share of neighbouring pixel pairs on its border (scale). Only valid pixels are used; a
    quadrant
    without any gets the shares of the whole mask.
    """
    parts = [_layout(class_indicators(some, num_classes, ignore_index)) for some in mask.cpu().split(_CHUNK)]
    return torch.cat(parts) if parts else torch.zeros(0, 6 * num_classes, dtype=torch.float64)


def _layout(x: Tensor) -> Tensor:
    """(n, 6 K) features of (n, K, H, W) indicators."""
    x = x.double()
    counts = x.sum(dim=1, keepdim=True)
    whole = x.mean(dim=(2, 3)) / counts.mean(dim=(2, 3)).clamp_min(1e-12)

    def cells(side: int) -> tuple[Tensor, Tensor]:
        """(n, K, side²) shares, and (n, 1, side²) whether any pixel of a cell counts."""
        share, counted = adaptive_avg_pool2d(x, side).flatten(2), adaptive_avg_pool2d(counts, side).flatten(2)
        return (share / counted.clamp_min(1e-12)).where(counted > 0, whole[:, :, None]), counted > 0

    quadrants, _ = cells(_QUADRANTS)
    fine, known = cells(_CELLS)
    number = known.sum(dim=2).clamp_min(1)
    centred = (fine - (fine * known).sum(dim=2, keepdim=True) / number[:, :, None]) * known
    clumps = (centred.square().sum(dim=2) / number).sqrt()
    border, pairs = torch.zeros_like(whole), torch.zeros_like(whole[:, :1])
    for a, b in _neighbours(x):
        both = a.sum(dim=1, keepdim=True) * b.sum(dim=1, keepdim=True)
        border += ((a - b).abs() * both).sum(dim=(2, 3))
        pairs += both.sum(dim=(2, 3))
    return torch.cat([quadrants.flatten(1), clumps, border / pairs.clamp_min(1)], dim=1)


def _neighbours(x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Pixels of (..., H, W) and their neighbours above, and to the left."""
    return (x[..., 1:, :], x[..., :-1, :]), (x[..., 1:], x[..., :-1])
