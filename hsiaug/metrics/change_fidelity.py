"""How faithful synthetic pairs of dates with change masks are: each date for itself, and both with the mask."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..samples import SampleSpec
from .change_differences import ChangeDifferences, change_differences
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
