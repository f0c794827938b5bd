"""Windows of a scene: sums, positions, coverage; and labels on a coarser grid."""

from __future__ import annotations

import numpy as np

from .labels import UNLABELLED


def majority_labels(labels: np.ndarray, factor: int, min_share: float = 0.5) -> np.ndarray:
    """Labels on a coarser grid.

    Args:
        labels: (H * factor, W * factor) class ids, 0 where a pixel has no class.
        factor: side of a coarse pixel in fine ones.
        min_share: share of a coarse pixel that the class needs; unlabelled fine pixels count against it.

    Returns:
        (H, W) most frequent label of each coarse pixel, 0 where it has too small a share; of equally frequent ones the
        smallest.

    Raises:
        ValueError: if the sides do not divide by the factor.
    """
    if labels.ndim != 2 or factor < 1 or labels.shape[0] % factor or labels.shape[1] % factor:
        raise ValueError(f'majority_labels: sides of labels {labels.shape} must be multiples of the factor {factor}')
    height, width = labels.shape[0] // factor, labels.shape[1] // factor
    cells = labels.reshape(height, factor, width, factor)
    ids = np.unique(np.append(labels, UNLABELLED))
    share = np.stack([(cells == i).mean(axis=(1, 3)) for i in ids])
    return np.where(share.max(axis=0) >= min_share, ids[share.argmax(axis=0)], UNLABELLED).astype(labels.dtype)


def block_numbers(shape: tuple[int, int], side: int, tile_rows: int | None = None) -> np.ndarray:
    """(H, W) number of the square block that each pixel lies in; blocks end with their tile of so many rows."""
    rows, columns = np.indices(shape)
    height = tile_rows or shape[0]
    tile, rows = np.divmod(rows, height)
    down, across = -(-height // side), -(-shape[1] // side)
    return (tile * down + rows // side) * across + columns // side


def window_sums(mask: np.ndarray, size: int) -> np.ndarray:
    """(T, h - size + 1, W - size + 1) number of true pixels in each window of (T, h, W)."""
    total = np.zeros((mask.shape[0], mask.shape[1] + 1, mask.shape[2] + 1), dtype=np.int32)
    total[:, 1:, 1:] = mask.cumsum(axis=1, dtype=np.int32).cumsum(axis=2, dtype=np.int32)
    below = total[:, size:] - total[:, :-size]
    return below[:, :, size:] - below[:, :, :-size]


def spaced_places(fits: np.ndarray, spacing: int) -> np.ndarray:
    """(n, 3) positions of true values in (T, h, W), at least ``spacing`` rows or columns apart, in reading order."""
    free = fits.copy()
    flat, at = free.reshape(-1), 0
    places = []
    while flat[at:].any():
        at += int(flat[at:].argmax())
        tile, row, column = (int(i) for i in np.unravel_index(at, free.shape))
        places.append((tile, row, column))
        free[tile, row : row + spacing, max(column - spacing + 1, 0) : column + spacing] = False
    return np.array(places, dtype=np.int64).reshape(-1, 3)


def tile_corners(size: tuple[int, int], tile: tuple[int, int], step: int | None = None) -> np.ndarray:
    """(n, 2) upper-left corners of tiles of an image, none if it is smaller than one; they do not overlap if None."""
    rows, columns = (np.arange(0, side - one + 1, step or one) for side, one in zip(size, tile, strict=True))
    return np.stack(np.meshgrid(rows, columns, indexing='ij'), axis=-1).reshape(-1, 2)


def covered_pixels(corners: np.ndarray, size: int, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: pixels of any window."""
    covered = np.zeros(shape, dtype=bool)
    for row, column in corners.tolist():
        covered[row : row + size, column : column + size] = True
    return covered


def window_class_counts(label: np.ndarray, corners: np.ndarray, size: int, num_classes: int) -> np.ndarray:
    """(n, K) pixels of each class in each window."""
    counts = np.zeros((len(corners), num_classes + 1), dtype=np.int64)
    for k, (row, column) in enumerate(corners.tolist()):
        counts[k] = np.bincount(label[row : row + size, column : column + size].reshape(-1), minlength=num_classes + 1)
    return counts[:, :-1]
