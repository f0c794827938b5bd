"""Orientations of images and their masks: eight of a square, four of a rectangle."""

from __future__ import annotations

import torch
from torch import Tensor

from .devices import sent

ORIENTATIONS = 8


def orientations(height: int, width: int) -> tuple[int, ...]:
    """The numbers of those that keep the sides."""
    return tuple(range(0, ORIENTATIONS, 1 if height == width else 2))


def turn(x: Tensor, number: int) -> Tensor:
    """(..., H, W) in one orientation: quarter turns, then a flip from 4 on."""
    x = torch.rot90(x, number % 4, dims=(-2, -1))
    return x.flip(-1) if number >= 4 else x


def any_orientation(x: Tensor, rng: torch.Generator) -> Tensor:
    """Each of (n, ..., H, W) in a random orientation that keeps its sides."""
    coins = sent(torch.rand((3, len(x)), generator=rng, device=rng.device).lt(0.5), x.device)
    down, right, across = coins.view(3, -1, *[1] * (x.ndim - 1))
    x = torch.where(down, x.flip(-2), x)
    x = torch.where(right, x.flip(-1), x)
    return torch.where(across, x.mT, x) if x.shape[-1] == x.shape[-2] else x
