"""Statistics of masks: how much of each class there is, which classes lie side by side, and how they are laid out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, one_hot

_QUADRANTS, _CELLS = 2, 8  # cells along a side
_CHUNK = 256  # masks at a time


def class_indicators(mask: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """(n, K, H, W) float32 one-hot masks of (n, H, W) int64 ones, all zero where a pixel does not count.

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
    return one_hot(mask.where(counts, 0), num_classes).movedim(-1, 1).float() * counts[:, None]


def class_shares(mask: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """(K,) float64 share of each class in all counting pixels of (n, H, W) masks; NaN where none counts."""
    counts = torch.zeros(num_classes, dtype=torch.float64)
    for some in mask.cpu().split(_CHUNK):
        counts += class_indicators(some, num_classes, ignore_index).sum(dim=(0, 2, 3), dtype=torch.float64)
    return counts / counts.sum()


def cooccurrence(mask: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """(K, K) float64, which classes lie side by side in (n, H, W) int64 masks.

    Share of the pairs of 4-neighbours in a patch, both counting, that are of classes i and j: symmetric, adding up to
    one, NaN where there is no such pair.
    """
    pairs = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for some in mask.cpu().split(_CHUNK):
        x = class_indicators(some, num_classes, ignore_index)
        for a, b in _neighbours(x):
            pairs += torch.einsum('nihw,njhw->ij', a, b).double()
    pairs = pairs + pairs.T
    return pairs / pairs.sum()


def total_variation(p: Tensor, q: Tensor) -> float:
    """Total variation distance of two distributions of one shape, 0 to 1: the share that would have to move."""
    return float((p - q).abs().sum() / 2)


def mask_features(mask: Tensor, num_classes: int, ignore_index: int | None = None) -> Tensor:
    """(n, 6 K) float64 fixed features of the layout of (n, H, W) int64 masks, for Fréchet distances of masks.

    Per class: its share in each quadrant, which is where things are; the standard deviation of its share over 8 x 8
    cells, which is how they clump; and the share of neighbouring pixel pairs on its border, which is how fine they
    are. Only pixels that count make these; a quadrant without one is given the shares of the whole mask.
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
