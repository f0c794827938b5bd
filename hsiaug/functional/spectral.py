"""Distances between spectra."""

from __future__ import annotations

import torch
from torch import Tensor


def spectral_angle(a: Tensor, b: Tensor, dim: int = -1) -> Tensor:
    """Angle between spectra, blind to illumination (Kruse et al. 1993).

    Args:
        a: spectra, bands along ``dim``.
        b: the same shape, or one that broadcasts to it.
        dim: the band dimension.

    Returns:
        Radians in [0, π], without ``dim``. The angle of a zero spectrum to anything is π/2, not NaN. Computed as
        2·atan2(‖u−v‖, ‖u+v‖) of the unit vectors, which keeps its precision and its gradient at small angles, where
        arccos has neither.
    """
    u = torch.nn.functional.normalize(a, dim=dim)
    v = torch.nn.functional.normalize(b, dim=dim)
    return 2 * torch.atan2(torch.linalg.vector_norm(u - v, dim=dim), torch.linalg.vector_norm(u + v, dim=dim))
