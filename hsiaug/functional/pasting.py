"""Pasting of regions of one image into another, with their labels, for generators of images with masks.

Whatever the shape of the regions, each pixel of a donor is pasted with probability one half on average. If hosts and
donors are drawn in the same way, the result therefore has their class shares, including the share of change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import generate_binary_structure
from scipy.ndimage import label as connected
from torch import Tensor

from .devices import sent
from .orientations import any_orientation

Regions = Literal['smooth', 'box', 'class', 'components']
Pair = tuple[Tensor, Tensor]


def paste_regions(
    host: Pair, donor: Pair, regions: Regions, classes: int, rng: torch.Generator, shift: bool = True
) -> Pair:
    """Paste regions of donors into hosts. Both are first rotated, flipped and shifted, independently of each other.

    Args:
        host: images (n, C, H, W) and masks (n, H, W).
        donor: images and masks of the same size, from which regions are pasted.
        regions: see :func:`smooth_regions`, :func:`box_regions`, :func:`class_regions`, :func:`component_regions`.
        classes: number of classes; other values in masks are ignored pixels.
        rng: CPU generator of the draws.
        shift: whether to shift the images.

    Returns:
        images (n, C, H, W) and masks (n, H, W).
    """
    if len(host[1]) == 0:  # of which there is no Fourier transform
        return host
    (image, mask), (pasted, labels) = (turned(*pair, rng) for pair in (host, donor))
    if shift:
        (image, mask), (pasted, labels) = (shifted(*pair, rng) for pair in ((image, mask), (pasted, labels)))
    count, size = len(mask), (mask.shape[-2], mask.shape[-1])
    if regions == 'smooth':
        where = smooth_regions(torch.rand(count, generator=rng), size, rng)
    elif regions == 'box':
        where = box_regions(torch.rand(count, generator=rng), size, rng)
    else:
        where = (class_regions if regions == 'class' else component_regions)(labels.cpu(), classes, rng)
    return pasted_where(sent(where, mask.device), (image, mask), (pasted, labels))


def pasted_where(where: Tensor, host: Pair, donor: Pair) -> Pair:
    """Images (n, C, H, W) and masks (n, H, W) of hosts, those of donors where (n, H, W) bool says so."""
    return torch.where(where[:, None], donor[0], host[0]), torch.where(where, donor[1], host[1])


def turned(image: Tensor, mask: Tensor, rng: torch.Generator) -> Pair:
    """Images (n, C, H, W) and masks (n, H, W), each pair flipped and, if square, turned by 90 degrees at random."""
    place = torch.arange(mask[0].numel(), device=mask.device).view(mask.shape[1:]).expand(mask.shape)
    return _taken(image, mask, any_orientation(place, rng))


def shifted(image: Tensor, mask: Tensor, rng: torch.Generator) -> Pair:
    """Images (n, C, H, W) and masks (n, H, W), each pair shifted cyclically at random."""
    count, height, width = mask.shape
    rows, columns = (
        sent((torch.randint(length, (count, 1), generator=rng) + torch.arange(length)) % length, mask.device)
        for length in (height, width)
    )
    return _taken(image, mask, rows[:, :, None] * width + columns[:, None, :])


def _taken(image: Tensor, mask: Tensor, place: Tensor) -> Pair:
    """The pixels that (n, H, W) ``place`` numbers."""
    place = place.flatten(1)
    of_bands = place[:, None].expand(-1, image.shape[1], -1)
    return image.flatten(2).gather(2, of_bands).view_as(image), mask.flatten(1).gather(1, place).view_as(mask)


def smooth_regions(area: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """(n, H, W) bool: where smooth random fields are lowest.

    Gaussian noise, filtered by a Gaussian and cut at a quantile, as in French et al., "Milking CowMask for
    Semi-Supervised Image Classification", 2020, https://arxiv.org/abs/2003.12022. The filter's standard deviation is
    log-uniform between a sixteenth and a quarter of the shorter side.

    Args:
        area: (n,) share of the pixels inside, in [0, 1].
        size: (H, W).
        rng: CPU generator of the noise.
    """
    height, width = size
    sigma = min(size) * 2 ** (2 * torch.rand((len(area), 1, 1), generator=rng) - 4)
    squared = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2
    noise = torch.randn((len(area), height, width), generator=rng)
    field = torch.fft.irfft2(torch.fft.rfft2(noise) * torch.exp(-2 * (math.pi * sigma) ** 2 * squared), s=size)
    rank = field.flatten(1).argsort(dim=1).argsort(dim=1)
    return (rank < (area * height * width).round()[:, None]).reshape(noise.shape)


def box_regions(area: Tensor, size: tuple[int, int], rng: torch.Generator | None = None) -> Tensor:
    """(n, H, W) bool: boxes of the image's proportions, anywhere in it.

    Yun et al. (2019), CutMix, https://arxiv.org/abs/1905.04899; for masks French et al. (2020),
    https://arxiv.org/abs/1906.01916.

    Args:
        area: (n,) share of the pixels inside, in [0, 1].
        size: (H, W).
        rng: CPU generator of the places; torch's global one if None.
    """
    return boxes([(area.sqrt() * length).round() for length in size], size, rng)


def boxes(sides: Sequence[Tensor], size: tuple[int, int], rng: torch.Generator | None = None) -> Tensor:
    """(n, H, W) bool: boxes of such heights (n,) and widths (n,) in pixels, anywhere in an image of ``size`` (H, W)."""
    inside = torch.ones(len(sides[0]), 1, 1, dtype=torch.bool)
    for side, length, shape in zip(sides, size, ((-1, size[0], 1), (-1, 1, size[1])), strict=True):
        start = (torch.rand(len(side), generator=rng) * (length - side + 1)).floor()
        place = torch.arange(length)
        inside = inside & ((place >= start[:, None]) & (place < (start + side)[:, None])).reshape(shape)
    return inside


def class_regions(mask: Tensor, classes: int, rng: torch.Generator) -> Tensor:
    """(n, H, W) bool: all pixels of half of the classes of each mask; an odd number is rounded up or down.

    Olsson et al., "ClassMix", WACV 2021, https://arxiv.org/abs/2007.07936. Ignored pixels are in no region.

    Args:
        mask: (n, H, W) int64.
        classes: number of classes.
        rng: CPU generator of the choice.
    """
    counts = (mask >= 0) & (mask < classes)
    label = mask.where(counts, 0)
    present = torch.stack([((label == k) & counts).flatten(1).any(dim=1) for k in range(classes)], dim=1)
    score = torch.rand((len(mask), classes), generator=rng).where(present, 2.0)
    half = (present.sum(dim=1) + torch.randint(2, (len(mask),), generator=rng)) // 2
    chosen = score.argsort(dim=1).argsort(dim=1) < half[:, None]
    return chosen.gather(1, label.flatten(1)).reshape(mask.shape) & counts


def component_regions(mask: Tensor, classes: int, rng: torch.Generator) -> Tensor:
    """(n, H, W) bool: connected components of the classes of each mask, each with probability one half.

    Args:
        mask: (n, H, W) int64.
        classes: number of classes; ignored pixels are in no component.
        rng: CPU generator of the choice.
    """
    within = np.zeros((3, 3, 3), dtype=bool)
    within[1] = generate_binary_structure(2, 1)  # four neighbours, none of them in another mask
    inside = torch.zeros(mask.shape, dtype=torch.bool)
    for k in range(classes):
        parts, count = connected((mask == k).numpy(), structure=within)
        chosen = torch.rand(count + 1, generator=rng) < 0.5
        chosen[0] = False
        inside |= chosen[torch.from_numpy(parts).long()]
    return inside


def pairs_that_hold(labels: Tensor, shares: Tensor, rng: torch.Generator) -> Tensor:
    """(n,) rows of pairs, each drawn with probability proportional to the share of its label in the pair.

    Args:
        labels: (n,) classes.
        shares: (N, K) share of each class in each pair.
        rng: a generator on the CPU.

    Raises:
        ValueError: if a class is in no pair.
    """
    rows = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique().tolist():
        weights, here = shares[:, label], labels == label
        if not weights.sum() > 0:
            raise ValueError(f'class {label} occurs in none of the {len(shares)} training pairs, no sample can hold it')
        rows[here] = torch.multinomial(weights, int(here.sum()), replacement=True, generator=rng)
    return rows
