"""Bands of several pixel sizes on one grid, and images of slightly different sizes cut to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import zoom


def crop_to_common(*images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Images cropped to their common rows and columns, with the upper left corner as the common origin.

    Args:
        images: (H, W) or (H, W, C) arrays, such as two dates and their mask.
    """
    height, width = (min(image.shape[axis] for image in images) for axis in range(2))
    return tuple(image[:height, :width] for image in images)


def upsample(band: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A band on a finer grid of the same area, by bilinear interpolation that keeps areas in place.

    The edges of both grids coincide, not the centres of their corner pixels. So a band of 236 rows and one of 471 rows
    cut from the same area match everywhere, although the ratio of their pixels is not exactly 2.

    Args:
        band: (h, w), measured everywhere: interpolation would mix a value for "no measurement" into its neighbours.
        shape: (H, W) of the fine grid.

    Returns:
        (H, W) in the band's dtype, integers rounded.

    Raises:
        ValueError: if the sizes differ by more than rounding to whole coarse pixels explains.
    """
    scale = [wanted / n for n, wanted in zip(band.shape, shape, strict=True)]
    factor, other = map(round, scale)
    if factor != other or max(abs(factor * n - wanted) for n, wanted in zip(band.shape, shape, strict=True)) >= factor:
        raise ValueError(
            f'upsample: {band.shape[0]} x {band.shape[1]} pixels cannot cover the area of {shape[0]} x {shape[1]} '
            'finer ones, since no whole number of these makes the side of one; cut both from one area first'
        )
    fine = zoom(band, scale, np.float64, order=1, mode='nearest', grid_mode=True)
    return (fine.round() if np.issubdtype(band.dtype, np.integer) else fine).astype(band.dtype)


def stack_bands(bands: Mapping[str, np.ndarray], order: Sequence[str]) -> np.ndarray:
    """Bands of one image, which may differ in pixel size, on the finest grid among them.

    Args:
        bands: (h, w) image of each band by its name; all show the same area.
        order: names of the bands to take.

    Returns:
        (H, W, C) in the bands' common dtype.

    Raises:
        ValueError: for a band that is missing, or of a size that does not fit the finest grid.
    """
    if missing := [name for name in order if name not in bands]:
        raise ValueError(f'stack_bands: bands {missing} are missing, found {list(bands)}; name bands that are there')
    finest = max((bands[name] for name in order), key=lambda band: band.size)
    shape: tuple[int, int] = finest.shape[0], finest.shape[1]
    stacked = np.empty((*shape, len(order)), dtype=np.result_type(*(bands[name] for name in order)))
    for k, name in enumerate(order):
        stacked[..., k] = upsample(bands[name], shape)
    return stacked
