"""Patches of a scene with masks, as a torchgeo dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset
from torchgeo.datasets import NonGeoDataset

from ..functional.degradation import upsample
from ..progress import with_progress
from ..samples import Kind, Sample, SampleSpec
from ..scenes import Scene
from ..scenes.patches import PatchPart, PatchSplit
from .bank_plan import class_fractions
from .bank_record import layout
from .batches import as_tensor, unstack
from .image_files import fill_missing
from .preview import _mask_legend, false_colour, mask_colour
from .wrapped import spec_of

IGNORE = 255
"""Value in masks of pixels that count neither in losses nor in metrics."""


_REACH = 3  # pixels of a coarser image on each side that interpolation looks at, and one


class HeldSamples(NonGeoDataset):
    """Samples held in memory, one tensor per key: what patches with masks, pairs of dates and scenes have in common."""

    image: Tensor
    spec: SampleSpec
    keys: ClassVar[tuple[str, ...]]
    """Keys of a sample; an attribute each."""
    kind: ClassVar[Kind]
    transforms: Callable[[Sample], Sample] | None = None

    @classmethod
    def from_dataset(cls, dataset: Dataset[Sample], spec: SampleSpec | None = None, progress: bool = False) -> Self:
        """All samples of a dataset, read into memory as they are.

        Args:
            dataset: map-style, in the sample contract, such as a torchgeo dataset; masks may be (H, W) or (1, H, W).
            spec: what they are; the dataset's own if None.
            progress: show a progress bar.

        Raises:
            ValueError: if no spec is known, or the samples do not fit it.
        """
        spec, who, length = spec or spec_of(dataset), cls.__name__, len(cast(Any, dataset))
        if spec is None:
            raise ValueError(f'{who}: {type(dataset).__name__} has no spec; give one that says what it holds')
        if spec.kind != cls.kind:
            raise ValueError(f'{who}: a spec of kind {cls.kind!r} is needed, found {spec.kind!r}')
        held = {key: torch.empty(length, *shape, dtype=dtype) for key, (dtype, shape) in layout(spec, False).items()}
        for index in with_progress(range(length), progress, desc=f'{cls.kind} samples', unit='sample'):
            read = dataset[index]
            sample = {key: as_tensor(read[key]) for key in cls.keys}
            image, target = (tuple(sample[key].shape) for key in cls.keys)
            if (
                image != held['image'].shape[1:]
                or sample[spec.target_key].numel() != held[spec.target_key][index].numel()
            ):
                raise ValueError(
                    f'{who}: sample {index} has image {image} and {spec.target_key} {target}, expected '
                    f'{tuple(held["image"].shape[1:])} and {tuple(held[spec.target_key].shape[1:])}; cut images of '
                    'other sizes into windows, those of two dates with BitemporalScene.from_dataset'
                )
            for key, value in sample.items():
                held[key][index] = value.reshape(held[key].shape[1:])
        return cls(**held, spec=spec, split=getattr(dataset, 'split', None))  # type: ignore[call-arg]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.image)

    def __getitem__(self, index: int) -> Sample:
        """``image`` float32 in the dataset's unit, and its target int64."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Samples of a whole batch."""
        samples = unstack(self.batch(indices))
        return samples if self.transforms is None else [self.transforms(sample) for sample in samples]

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """``image`` (n, ...) and its target (n, ...), before ``transforms``.

        Raises:
            IndexError: if an index is out of range.
        """
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        if len(rows) and not -len(self) <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(f'{type(self).__name__}: index out of range for {len(self)} samples')
        return {key: getattr(self, key)[rows] for key in self.keys}


class HeldImages(HeldSamples):
    """Images with masks, held in memory: what patches of one date and of two have in common."""

    keys = ('image', 'mask')

    def __init__(
        self,
        image: Tensor,
        mask: Tensor,
        spec: SampleSpec,
        split: PatchSplit | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self._require(image, mask, spec)
        self.image, self.mask, self.spec, self.split, self.transforms = image, mask, spec, split, transforms

    def _require(self, image: Tensor, mask: Tensor, spec: SampleSpec) -> None:
        """Check the three against each other."""
        raise NotImplementedError

    def class_fractions(self) -> Tensor:
        """(N, K) float32 share of each class in the counting pixels of each sample; zeros where all are ignored."""
        return class_fractions(self.mask, self.spec)

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) number of pixels per class."""
        return self._pixels_of(self.mask)

    def class_pixels(self) -> np.ndarray:
        """(N, K) number of pixels per class of each mask."""
        return np.array([self._pixels_of(mask) for mask in self.mask]).reshape(-1, self.spec.num_classes)

    def _pixels_of(self, mask: Tensor) -> np.ndarray:
        """(K,) number of pixels per class of masks."""
        classes = self.spec.num_classes
        counted = mask[(mask >= 0) & (mask < classes) & (mask != self.spec.ignore_index)]
        return np.bincount(counted.numpy(), minlength=classes)

    def __str__(self) -> str:
        """Size and class counts in pixels."""
        counts = dict(zip(self.spec.classes, self.class_counts.tolist(), strict=True))
        return f'{super().__str__()}\n    bands: {self.spec.bands}, size: {self.spec.size}\n    pixels: {counts}'


class PatchDataset(HeldImages):
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

    def _require(self, image: Tensor, mask: Tensor, spec: SampleSpec) -> None:
        require_patches(image, mask, spec, 'PatchDataset')

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        split: PatchSplit,
        part: PatchPart = 'train',
        transforms: Callable[[Sample], Sample] | None = None,
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

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw one patch in false colour with its mask; see :func:`plot_patch`."""
        return plot_patch(sample, self.spec, show_titles, suptitle)


