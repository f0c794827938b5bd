"""Where the bands of an array are: last, as everywhere here, or first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .files import SceneFileError

Layout = Literal['hwc', 'chw']


def channels_last(
    cube: np.ndarray,
    layout: Layout | None,
    pixels: tuple[int, ...] | None = None,
    wavelengths: Sequence[float] | np.ndarray | None = None,
    where: str = 'cube',
) -> np.ndarray:
    """A cube (H, W, C), or tiles (T, h, w, C), whichever way it is stored.

    None infers the layout from the shape of the labels, ``pixels``, and from wavelengths. Without either the bands are
    last, as documented, unless the shape speaks for the opposite.
    """
    if layout not in (None, 'hwc', 'chw'):
        raise ValueError(f"unknown layout {layout!r}; choose from 'hwc', 'chw'")
    if layout is None:
        layout = _inferred(cube.shape, pixels, wavelengths, where)
    return cube if layout == 'hwc' else np.moveaxis(cube, -3, -1)


def _inferred(
    shape: tuple[int, ...], pixels: tuple[int, ...] | None, wavelengths: Sequence[float] | np.ndarray | None, where: str
) -> Layout:
    first, height, width = shape[-3:]
    last, swapped = shape[:-1], (*shape[:-3], height, width)
    votes: list[set[Layout]] = []
    if pixels is not None:
        votes.append({'hwc'} if pixels == last else set())
        if pixels == swapped:
            votes[-1].add('chw')
            if pixels == (height, first):  # as well the labels of (H, W, C), transposed
                votes[-1].add('hwc')
    if wavelengths is not None:
        votes.append({'hwc'} if len(wavelengths) == width else set())
        if len(wavelengths) == first:
            votes[-1].add('chw')
    votes = [vote for vote in votes if vote]  # what fits neither way is refused where scenes are made
    agreed = set.intersection(*votes) if votes else set()
    if len(agreed) == 1:
        return agreed.pop()
    # Bands that come first show by one of two signs; an image as wide as it has bands is rare.
    if not votes and height != width and 2 * first > min(height, width):
        return 'hwc'
    raise SceneFileError(
        f'{where}: a cube of shape {shape} may be (H, W, bands) with {width} bands, or (bands, H, W) with {first}, and '
        + ('labels and wavelengths do not agree on' if votes and not agreed else 'nothing in the file says')
        + " which; give layout='hwc' or layout='chw'"
    )
