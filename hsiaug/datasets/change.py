"""Pairs of dates with change masks, as a torchgeo dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset

from ..samples import Sample, SampleSpec
from ..scenes.change import CHANGE_CLASSES, BitemporalScene, require_change_values
from ..scenes.patches import PatchPart, PatchSplit
from .patches import IGNORE, HeldImages, PatchDataset, require_patches
from .preview import _mask_legend, false_colour, mask_colour, stretch_limits


class ChangeDataset(HeldImages):
    """Pairs of dates with change masks, held in memory.

    Args:
        image: (N, 2, C, H, W) float32 in the dataset's unit, finite; first and second date.
        mask: (N, 1, H, W) int64, 0 where nothing changed, 1 where something did, the spec's ignore index where a pixel
            does not count.
        spec: what they are; its kind is ``'change'``.
        split: the split that they come from; a generator that saw its test pixels is then refused by mixing.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: if images, masks and spec do not fit together, or hold values that they must not.
    """

    kind = 'change'

    def _require(self, image: Tensor, mask: Tensor, spec: SampleSpec) -> None:
        require_pairs(image, mask, spec, 'ChangeDataset')

    @classmethod
    def from_scene(
        cls,
        scene: BitemporalScene,
        split: PatchSplit,
        part: PatchPart = 'train',
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> ChangeDataset:
        """The windows of one part of a split, cut alike from both dates and the mask.

        Pixels that are not labelled, or not measured at either date, are ignored in the mask; those not measured hold
        the mean of the window's others at both dates.

        Raises:
            TypeError: if the scene has one date.
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
        """All samples of a change-detection dataset, read into memory as they are.

        Images of different sizes, or too large to train on whole, are cut into windows by
        :meth:`BitemporalScene.from_dataset` and a split.

        Raises:
            ValueError: if no spec is known, the samples do not fit it, or nothing changed in any of them.
        """
        pairs = super().from_dataset(dataset, spec, progress)
        if len(pairs) and not pairs.class_counts[1]:
            hint = (
                '; use mask // 255 if 255 means changed'
                if pairs.spec.ignore_index in pairs.mask.unique().tolist()
                else ''
            )
            raise ValueError(f'ChangeDataset: no pixel of any of the {len(pairs)} masks is changed (1){hint}')
        return pairs

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw one pair in false colour with its mask; see :func:`plot_pair`."""
        return plot_pair(sample, self.spec, show_titles, suptitle)


def require_pairs(image: Tensor, mask: Tensor, spec: SampleSpec, who: str) -> None:
    """Check pairs of dates and their masks against a spec.

    Args:
        image: (N, 2, C, H, W).
        mask: (N, 1, H, W).
        spec: of kind ``'change'`` with two classes.
        who: whose mistake it is, for the message.

    Raises:
        ValueError: naming what was found and expected.
    """
    if spec.kind != 'change' or spec.num_classes != 2:
        raise ValueError(
            f"{who}: a spec of kind 'change' with two classes is needed, found {spec.kind!r} with {spec.classes}"
        )
    size = spec.size or ()
    for name, tensor, shape, dtype in (
        ('image', image, (2, spec.bands, *size), torch.float32),
        ('mask', mask, (1, *size), torch.int64),
    ):
        if tuple(tensor.shape[1:]) != shape or tensor.dtype != dtype or len(tensor) != len(image):
            raise ValueError(
                f'{who}: {name} must be {(len(image), *shape)} {dtype}, found {tuple(tensor.shape)} {tensor.dtype}'
            )
    require_change_values(mask.unique().numpy(), who, spec.ignore_index)
    stacked = replace(spec, kind='segmentation', bands=2 * spec.bands, wavelengths=None)
    require_patches(image.flatten(1, 2), mask[:, 0], stacked, who)


def plot_pair(sample: Sample, spec: SampleSpec, show_titles: bool = True, suptitle: str | None = None) -> Figure:
    """Draw both dates in false colour under one stretch, the mask, and a ``prediction`` where the sample has one.

    Args:
        sample: of kind ``'change'``.
        spec: what it is.
        show_titles: whether to name the pictures.
        suptitle: title of the whole figure.

    Returns:
        a matplotlib figure, registered with no window.
    """
    size = sample['image'].shape[-2:]
    masks = {name: sample[name].reshape(size) for name in ('mask', 'prediction') if name in sample}
    limits = stretch_limits(sample['image'], spec.wavelengths)
    pictures = {
        f'date {k + 1}': false_colour(image, spec.wavelengths, limits) for k, image in enumerate(sample['image'])
    }
    pictures |= {name: mask_colour(mask, spec) for name, mask in masks.items()}
    figure = Figure(figsize=(2.6 * len(pictures) + 1.6, 3), layout='constrained')
    panel: Any = figure.subfigures()
    for axes, (title, picture) in zip(panel.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(picture, interpolation='nearest')
        axes.set_axis_off()
        if show_titles:
            axes.set_title(title)
    _mask_legend(panel, list(masks.values()), spec)
    if suptitle is not None:
        figure.suptitle(suptitle)
    return figure
