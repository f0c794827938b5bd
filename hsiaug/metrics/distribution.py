"""Distances between two samples of a distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 128, seed: int = 0) -> Tensor:
    """Sliced Wasserstein distance of order 1 (Rabin et al. 2011; Bonneel et al. 2015).

    Args:
        a: (n, d) points.
        b: (m, d) points.
        directions: random directions that are averaged.
        seed: of the directions.

    Returns:
        () mean over directions of the one-dimensional distance ∫|F⁻¹_a − F⁻¹_b|, with the quantile functions taken
        at 256 levels where n and m differ.
    """
    rng = torch.Generator().manual_seed(seed)
    axes = torch.randn((a.shape[1], directions), generator=rng).to(a)
    axes = axes / axes.norm(dim=0)
    projected = [x @ axes for x in (a, b)]
    if len(a) == len(b):
        ordered = [p.sort(dim=0).values for p in projected]
    else:
        levels = ((torch.arange(256) + 0.5) / 256).to(a)
        ordered = [torch.quantile(p, levels, dim=0) for p in projected]
    return (ordered[0] - ordered[1]).abs().mean()
