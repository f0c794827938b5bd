"""What the page on a bank compares: the training part, the held-out part and some samples of the bank."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets import SyntheticBank, scene_dataset
from ..datasets.bank import layout
from ..datasets.batches import fetch
from ..metrics.patches import Pair
from ..samples import SampleSpec, require_compatible, require_unseen
from ..scenes import LabelledPatchSplit, PatchSplit, Scene, Split
from ..systems import TrainingData
from ..systems.fit import training_data
from .bank import spread_rows

LOOKED_AT = {'spectrum': 5000, 'scene': 500, 'segmentation': 500, 'change': 500}
"""Samples of a bank that are looked at by default, by kind; of large images as many as ``_BYTES`` hold."""
_BYTES = 512 << 20


@dataclass(frozen=True)
class Parts:
    """Real and synthetic samples.

    Args:
        bank: the bank.
        scene: the real scene.
        split: its split.
        data: training and validation part.
        test: batch of the held-out part.
        held_out: samples that this part has in all.
        fake: batch of the bank.
        rows: (n,) its rows in the bank.
    """

    bank: SyntheticBank
    scene: Scene
    split: Split | PatchSplit
    data: TrainingData
    test: dict[str, Any]
    held_out: int
    fake: dict[str, Any]
    rows: np.ndarray

    @property
    def spec(self) -> SampleSpec:
        """What real samples are."""
        return self.data.spec

    @property
    def train(self) -> dict[str, Tensor]:
        """Batch of the training part."""
        return {'image': self.data.x, target_key(self.spec): self.data.y}

    def sides(self) -> dict[str, dict[str, Any]]:
        """Batches by what they are."""
        return {'real, training': self.train, 'real, test': self.test, 'synthetic': self.fake}

    def place(self, row: int) -> str:
        """Where a training sample lies in the scene."""
        if isinstance(self.split, PatchSplit):
            labelled = isinstance(self.split, LabelledPatchSplit)
            corners = self.split.patches('train')[0] if labelled else self.split.train  # type: ignore[attr-defined]
            corner = corners[row]
            return f'corner at row {corner[0]}, column {corner[1]}'
        pixel = divmod(int(self.split.train[row]), self.scene.shape[1])
        return f'pixel at row {pixel[0]}, column {pixel[1]}'


def read_parts(bank: SyntheticBank, scene: Scene, split: Split | PatchSplit, count: int | None = None) -> Parts:
    """Read what is compared.

    Args:
        bank: the bank.
        scene: the real scene.
        split: its split.
        count: samples at most of the bank, and of the held-out part, spread evenly; see :data:`LOOKED_AT`.

    Raises:
        LeakageError: if the bank's generator has seen test pixels of the split.
        SpecMismatchError: if real and synthetic samples do not fit together.
        ValueError: if ``count`` is below 1.
    """
    if count is not None and count < 1:
        raise ValueError(f'count must be at least 1, found {count}')
    require_unseen(bank.provenance, split.scene, split.test)
    unseen: Any = scene_dataset(scene, split, 'test')
    require_compatible(unseen.spec, bank.spec)
    dtype, shape = layout(bank.spec, soft_labels=False)['image']
    most = count or max(2, min(LOOKED_AT[bank.spec.kind], _BYTES // (dtype.itemsize * math.prod(shape))))
    rows = spread_rows(len(bank), most)
    data, test = training_data(scene, split), fetch(unseen, spread_rows(len(unseen), most))
    return Parts(bank, scene, split, data, test, len(unseen), bank.batch(rows.tolist()), rows)


def target_key(spec: SampleSpec) -> str:
    """Key of the target in a batch."""
    return 'label' if spec.kind in ('spectrum', 'scene') else 'mask'


def as_pairs(batch: dict[str, Any], spec: SampleSpec, date: int = 0) -> Pair:
    """Images (n, C, H, W) with masks (n, H, W), whatever the kind: spectra have one pixel, labels are those of all.

    Args:
        batch: in the sample contract.
        spec: its spec.
        date: which of two dates.
    """
    image, target = batch['image'], batch[target_key(spec)]
    if spec.kind == 'spectrum':
        return image[:, :, None, None], target[:, None, None]
    if spec.kind == 'scene':
        return image, target[:, None, None].expand(len(image), *image.shape[-2:])
    return (image[:, date], target[:, 0]) if spec.kind == 'change' else (image, target)


def pair_spec(spec: SampleSpec) -> SampleSpec:
    """The spec of such pairs."""
    return replace(spec, kind='segmentation', size=spec.size or (1, 1))


def thinned(pair: Pair, per_class: int, seed: int = 0) -> Pair:
    """At most ``per_class`` samples of each label (n,), at random, in random order."""
    image, label = pair
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    kept = torch.cat([order[label[order] == k][:per_class] for k in label.unique()])
    kept = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))]
    return image[kept], label[kept]
