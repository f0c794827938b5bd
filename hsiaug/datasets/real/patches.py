"""torchgeo datasets of images in memory: with masks, of two dates, or with one label each; reading of windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...functional.degradation import upsample
from ...samples import Sample, SampleSpec, Transform
from ...scenes import Scene, Split
from ...scenes.change import CHANGE_CLASSES, BitemporalScene
from ...scenes.labelled_patches import LabelledPatchSplit
from ...scenes.labels import class_positions
from ...scenes.patches import PatchPart, PatchSplit
from .held import IGNORE, HeldMasks, HeldSamples, fill_missing

_REACH = 3  # pixels of a coarser image needed on each side for interpolation, plus one


class PatchDataset(HeldMasks):
    """Images with masks, held in memory.

    Args:
        image: (N, C, H, W) float32 in the dataset's unit, finite.
        mask: (N, H, W) int64 labels, the spec's ignore index where a pixel is to be ignored.
        spec: spec of kind ``'segmentation'``.
        split: the split they come from; generators that have seen its test pixels are then refused when mixing.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: if images, masks and spec do not match, or hold invalid values.
    """

    kind = 'segmentation'

    @classmethod
    def from_scene(
        cls, scene: Scene, split: PatchSplit, part: PatchPart = 'train', transforms: Transform | None = None
    ) -> PatchDataset:
        """The patches of one part of a split.

        Pixels that are unlabelled, of a class dropped by the split, or not measured are ignored in the mask; those not
        measured get the mean of the window's measured pixels.

        Raises:
            ValueError: for an unknown part, or a split of another scene.
        """
        require_split_of(scene, split, 'PatchDataset')
        corners, size = split.windows(part), split.size
        spec = scene.spec(split.classes, 'segmentation', (size, size), IGNORE)
        mask = np.empty((len(corners), size, size), dtype=np.int64)
        flat = scene.flat_labels()
        for k, pixels in enumerate(window_pixels(scene, corners, size)):
            mask[k] = class_positions(np.where(scene.valid[pixels], flat[pixels], -1), split.classes, IGNORE)
        return cls(read_windows(scene, corners, size), torch.from_numpy(mask), spec, split, transforms)


class ChangeDataset(HeldMasks):
    """Pairs of dates with change masks, held in memory.

    Args:
        image: (N, 2, C, H, W) float32 in the dataset's unit, finite; first and second date.
        mask: (N, 1, H, W) int64, 0 where nothing changed, 1 where something did, the spec's ignore index where a pixel
            is to be ignored.
        spec: spec of kind ``'change'``.
        split: the split they come from; generators that have seen its test pixels are then refused when mixing.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: if images, masks and spec do not match, or hold invalid values.
    """

    kind = 'change'

    @classmethod
    def from_scene(
        cls, scene: BitemporalScene, split: PatchSplit, part: PatchPart = 'train', transforms: Transform | None = None
    ) -> ChangeDataset:
        """The windows of one part of a split, the same in both dates and the mask.

        Pixels that are unlabelled, or not measured at one of the dates, are ignored in the mask; those not measured get
        the mean of the window's other pixels at both dates.

        Raises:
            TypeError: if the scene has only one date.
            ValueError: for an unknown part, or a split of another scene.
        """
        if not isinstance(scene, BitemporalScene):
            raise TypeError(
                f'ChangeDataset: scene {scene.name!r} has one date; put two together with BitemporalScene.from_dates'
            )
        if split.classes != tuple(CHANGE_CLASSES):
            raise ValueError(
                f'ChangeDataset: the split keeps the classes {split.classes}, expected {tuple(CHANGE_CLASSES)} '
                '(unchanged, changed); split the bitemporal scene itself'
            )
        patches = PatchDataset.from_scene(scene, split, part)
        spec = scene.spec(split.classes, 'change', patches.spec.size, IGNORE)
        return cls(patches.image.unflatten(1, (2, spec.bands)), patches.mask[:, None], spec, split, transforms)

    @classmethod
    def from_dataset(cls, dataset: Dataset[Sample], spec: SampleSpec | None = None, progress: bool = False) -> Self:
        """All samples of a change-detection dataset, read into memory unchanged.

        If images differ in size or are too large to train on whole, cut them into windows with
        :meth:`BitemporalScene.from_dataset` and a split.

        Raises:
            ValueError: if the spec is unknown, the samples do not match it, or nothing changed in any of them.
        """
        pairs = super().from_dataset(dataset, spec, progress)
        if len(pairs) and not pairs.class_counts[1]:
            ignored = pairs.spec.ignore_index in pairs.mask.unique().tolist()
            hint = '; use mask // 255 if 255 means changed' if ignored else ''
            raise ValueError(f'ChangeDataset: no pixel of any of the {len(pairs)} masks is changed (1){hint}')
        return pairs


class SceneDataset(HeldSamples):
    """Images with one label each, held in memory.

    Args:
        image: (N, C, H, W) float32 in the dataset's unit, finite.
        label: (N,) int64 labels.
        spec: spec of kind ``'scene'``.
        split: the split they come from; generators that have seen its test pixels are then refused when mixing.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: if images, labels and spec do not match, or hold invalid values.
    """

    kind = 'scene'
    label: Tensor

    def __init__(
        self,
        image: Tensor,
        label: Tensor,
        spec: SampleSpec,
        split: LabelledPatchSplit | None = None,
        transforms: Transform | None = None,
    ) -> None:
        super().__init__(image, label, spec, split, transforms)

    @classmethod
    def from_scene(
        cls, scene: Scene, split: LabelledPatchSplit, part: PatchPart = 'train', transforms: Transform | None = None
    ) -> SceneDataset:
        """The labelled patches of one part of a split; pixels not measured get the mean of the others.

        Raises:
            ValueError: for an unknown part, a split of another scene, or one without labelled patches.
        """
        if not isinstance(split, LabelledPatchSplit):
            raise ValueError(
                f'SceneDataset: a {type(split).__name__} holds no labelled patches; split with LabelledPatchSplitter'
            )
        require_split_of(scene, split, 'SceneDataset')
        corners, labels = split.patches(part)
        spec = scene.spec(split.classes, 'scene', (split.patch, split.patch))
        return cls(read_windows(scene, corners, split.patch), torch.from_numpy(labels), spec, split, transforms)


def require_split_of(scene: Scene, split: Split | PatchSplit, who: str) -> None:
    """Check that a split belongs to this scene.

    Raises:
        ValueError: if it was made for another scene.
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
    """(n, C, size, size) float32 windows of a scene; pixels not measured get the mean of the others."""
    image = np.empty((len(corners), scene.num_bands, size, size), dtype=np.float32)
    for k, pixels in enumerate(window_pixels(scene, corners, size)):
        image[k] = scene.spectra(pixels.reshape(-1)).T.reshape(image.shape[1:])
        fill_missing(image[k], scene.valid[pixels])
    return torch.from_numpy(image)


class CoarseWindows(NamedTuple):
    """Windows of a sensor coarser by ``factor``: (n, C, size, size) float32, interpolated to the fine pixels."""

    image: Tensor
    factor: int


def read_coarse_windows(scene: Scene, corners: np.ndarray, size: int) -> CoarseWindows:
    """Windows, at (n, 2) upper-left corners, of a coarser sensor's image of a scene, cut after interpolation.

    They may therefore begin at any pixel. With a window, only the surroundings needed for interpolation are read.
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