def require_patches(image: Tensor, mask: Tensor, spec: SampleSpec, who: str) -> None:
    """Check images and masks against a spec.

    Args:
        image: (N, C, H, W).
        mask: (N, H, W).
        spec: of kind ``'segmentation'``.
        who: whose mistake it is, for the message.

    Raises:
        ValueError: naming what was found and expected, and for values the first patch that holds them.
    """
    if spec.kind != 'segmentation':
        raise ValueError(f"{who}: a spec of kind 'segmentation' is needed, found {spec.kind!r}")
    for name, tensor, shape, dtype in (
        ('image', image, (spec.bands, *(spec.size or ())), torch.float32),
        ('mask', mask, tuple(spec.size or ()), torch.int64),
    ):
        if tuple(tensor.shape[1:]) != shape or tensor.dtype != dtype or len(tensor) != len(image):
            raise ValueError(
                f'{who}: {name} must be {(len(image), *shape)} {dtype}, found {tuple(tensor.shape)} {tensor.dtype}'
            )
    finite = torch.isfinite(image).flatten(1).all(dim=1)
    if not finite.all():
        raise ValueError(
            f'{who}: {int((~finite).sum())} of {len(image)} patches hold NaN or infinite values, the first is patch '
            f'{int(finite.int().argmin())}; fill them and ignore their pixels in the mask'
        )
    wrong = (mask < 0) | (mask >= spec.num_classes)
    if spec.ignore_index is not None:
        wrong &= mask != spec.ignore_index
    if wrong.any():
        raise ValueError(
            f'{who}: mask of patch {int(wrong.flatten(1).any(dim=1).int().argmax())} holds '
            f'{mask[wrong].unique().tolist()[:8]}, expected 0 to {spec.num_classes - 1}'
            + ('' if spec.ignore_index is None else f' or {spec.ignore_index} where a pixel does not count')
        )


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
    """What a coarser sensor saw of windows, interpolated to their pixels.

    Args:
        image: (n, C, size, size) float32 in the dataset's unit.
        factor: how many times coarser its pixels are.
    """

    image: Tensor
    factor: int


def read_coarse_windows(scene: Scene, corners: np.ndarray, size: int) -> CoarseWindows:
    """Windows of the image that a scene has of a coarser sensor: interpolated first, then cut.

    So they may begin at any pixel. Only the surroundings that an interpolated pixel depends on are read with a window.

    Args:
        scene: with such an image.
        corners: (n, 2) upper-left corners in pixels of the scene.
        size: side of a window in pixels of the scene.
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


def plot_patch(sample: Sample, spec: SampleSpec, show_titles: bool = True, suptitle: str | None = None) -> Figure:
    """Draw a patch in false colour, its mask, and a ``prediction`` where the sample has one.

    Args:
        sample: of kind ``'segmentation'``.
        spec: what it is.
        show_titles: whether to name the pictures.
        suptitle: title of the whole figure.

    Returns:
        a matplotlib figure, registered with no window.
    """
    masks = {
        name: sample[name].reshape(sample['image'].shape[-2:]) for name in ('mask', 'prediction') if name in sample
    }
    figure = Figure(figsize=(2.6 * (1 + len(masks)) + 1.6, 3), layout='constrained')
    panel: Any = figure.subfigures()
    grid = panel.subplots(1, 1 + len(masks), squeeze=False)[0]
    grid[0].imshow(false_colour(sample['image'], spec.wavelengths), interpolation='nearest')
    for axes, mask in zip(grid[1:], masks.values(), strict=True):
        axes.imshow(mask_colour(mask, spec), interpolation='nearest')
    for axes, title in zip(grid, ('image', *masks), strict=True):
        axes.set_axis_off()
        if show_titles:
            axes.set_title(title)
    _mask_legend(panel, list(masks.values()), spec)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure
