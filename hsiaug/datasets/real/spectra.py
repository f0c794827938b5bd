"""Labelled spectra of one part of a split, as a torchgeo dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...samples import Transform, class_counts
from ...scenes import Scene, Split
from ...scenes.labels import class_positions
from ...settings import check_value
from ..contract.batches import ReadAtOnce, row_numbers
from .held import RealDataset
from .patches import require_split_of

Part = Literal['train', 'val', 'test', 'unlabelled']


class SpectraDataset(ReadAtOnce, RealDataset):
    """Spectra of a scene, one sample per pixel.

    Samples are read from the scene on demand, so that a memory-mapped scene is never loaded whole.

    Args:
        scene: the scene.
        split: a split of that scene.
        part: ``'train'``, ``'val'``, ``'test'`` or ``'unlabelled'``; unlabelled samples have no ``label``.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: for an unknown part, or a split of another scene.
    """

    def __init__(self, scene: Scene, split: Split, part: Part = 'train', transforms: Transform | None = None) -> None:
        check_value('SpectraDataset', 'part', part, Part)
        require_split_of(scene, split, 'SpectraDataset')
        self.scene, self.split, self.part, self.transforms = scene, split, part, transforms
        self.spec = scene.spec(split.classes)
        self.pixels: np.ndarray = getattr(split, part)
        self.labels = torch.from_numpy(class_positions(scene.flat_labels()[self.pixels], split.classes, -1))

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """``image`` (n, C) and ``label`` (n,), before ``transforms``.

        Raises:
            IndexError: if an index is out of range.
        """
        rows = row_numbers(indices, len(self), 'SpectraDataset')
        batch = {'image': torch.from_numpy(self.scene.spectra(self.pixels[rows]))}
        if self.part != 'unlabelled':
            batch['label'] = self.labels[rows]
        return batch

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All spectra (N, C) and labels (N,); the labels of unlabelled spectra are -1."""
        image = self.batch(range(len(self)))['image']
        return image, torch.full((len(self),), -1) if self.part == 'unlabelled' else self.labels

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) number of spectra per class."""
        return class_counts(self.labels, self.spec.num_classes)

    def __str__(self) -> str:
        counts: dict[str, Any] = dict(zip(self.spec.classes, self.class_counts.tolist(), strict=True))
        return f'{super().__str__()}\n    scene: {self.scene.name}, {self.part}\n    classes: {counts}'
