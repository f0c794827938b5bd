"""Fidelity of synthetic pairs of dates with change masks: of each date, and of both together with the mask."""

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
        first: fidelity of the images of the first date, with the change mask.
        second: fidelity of the images of the second date.
        both: fidelity of both dates as one image with the bands and features of both; only this shows dates that do not
            belong together. Its alignment tells whether the mask marks the changes; its ``fid_mask`` and class shares
            are those of the change mask.
        differences: distances of the differences between dates to those of test pairs, where nothing changed and where
            something did.
        real_differences: the same for the training pairs: the best that a generator can achieve.
    """

    first: PatchFidelity
    second: PatchFidelity
    both: PatchFidelity
    differences: ChangeDifferences
    real_differences: ChangeDifferences


def change_fidelity(
    train: Pair, test: Pair, fake: Pair, spec: SampleSpec, encoder: Encoder, seed: int = 0
) -> ChangeFidelity:
    """Compare synthetic with real pairs of dates, by the metrics for patches and the differences between dates.

    Args:
        train: (N, 2, C, H, W) images and (N, 1, H, W) masks that the generator was trained on.
        test: real pairs of dates that it has not seen.
        fake: synthetic pairs of dates.
        spec: spec of all of them, of kind ``'change'``.
        encoder: maps (n, C, H, W) images of one date to (n, d) features; should have seen the training part only.
        seed: seed of the subsampling and of the pixels for the pixel classifier.

    Raises:
        ValueError: if the spec is of another kind, or a side does not match it, holds values that are not finite, or
            has fewer than two pairs.
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
    """Distances between two sets of triplets in the difference of second and first date.

    Each is the Wasserstein distance of order 1, averaged over bands, in units of the real standard deviation of the
    band: 0 if the distributions are equal, about √(2/π) = 0.80 between normal real differences and none at all. NaN if
    a side has no such pixel.

    Args:
        unchanged: distance of the differences where nothing changed.
        changed: distance of the differences where something changed.
        unchanged_texture: distance of their steps between neighbouring pixels where nothing changed, which shows dates
            whose difference is too smooth or too noisy.
        changed_texture: distance of their steps between neighbouring pixels where something changed.
    """

    unchanged: float
    changed: float
    unchanged_texture: float
    changed_texture: float


def change_differences(real: Pair, fake: Pair, ignore_index: int | None = None, seed: int = 0) -> ChangeDifferences:
    """Compare synthetic with real triplets.

    Args:
        real: (N, 2, C, H, W) pairs of dates and (N, 1, H, W) change masks, which set the units of the distances.
        fake: synthetic pairs and masks, of any number.
        ignore_index: value of pixels to ignore.
        seed: seed of the selection of pixels, if there are very many.

    Raises:
        ValueError: if the images and masks of a side do not match, masks hold other values, or bands differ.
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
            f'change_differences: {real[0].shape[2]} real bands but {fake[0].shape[2]} synthetic ones; use the same'
        )
    sides = [_differences(*side) for side in (real, fake)]
    return ChangeDifferences(*(_distance(a, b, seed) for a, b in zip(*sides, strict=True)))


def between_halves(real: Pair, ignore_index: int | None = None, repeats: int = 5, seed: int = 0) -> ChangeDifferences:
    """The differences between two random halves of the real triplets, averaged over repeats: the effect of chance.

    Args:
        real: (N, 2, C, H, W) pairs of dates and (N, 1, H, W) change masks.
        ignore_index: value of pixels to ignore.
        repeats: number of random divisions.
        seed: seed of the divisions.

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
