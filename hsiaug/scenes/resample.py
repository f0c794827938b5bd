"""Bands of several pixel sizes on one grid, and images of slightly different sizes cut to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import zoom


def crop_to_common(*images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Images cut to the rows and columns that all of them have, counted from the upper left, their common origin.

    Args:
        images: (H, W) or (H, W, C) arrays, such as two dates and their mask.
    """
    height, width = (min(image.shape[axis] for image in images) for axis in range(2))
    return tuple(image[:height, :width] for image in images)


def upsample(band: np.ndarray, factor: int, shape: tuple[int, int]) -> np.ndarray:
    """A band on a finer grid, by bilinear interpolation that keeps areas in place.

    The upper left corners of both grids coincide, and a coarse pixel covers ``factor`` x ``factor`` fine ones. So the
    factor is exact even where the coarse band covers a little more or less than the fine grid; to stretch it to the
    fine size would move its far edge by up to half a coarse pixel.

    Args:
        band: (h, w), measured everywhere: interpolation would mix a value for "no measurement" into its neighbours.
        factor: side of a coarse pixel in fine ones.
        shape: (H, W) of the fine grid. What the band covers beyond is cut, what it lacks repeats its edge.

    Returns:
        (H, W) in the band's dtype, integers rounded.

    Raises:
        ValueError: if the sizes differ by a coarse pixel or more.
    """
    apart = [abs(factor * n - wanted) for n, wanted in zip(band.shape, shape, strict=True)]
    if factor < 1 or max(apart) >= factor:
        raise ValueError(
            f'upsample: {band.shape[0]} x {band.shape[1]} pixels, each {factor} x {factor} fine ones, do not cover '
            f'{shape[0]} x {shape[1]} fine ones; crop both to one area first'
        )
    fine = zoom(band, factor, np.float64, order=1, mode='nearest', grid_mode=True)[: shape[0], : shape[1]]
    fine = np.pad(fine, [(0, wanted - n) for n, wanted in zip(fine.shape, shape, strict=True)], mode='edge')
    return (fine.round() if np.issubdtype(band.dtype, np.integer) else fine).astype(band.dtype)


def stack_bands(bands: Mapping[str, np.ndarray], order: Sequence[str]) -> np.ndarray:
    """Bands of one image, which may differ in pixel size, on the finest grid among them.

    Args:
        bands: (h, w) image of each band by its name; all begin at the same upper left corner.
        order: names of the bands to take.

    Returns:
        (H, W, C) in the bands' common dtype.

    Raises:
        ValueError: for a band that is missing, or of a size that no whole factor brings to the finest grid.
    """
    if missing := [name for name in order if name not in bands]:
        raise ValueError(f'stack_bands: bands {missing} are missing, found {list(bands)}; name bands that are there')
    finest = max((bands[name] for name in order), key=lambda band: band.size)
    shape: tuple[int, int] = finest.shape[0], finest.shape[1]
    stacked = np.empty((*shape, len(order)), dtype=np.result_type(*(bands[name] for name in order)))
    for k, name in enumerate(order):
        stacked[..., k] = upsample(bands[name], round(shape[1] / bands[name].shape[1]), shape)
    return stacked
