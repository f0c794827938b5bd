"""Position of the bands in an array: last, as everywhere in this package, first, or between rows and columns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np

from .files import SceneFileError

Layout = Literal['hwc', 'chw', 'hcw']
_AXES: dict[Layout, int] = {'hwc': -1, 'chw': -3, 'hcw': -2}


def band_numbers(bands: Sequence[int] | np.ndarray | None, count: int, where: str) -> np.ndarray:
    """(n,) int64 indices of the bands in use, all of ``count`` if None.

    Raises:
        ValueError: if they are not different whole numbers in [0, count).
    """
    found = np.arange(count) if bands is None else np.asarray(bands)
    whole = found.ndim == 1 and found.size > 0 and found.dtype.kind in 'iu'
    if not whole or found.min() < 0 or found.max() >= count or np.unique(found).size < found.size:
        advice = 'of a mask, give numpy.flatnonzero(mask)' if found.dtype == bool else 'give whole numbers, none twice'
        raise ValueError(f'{where}: bands must be indices in [0, {count}), found {bands}; {advice}')
    return found.astype(np.int64)


def channels_last(
    cube: np.ndarray,
    layout: Layout | None,
    pixels: tuple[int, ...] | None = None,
    wavelengths: Sequence[float] | np.ndarray | None = None,
    where: str = 'cube',
) -> np.ndarray:
    """A cube (H, W, C), or tiles (T, h, w, C), whichever way it is stored.

    Args:
        cube: 3-D or 4-D.
        layout: of the stored array; None infers it from labels and wavelengths. Without either, the bands are last
            unless the shape suggests the opposite; a warning says so if it suggests neither.
        pixels: shape of the labels.
        wavelengths: band centres.
        where: origin of the cube, for messages.
    """
    if layout is not None and layout not in _AXES:
        raise ValueError(f'unknown layout {layout!r}; choose from {", ".join(map(repr, _AXES))}')
    if layout is None:
        layout = inferred_layout(cube.shape, pixels, wavelengths, where)
    return cube if layout == 'hwc' else np.moveaxis(cube, _AXES[layout], -1)


def inferred_layout(
    shape: tuple[int, ...], pixels: tuple[int, ...] | None, wavelengths: Sequence[float] | np.ndarray | None, where: str
) -> Layout:
    """Layout of an array, as :func:`channels_last` infers it."""
    first, height, width = shape[-3:]
    last, swapped = shape[:-1], (*shape[:-3], height, width)
    votes: list[set[Layout]] = []
    if pixels is not None:
        votes.append({'hwc'} if pixels == last else set())
        if pixels == swapped:
            votes[-1].add('chw')
            if pixels == (height, first):  # these could also be the transposed labels of (H, W, C)
                votes[-1].add('hwc')
    if wavelengths is not None:
        votes.append({'hwc'} if len(wavelengths) == width else set())
        if len(wavelengths) == first:
            votes[-1].add('chw')
    votes = [vote for vote in votes if vote]  # a cube that fits no way is refused when the scene is made
    between = pixels == (*last[:-1], width) or (wavelengths is not None and len(wavelengths) == height)
    if not votes and between:  # as in files of PRISMA
        return 'hcw'
    agreed = set.intersection(*votes) if votes else set()
    if len(agreed) == 1:
        return agreed.pop()
    either = (
        f'{where}: a cube of shape {shape} may be (H, W, bands) with {width} bands, or (bands, H, W) with {first}, and '
    )
    advice = "give layout='hwc' or layout='chw'"
    if 2 * height <= min(first, width):
        advice += f", or layout='hcw' if the {height} in the middle are the bands"
    # Two signs of bands that come first; an image as wide as it has bands is rare.
    if not votes and height != width and 2 * first > min(height, width):
        if first != height and 2 * width > min(first, height):  # and the shape does not suggest that they come last
            warnings.warn(f'{either}nothing in the file says which; it is read as the first, {advice}', stacklevel=5)
        return 'hwc'
    raise SceneFileError(
        either
        + ('labels and wavelengths do not agree on' if votes and not agreed else 'nothing in the file says')
        + f' which; {advice}'
    )
