"""Semantic edits of masks: regions that become another class, in an exact amount."""

from __future__ import annotations

import torch
from scipy.ndimage import gaussian_filter
from scipy.ndimage import label as connected
from torch import Tensor

LEAST_PART = 1 / 3
"""Least part of what is still to change that one region takes, where it is large enough."""


def edit_masks(mask: Tensor, counts: Tensor, transitions: Tensor, rng: torch.Generator) -> Tensor:
    """Give connected regions of masks (n, H, W) other classes, in exactly ``counts`` (n,) pixels, on the CPU.

    A class that is there gives way with chances as in ``transitions`` (K, K), from one class to another and with zeros
    on the diagonal, at a random pixel of it: its region there becomes the other class, or, where it is too large, a
    part of it around the pixel. Regions that changed do so once. A mask that holds fewer pixels of a class changes in
    all that can; any other value stays. Draws are those of ``rng``, on the CPU.
    """
    weights = transitions.cpu().double()
    edited = mask.cpu().clone()
    for one, count in zip(edited, counts.tolist(), strict=True):
        free = (one >= 0) & (one < len(weights))
        while count > 0:
            held = torch.bincount(one[free], minlength=len(weights)) > 0
            chances = weights.sum(dim=1) * held
            if not chances.any():
                break
            old = int(torch.multinomial(chances, 1, generator=rng))
            new = int(torch.multinomial(weights[old], 1, generator=rng))
            part = LEAST_PART + (1 - LEAST_PART) * float(torch.rand((), generator=rng))
            region = _region(free & (one == old), max(round(part * count), 1), rng)
            one[region], free[region] = new, False
            count -= int(region.sum())
    return edited


def _region(available: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """(H, W) bool: the connected region of a random available pixel, the ``most`` pixels next to it if it is larger."""
    pixels = available.nonzero()
    row, column = pixels[torch.randint(len(pixels), (), generator=rng)].tolist()
    components, _ = connected(available.numpy())
    region = torch.from_numpy(components == components[row, column])
    if int(region.sum()) <= most:
        return region
    # the outline of a part: a disc that a smooth field dents
    dents = torch.from_numpy(gaussian_filter(torch.randn(region.shape, generator=rng).numpy(), 2.0))
    rows, columns = (torch.arange(side) for side in region.shape)
    distance = torch.hypot((rows - row)[:, None].float(), (columns - column)[None, :].float())
    distance = distance * (1 + 2 * dents).clamp_min(0.2)
    order = distance.masked_fill(~region, torch.inf).flatten().argsort()
    return torch.zeros(region.numel(), dtype=torch.bool).index_fill(0, order[:most], True).reshape(region.shape)
