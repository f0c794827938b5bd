"""Pairs of dates with change masks, as a torchgeo dataset."""

from __future__ import annotations

from typing import Self

from torch.utils.data import Dataset

from ..samples import Sample, SampleSpec, Transform
from ..scenes.change import CHANGE_CLASSES, BitemporalScene
from ..scenes.patches import PatchPart, PatchSplit
from .held import IGNORE, HeldMasks
from .patches import PatchDataset


class ChangeDataset(HeldMasks):
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

    @classmethod
    def from_scene(
        cls, scene: BitemporalScene, split: PatchSplit, part: PatchPart = 'train', transforms: Transform | None = None
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
            ignored = pairs.spec.ignore_index in pairs.mask.unique().tolist()
            hint = '; use mask // 255 if 255 means changed' if ignored else ''
            raise ValueError(f'ChangeDataset: no pixel of any of the {len(pairs)} masks is changed (1){hint}')
        return pairs
