"""Whether synthetic dates differ from each other as real ones do: where nothing changed, and where something did."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from ..scenes.change import require_change_values

Triplets = tuple[Tensor, Tensor]
MOST = 100_000
"""Pixels of a side, drawn at random, that a distance is taken from."""


@dataclass(frozen=True)
class ChangeDifferences:
    """Distances between the differences second minus first date of two sets of triplets.

    Each is the Wasserstein distance of order 1, mean over bands, in units of the real standard deviation of the band:
    0 where they are distributed alike, √(2/π) = 0.80 or so of normal real differences to none at all. NaN where a side
    has no pixel.

    Args:
        unchanged: of differences where nothing changed.
        changed: of differences where something did.
        unchanged_texture: of their steps from a pixel to the next, where nothing changed: dates that differ by too
            smooth or too noisy a field show in it.
        changed_texture: of their steps from a pixel to the next, where something did.
    """

    unchanged: float
    changed: float
    unchanged_texture: float
    changed_texture: float


def change_differences(
    real: Triplets, fake: Triplets, ignore_index: int | None = None, seed: int = 0
) -> ChangeDifferences:
    """Compare synthetic with real triplets.

    Args:
        real: (N, 2, C, H, W) pairs of dates and (N, 1, H, W) change masks; the unit of each distance comes from them.
        fake: the same of synthetic ones, of any number.
        ignore_index: value of pixels that do not count.
        seed: of the choice of pixels, where there are very many.

    Raises:
        ValueError: if the images and masks of a side do not fit together, masks hold other values, or bands differ.
    """
    for name, (image, mask) in (('real', real), ('synthetic', fake)):
        if image.ndim != 5 or image.shape[1] != 2 or mask.shape != (len(image), 1, *image.shape[3:]):
            raise ValueError(
                f'change_differences: {name} triplets must be (N, 2, C, H, W) with masks (N, 1, H, W), found '
                f'{tuple(image.shape)} and {tuple(mask.shape)}'
            )
        require_change_values(mask.unique().cpu().numpy(), f'change_differences, {name} triplets', ignore_index)
    if real[0].shape[2] != fake[0].shape[2]:
        raise ValueError(
            f'change_differences: {real[0].shape[2]} real bands, {fake[0].shape[2]} synthetic ones; give the same bands'
        )
    sides = [_differences(*side) for side in (real, fake)]
    return ChangeDifferences(*(_distance(a, b, seed) for a, b in zip(*sides, strict=True)))


def between_halves(
    real: Triplets, ignore_index: int | None = None, repeats: int = 5, seed: int = 0
) -> ChangeDifferences:
    """The same of two random halves of the real triplets, mean over repeats: what chance alone gives.

    Args:
        real: (N, 2, C, H, W) pairs of dates and (N, 1, H, W) change masks.
        ignore_index: value of pixels that do not count.
        repeats: times that they are halved.
        seed: of the halves.

    Raises:
        ValueError: for fewer than two triplets.
    """
    if len(real[0]) < 2:
        raise ValueError(f'between_halves: at least 2 triplets are needed, found {len(real[0])}')
    rng, found = torch.Generator().manual_seed(seed), list[ChangeDifferences]()
    for _ in range(repeats):
        order = torch.randperm(len(real[0]), generator=rng)
        halves = [(real[0][rows], real[1][rows]) for rows in order.tensor_split(2)]
        found.append(change_differences(halves[0], halves[1], ignore_index, seed))
    names = [field.name for field in fields(ChangeDifferences)]
    return ChangeDifferences(*(float(torch.tensor([getattr(one, n) for one in found]).nanmean()) for n in names))


def _differences(image: Tensor, mask: Tensor) -> list[Tensor]:
    """(pixels, C) differences, and (pairs, C) steps between neighbours of one kind, in a dataclass's order."""
    second_less_first, mask = (image[:, 1] - image[:, 0]).movedim(1, -1).cpu(), mask[:, 0].cpu()
    values, steps = [], []
    for kind in (0, 1):
        here = mask == kind
        values.append(second_less_first[here])
        across = (second_less_first[:, :, 1:] - second_less_first[:, :, :-1])[here[:, :, 1:] & here[:, :, :-1]]
        down = (second_less_first[:, 1:] - second_less_first[:, :-1])[here[:, 1:] & here[:, :-1]]
        steps.append(torch.cat([across, down]))
    return values + steps


def _distance(real: Tensor, fake: Tensor, seed: int) -> float:
    """Mean over bands of the standardised distance of (n, C) and (m, C) values."""
    if not len(real) or not len(fake):
        return float('nan')
    rng = torch.Generator().manual_seed(seed)
    few = [side[torch.randperm(len(side), generator=rng)[:MOST]] if len(side) > MOST else side for side in (real, fake)]
    std = real.double().std(dim=0, correction=0).clamp_min(1e-12)
    a, b = ((side.double() / std).T.numpy() for side in few)
    return float(sum(wasserstein_distance(u, v) for u, v in zip(a, b, strict=True)) / len(a))
