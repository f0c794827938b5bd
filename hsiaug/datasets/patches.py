"""Patches of a scene with masks, as a torchgeo dataset, and how windows are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..functional.degradation import upsample
from ..samples import Transform
from ..scenes import Scene
from ..scenes.patches import PatchPart, PatchSplit
from .held import IGNORE, HeldMasks
from .image_files import fill_missing

_REACH = 3  # pixels of a coarser image on each side that interpolation looks at, and one


class PatchDataset(HeldMasks):
    """Images with masks, held in memory.

    Args:
        image: (N, C, H, W) float32 in the dataset's unit, finite.
        mask: (N, H, W) int64 labels, the spec's ignore index where a pixel does not count.
        spec: what they are; its kind is ``'segmentation'``.
        split: the split that they come from; a generator that saw its test pixels is then refused by mixing.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: if images, masks and spec do not fit together, or hold values that they must not.
    """

    kind = 'segmentation'

    @classmethod
    def from_scene(
        cls, scene: Scene, split: PatchSplit, part: PatchPart = 'train', transforms: Transform | None = None
    ) -> PatchDataset:
        """The patches of one part of a split.

        Pixels without a label, of a class that the split dropped, or not measured are ignored in the mask; not
        measured ones hold the mean of the window's measured pixels.

        Raises:
            ValueError: for an unknown part, or a split of another scene.
        """
        require_split_of(scene, split, 'PatchDataset')
        corners, size = split.windows(part), split.size
        spec = scene.spec(split.classes, 'segmentation', (size, size), IGNORE)
        mask = np.empty((len(corners), size, size), dtype=np.int64)
        flat = scene.flat_labels()
        for k, pixels in enumerate(window_pixels(scene, corners, size)):
            mask[k] = index_labels(np.where(scene.valid[pixels], flat[pixels], -1), split.classes)
        return cls(read_windows(scene, corners, size), torch.from_numpy(mask), spec, split, transforms)


def index_labels(labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Class ids as positions in ``classes``, int64; :data:`IGNORE` where a pixel has none of them."""
    ids = np.asarray(classes)
    order = np.argsort(ids)
    place = np.searchsorted(ids[order], labels).clip(max=len(ids) - 1)
    return np.where(ids[order][place] == labels, order[place], IGNORE)


def require_split_of(scene: Scene, split: PatchSplit, who: str) -> None:
    """Check that a split is one of this scene.

    Raises:
        ValueError: if it was made for another.
    """
    if split.scene != scene.fingerprint:
        raise ValueError(
            f'{who}: the split was made for scene {split.scene}, this is scene {scene.name!r} ({scene.fingerprint}); '
            'split this scene'
        )


def window_pixels(scene: Scene, corners: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """(size, size) flat indices of the pixels of each window with its upper-left corner in (n, 2) ``corners``."""
    inside = np.arange(size)[:, None] * scene.shape[1] + np.arange(size)
    for row, column in corners.tolist():
        yield row * scene.shape[1] + column + inside


def read_windows(scene: Scene, corners: np.ndarray, size: int) -> Tensor:
    """(n, C, size, size) float32 windows of a scene; pixels that are not measured hold the mean of the others."""
    image = np.empty((len(corners), scene.num_bands, size, size), dtype=np.float32)
    for k, pixels in enumerate(window_pixels(scene, corners, size)):
        image[k] = scene.spectra(pixels.reshape(-1)).T.reshape(image.shape[1:])
        fill_missing(image[k], scene.valid[pixels])
    return torch.from_numpy(image)


class CoarseWindows(NamedTuple):
    """Windows of a ``factor`` times coarser sensor: (n, C, size, size) float32, interpolated to their pixels."""

    image: Tensor
    factor: int


def read_coarse_windows(scene: Scene, corners: np.ndarray, size: int) -> CoarseWindows:
    """Windows, at (n, 2) upper-left corners, of a coarser sensor's image of a scene: interpolated first, then cut.

    So they may begin at any pixel. Only the surroundings that an interpolated pixel depends on are read with a window.
    """
    assert scene.coarse is not None
    coarse, k = replace(scene.coarse, bands=scene.bands), scene.shape[0] // scene.coarse.shape[0]
    image = torch.empty(len(corners), scene.num_bands, size, size)
    for n, (top, left) in enumerate(corners.tolist()):
        first = max(top // k - _REACH, 0), max(left // k - _REACH, 0)
        rows, columns = (
            np.arange(start, min(-(-(at + size) // k) + _REACH, side))
            for start, at, side in zip(first, (top, left), coarse.shape, strict=True)
        )
        pixels = rows[:, None] * coarse.shape[1] + columns
        part = coarse.spectra(pixels.reshape(-1)).T.reshape(-1, *pixels.shape)
        fill_missing(part, coarse.valid[pixels])
        down, right = top - k * first[0], left - k * first[1]
        fine = upsample(torch.from_numpy(np.ascontiguousarray(part))[None], k)[0]
        image[n] = fine[:, down : down + size, right : right + size]
    return CoarseWindows(image, k)
