"""The simplex, on which abundances lie: not negative, adding up to one."""

from __future__ import annotations

import torch
from torch import Tensor


def project_simplex(x: Tensor, dim: int = 1) -> Tensor:
    """The nearest point of the simplex, by Euclidean distance.

    Held, Wolfe and Crowder, "Validation of subgradient optimization", Mathematical Programming 1974: the point is
    max(x − θ, 0) with the θ that makes it add up to one, found by sorting.

    Args:
        x: any shape, finite.
        dim: along which values add up to one.

    Returns:
        the same shape; a point of the simplex comes back as it is, up to rounding.
    """
    falling = x.sort(dim=dim, descending=True).values
    excess = falling.cumsum(dim) - 1
    shape = [-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)]
    count = torch.arange(1, x.shape[dim] + 1, device=x.device).view(shape)
    kept = (falling * count > excess).sum(dim=dim, keepdim=True)
    theta = excess.gather(dim, kept - 1) / kept
    return (x - theta).clamp_min(0)
