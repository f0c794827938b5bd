"""The internal form of image samples in generators: pairs of dates as one picture, and valid pixels of masks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..samples import SampleSpec

CHANGED = 1
"""Value in change masks of pixels that changed."""


def stacked_dates(image: Tensor) -> Tensor:
    """Images (n, 2, C, H, W) as a view (n, 2 C, H, W), the second date after the first; (n, C, H, W) as they are."""
    return image.flatten(1, -3)


def as_pictures(image: Tensor) -> Tensor:
    """Images of any kind as (n, C', H, W): spectra have one pixel, the bands of two dates are joined."""
    return image[:, :, None, None] if image.ndim == 2 else stacked_dates(image)


def flat_mask(mask: Tensor) -> Tensor:
    """Masks (n, 1, H, W) as a view (n, H, W); (n, H, W) as they are."""
    return mask.flatten(0, -3)


def in_contract(image: Tensor, mask: Tensor, spec: SampleSpec) -> dict[str, Tensor]:
    """The inverse of :func:`stacked_dates` and :func:`flat_mask`: a batch as samples of this spec are.

    Images are (n, C, H, W), of kind ``'change'`` (n, 2 C, H, W), and masks (n, H, W).
    """
    if spec.kind == 'change':
        return {'image': image.unflatten(1, (2, spec.bands)), 'mask': mask[:, None]}
    return {'image': image, 'mask': mask}


def without_ignored(logits: Tensor, spec: SampleSpec) -> Tensor:
    """Logits (n, K, ...) in which the class that is to be ignored, where it is one, is never the largest."""
    if spec.ignore_index is None or not 0 <= spec.ignore_index < spec.num_classes:
        return logits
    logits = logits.clone()
    logits[:, spec.ignore_index] = -torch.inf
    return logits
