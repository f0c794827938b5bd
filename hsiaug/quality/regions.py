"""Regions of training samples, so that real samples can be scored by models fitted without their region."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..datasets.own.parts import AnyScene, AnySplit
from ..datasets.own.sample_set import SampleSet, SampleSplit
from ..scenes import BitemporalScene
from ..scenes.labelled_patches import LabelledPatchSplit
from ..scenes.patches import PatchSplit
from ..scenes.windows import block_numbers
from ..settings import check_value
from ..streams import shuffled

FOLDS = 5
_SPECTRA_BLOCK = 8  # side of a region of single pixels


def label_regions(scene: AnyScene, split: AnySplit, block: int | None = None) -> Tensor:
    """Number of the region of each training label.

    Regions are the scene's groups (tiles, flight lines, fields) if it has any, else square blocks of pixels; for
    datasets, the groups of their samples.

    Args:
        scene: the scene, or samples of datasets.
        split: its split.
        block: side of a block in pixels; by default, that of a window, or 8 pixels for single spectra.

    Returns:
        int64 in the shape of the training labels or masks: (N,), (N, H, W), or (N, 1, H, W) for pairs of dates; for
        patches with one label each, (N, H, W), the region of each pixel, or (N, 1, 1).
    """
    if isinstance(scene, SampleSet):
        image = scene.spec.size or ()
        shape = {'scene': (1, 1), 'change': (1, *image)}.get(scene.spec.kind, image)
        groups = torch.from_numpy(scene.groups[split.train].astype(np.int64))
        return groups.reshape(-1, *(1,) * len(shape)).expand(-1, *shape)
    assert not isinstance(split, SampleSplit)
    if isinstance(split, PatchSplit):
        corners, size = split.train, split.size
        if isinstance(split, LabelledPatchSplit):
            corners, size = split.patches('train')[0], split.patch
        row, column = (corners[:, axis, None] + np.arange(size) for axis in (0, 1))
        row, column = np.broadcast_arrays(row[:, :, None], column[:, None, :])
        block = size if block is None else block
    else:
        row, column = np.divmod(split.train, scene.shape[1])
        block = _SPECTRA_BLOCK if block is None else block
    check_value('label_regions', 'block', block, int)
    region = (block_numbers(scene.shape, block) if scene.groups is None else scene.groups)[row, column]
    regions = torch.from_numpy(np.ascontiguousarray(region, dtype=np.int64))
    return regions[:, None] if isinstance(scene, BitemporalScene) else regions


def require_regions(regions: Tensor | None, target: Tensor, who: str) -> Tensor:
    """Regions 0 to R - 1 in the shape of labels or masks; if None, each sample is its own region."""
    if regions is None:
        regions = torch.arange(len(target)).reshape(-1, *(1,) * (target.ndim - 1)).expand(target.shape)
    if regions.shape != target.shape and not (target.ndim == 1 and regions.ndim == 3 and len(regions) == len(target)):
        raise ValueError(
            f'{who}: regions must have the shape of the training labels {tuple(target.shape)}, found '
            f'{tuple(regions.shape)}; see label_regions'
        )
    numbers, regions = torch.unique(regions, return_inverse=True)
    if len(numbers) < 2:
        raise ValueError(
            f'{who}: real samples are judged by models fitted without their region, which needs two regions, found '
            f'{len(numbers)}; give smaller blocks or more training samples'
        )
    return regions


def deal_folds(regions: Tensor, seed: int) -> Iterator[Tensor]:
    """Masks in the shape of ``regions`` of the labels in each fold: at most five folds of whole regions."""
    count = int(regions.max()) + 1
    folds = min(FOLDS, count)
    fold = (shuffled(count, seed) % folds)[regions]
    for k in range(folds):
        yield fold == k


def shares_region(one: Tensor, other: Tensor) -> Tensor:
    """(n, m) bool: whether two samples with regions (n, ...) and (m, ...) have one in common."""
    if one.ndim == 1:
        return one[:, None] == other
    count = int(max(one.max(), other.max())) + 1
    held = [torch.zeros(len(r), count).scatter_(1, r.reshape(len(r), -1), 1.0) for r in (one, other)]
    return held[0] @ held[1].T > 0


def independent_samples(regions: Tensor) -> int:
    """Number of independent samples: all spectra; of windows, those without a common region."""
    if regions.ndim == 1:
        return len(regions)
    linked = shares_region(regions, regions)
    free = torch.ones(len(linked), dtype=torch.bool)
    count = 0
    for row in linked.sum(dim=1).argsort(stable=True).tolist():  # fewest neighbours first: they exclude fewest others
        if free[row]:
            free &= ~linked[row]
            count += 1
    return count
