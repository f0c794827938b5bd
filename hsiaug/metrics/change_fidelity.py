"""How faithful synthetic pairs of dates with change masks are: each date for itself, and both with the mask."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from ..samples import SampleSpec
from ..scenes.change import require_change_values
from .patches import Encoder, Pair, PatchFidelity, patch_fidelity


@dataclass(frozen=True)
class ChangeFidelity:
    """Fidelity of synthetic pairs of dates to real ones.

    Args:
        first: of the images of the first date, the mask being that of what will change.
        second: of those of the second date.
        both: of both dates as one image, its bands those of both and its features side by side. Dates that do
            not belong together show here and nowhere else. Its alignment says whether the mask is that of the changes,
            its ``fid_mask`` and class shares are those of the change mask.
        differences: distances of the differences between dates to those of test pairs, where nothing changed and where
            something did.
        real_differences: the same of the training pairs, the best that a generator can hope for.
    """

    first: PatchFidelity
    second: PatchFidelity
    both: PatchFidelity
    differences: ChangeDifferences
    real_differences: ChangeDifferences


def change_fidelity(
    train: Pair, test: Pair, fake: Pair, spec: SampleSpec, encoder: Encoder, seed: int = 0
) -> ChangeFidelity:
    """Compare synthetic with real pairs of dates, by the measures of patches and of the differences between dates.

    Args:
        train: (N, 2, C, H, W) images and (N, 1, H, W) masks that the generator was trained on.
        test: real pairs of dates that it has not seen.
        fake: synthetic ones.
        spec: what all of them hold; kind ``'change'``.
        encoder: takes (n, C, H, W) images of one date to (n, d) features; it should have seen the training part only.
        seed: of the thinning and of the pixels that a pixel classifier is given.

    Raises:
        ValueError: if the spec is of another kind, a side does not fit it, holds values that are not finite or less
            than two pairs.
    """
    if spec.kind != 'change':
        raise ValueError(f"change_fidelity: pairs of dates have kind 'change', found {spec.kind!r}")
    for name, (image, mask) in (('train', train), ('test', test), ('fake', fake)):
        if image.shape[1:3] != (2, spec.bands) or mask.shape != (len(image), 1, *image.shape[3:]):
            raise ValueError(
                f'change_fidelity: {name} must be images (n, 2, {spec.bands}, H, W) and masks (n, 1, H, W), found '
                f'{tuple(image.shape)} and {tuple(mask.shape)}'
            )
    one_date = replace(spec, kind='segmentation')
    stacked = replace(one_date, bands=2 * spec.bands, wavelengths=None)

    def features_of_both(image: Tensor) -> Tensor:
        return torch.cat([encoder(date) for date in image.split(spec.bands, dim=1)], dim=1)

    def of_date(date: int) -> PatchFidelity:
        real, unseen, drawn = ((image[:, date], mask[:, 0]) for image, mask in (train, test, fake))
        return patch_fidelity(real, unseen, drawn, one_date, encoder, seed)

    real, unseen, drawn = ((image.flatten(1, 2), mask[:, 0]) for image, mask in (train, test, fake))
    both = patch_fidelity(real, unseen, drawn, stacked, features_of_both, seed)
    differences, reference = (change_differences(test, side, spec.ignore_index, seed) for side in (fake, train))
    return ChangeFidelity(of_date(0), of_date(1), both, differences, reference)


# --- do dates differ as real ones do, where nothing changed and where something did? ---------------------------------

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


def change_differences(real: Pair, fake: Pair, ignore_index: int | None = None, seed: int = 0) -> ChangeDifferences:
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


def between_halves(real: Pair, ignore_index: int | None = None, repeats: int = 5, seed: int = 0) -> ChangeDifferences:
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
