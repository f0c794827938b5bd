"""Splits of a scene into patches with one label each, for patch classifiers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .labels import UNLABELLED, class_positions
from .patches import PARTS, PatchPart, PatchSplit, PatchSplitter
from .scene import Scene
from .splits import fingerprint_of, require_classes
from .windows import tile_corners, window_class_counts

Rule = Literal['centre', 'dominant']


@dataclass(frozen=True, eq=False)
class LabelledPatchSplit(PatchSplit):
    """Windows in three parts that share no pixel, and the labelled patches within them.

    Args:
        patch: side of a patch in pixels; that of a window is ``size``.
        corners: (n, 2) int64 upper-left corners of the patches of each part, in the order of the parts.
        labels: (n,) int64 their labels, positions in ``classes``.
    """

    patch: int = 0
    corners: tuple[np.ndarray, ...] = ()
    labels: tuple[np.ndarray, ...] = ()

    def patches(self, part: PatchPart) -> tuple[np.ndarray, np.ndarray]:
        """(n, 2) corners and (n,) labels of the patches of a part."""
        self.windows(part)
        return self.corners[PARTS.index(part)], self.labels[PARTS.index(part)]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify scene, classes, sizes, windows and patches."""
        arrays = (array for part in PARTS for array in self.patches(part))
        return fingerprint_of(f'{super().fingerprint} {self.patch}', *arrays)


@dataclass(frozen=True)
class LabelledPatchSplitter(PatchSplitter):
    """Draws windows of a scene for training, validation and test, and patches with one label each within them.

    A patch lies within a window, so that patches of different parts share no pixel. A patch in overlapping windows is
    taken once. If windows are as small as patches, there are few test patches; larger windows hold many.

    Args:
        patch: side of a patch in pixels, at most the ``size`` of a window.
        rule: ``'centre'`` labels a patch by its central pixel (right of and below the middle if the side is even);
            ``'dominant'`` by the most frequent class of its labelled pixels, the first in a tie. Patches without a
            label are left out.
        patch_stride: step between patches of a window; by default, half the patch.
        per_class: largest number of training patches per class, drawn at random; None for all.
        val_per_class: largest number of validation patches per class, which use labels too; None for all.
        min_patches: least number of training patches per class; see ``on_rare``.

    Raises:
        ValueError: if a setting is out of its range.
    """

    patch: int = 8
    rule: Rule = 'centre'
    patch_stride: int | None = None
    per_class: int | None = None
    val_per_class: int | None = None
    min_patches: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.patch <= self.size:
            raise ValueError(
                f'LabelledPatchSplitter: patches of {self.patch} pixels must lie in windows of {self.size}; enlarge '
                'size, which is that of a window'
            )
        if self.per_class is not None and self.per_class < self.min_patches:
            raise ValueError(
                f'LabelledPatchSplitter: per_class {self.per_class} leaves no class with min_patches '
                f'{self.min_patches}; lower min_patches'
            )

    def __call__(self, scene: Scene, seed: int = 0) -> LabelledPatchSplit:
        """Draw the patches of a scene; too few pixels or patches of a class may be a :class:`RareClassError`."""
        split = super().__call__(scene, seed)
        held = np.bincount(self._labelled(scene, split, 'train')[1], minlength=len(split.classes))
        rare = np.flatnonzero(held < self.min_patches).tolist()
        lost = tuple(
            f'{scene.class_title(split.classes[k])}: {held[k]} training patches (at least {self.min_patches})'
            for k in rare
        )
        kept = tuple(class_id for k, class_id in enumerate(split.classes) if k not in rare)
        advice = 'Use a smaller patch_stride or other regions'
        require_classes(self, scene, split.seed, len(kept), lost, 'training patches', advice)
        split = replace(split, classes=kept, dropped=split.dropped + lost)
        rng = np.random.default_rng([split.seed, len(PARTS)])
        budgets = (self.per_class, self.val_per_class, None)
        found = [self._labelled(scene, split, part) for part in PARTS]
        parts = [_draw(*patches, budget, rng) for patches, budget in zip(found, budgets, strict=True)]
        if not all(len(labels) for _, labels in parts):
            counts = ', '.join(f'{len(labels)} {part}' for (_, labels), part in zip(parts, PARTS, strict=True))
            raise ValueError(
                f'LabelledPatchSplitter of scene {scene.name!r}, seed {split.seed}: found {counts} patches, expected '
                'some in every part; use a smaller patch_stride'
            )
        return LabelledPatchSplit(
            **vars(split),
            patch=self.patch,
            corners=tuple(corners for corners, _ in parts),
            labels=tuple(labels for _, labels in parts),
        )

    def _labelled(self, scene: Scene, split: PatchSplit, part: PatchPart) -> tuple[np.ndarray, np.ndarray]:
        """(n, 2) corners and (n,) labels of all patches of a part that have one."""
        stride = self.patch_stride or max(1, self.patch // 2)
        within = tile_corners((self.size, self.size), (self.patch, self.patch), stride)
        corners = np.unique((split.windows(part)[:, None] + within).reshape(-1, 2), axis=0)
        none = len(split.classes)
        flat = np.where(scene.valid, scene.flat_labels(), UNLABELLED)
        label = class_positions(flat, split.classes, none).reshape(scene.shape)
        if self.rule == 'centre':
            labels = label[tuple((corners + self.patch // 2).T)]
        else:
            held = window_class_counts(label, corners, self.patch, none)
            labels = np.where(held.any(axis=1), held.argmax(axis=1), none)
        has_one = labels < none
        return corners[has_one].astype(np.int64), labels[has_one].astype(np.int64)


def _draw(
    corners: np.ndarray, labels: np.ndarray, per_class: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """At most ``per_class`` patches of each class, in the original order."""
    if per_class is None:
        return corners, labels
    order = rng.permutation(len(labels))
    kept = np.sort(np.concatenate([order[labels[order] == k][:per_class] for k in np.unique(labels)]))
    return corners[kept], labels[kept]
