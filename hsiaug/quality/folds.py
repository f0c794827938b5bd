"""Cross-fitting within the training area: each fold is a split whose test part is the fold.

A generator, gate or classifier fitted on such a split has not seen the fold, which the leakage guard can check. The
test part of the original split is in none of the folds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np

from ..datasets.own.parts import AnyScene, AnySplit
from ..datasets.own.sample_set import SampleSet, SampleSplit
from ..functional.dealing import deal_regions
from ..scenes import Scene, Split
from ..scenes.labelled_patches import LabelledPatchSplit
from ..scenes.patches import PatchSplit
from ..scenes.splits import spectral_duplicates
from ..scenes.windows import block_numbers, covered_pixels, window_sums
from ..settings import Range, check_value

Regions = Literal['auto', 'groups', 'blocks', 'samples']
S = TypeVar('S', bound=AnySplit)


def fold_splits(
    scene: AnyScene, split: S, folds: int = 3, seed: int = 0, regions: Regions = 'auto', block: int = 8
) -> list[S]:
    """Divide the labelled training area of a split into folds.

    Each region belongs to one fold. Samples too close to a fold are left out of its training part: unlabelled pixels of
    the fold's regions, pixels with the same spectrum as one of the fold, and windows that share a pixel with it. In
    splits of pixels, a class that lies in fewer regions than there are folds, or would be missing from the training
    part of one, is divided pixel by pixel.

    Args:
        scene: the scene, or samples of datasets.
        split: a split of its pixels, or into windows with masks; or a split of those samples. Training and validation
            part are divided in the same way.
        folds: number of folds.
        seed: seed of the division.
        regions: ``'groups'`` of the scene or the samples; ``'blocks'``, squares of the image; ``'samples'``, no
            regions. ``'auto'`` means groups for samples of datasets; for a scene, samples if the split itself is
            random, groups if the scene has them, samples if it is not an image, else blocks.
        block: side of a block in pixels, or for windows in windows.

    Returns:
        one split per fold, whose test part is the fold; ``train`` and ``val`` are the rest of both parts.

    Raises:
        TypeError: for another type of split.
        ValueError: for fewer than 2 folds, unknown or missing regions, or a class with too few samples.
    """
    check_value('fold_splits', 'folds', folds, int, Range(2))
    check_value('fold_splits', 'block', block, int)
    if regions not in get_args(Regions):
        raise ValueError(f'fold_splits: unknown regions {regions!r}; choose from {get_args(Regions)}')
    if isinstance(scene, SampleSet):
        return cast('list[S]', _sample_folds(scene, cast(SampleSplit, split), folds, seed, regions))
    if regions == 'groups' and scene.groups is None:
        raise ValueError(f"fold_splits: scene {scene.name!r} has no groups; use regions='blocks' or 'samples'")
    if isinstance(split, LabelledPatchSplit) or not isinstance(split, Split | PatchSplit):
        raise TypeError(f'fold_splits: a Split of pixels or a PatchSplit with masks expected, found {type(split)}')
    if regions == 'auto':
        plain: Regions = 'samples' if min(scene.shape) == 1 else 'blocks'
        regions = plain if scene.groups is None else 'groups'
        if split.strategy.get('name') == 'RandomSplit':
            regions = 'samples'  # folds lie as close to their training part as test pixels do to theirs
    if isinstance(split, Split):
        return cast('list[S]', _pixel_folds(scene, split, folds, seed, regions, block))
    return cast('list[S]', _window_folds(scene, split, folds, seed, regions, block))


def _pixel_folds(scene: Scene, split: Split, folds: int, seed: int, regions: Regions, block: int) -> list[Split]:
    labelled = np.concatenate([split.train, split.val])
    in_train = np.arange(len(labelled)) < len(split.train)
    duplicates = spectral_duplicates(scene, np.concatenate([labelled, split.unlabelled]))
    duplicates, pool_duplicates = duplicates[: len(labelled)], duplicates[len(labelled) :]
    label = scene.flat_labels()
    if regions == 'samples':
        region, pool_region = duplicates, np.full(len(split.unlabelled), -1)
    else:
        of_pixel = _regions(scene, regions, block)
        region, pool_region = of_pixel[labelled], of_pixel[split.unlabelled]
    ids = label[labelled]
    of_sample, scattered = _deal(ids, region, in_train, folds, seed)
    parts = []
    for k in range(folds):
        inside = of_sample == k
        near = np.isin(duplicates, duplicates[inside]) & ~inside
        for class_id in np.unique(ids):
            if not (in_train & ~inside & ~near & (ids == class_id)).any():
                # All are duplicates of each other, so both sides may hold them.
                near &= ids != class_id
        apart = np.unique(region[inside & ~scattered])
        parts.append(
            replace(
                split,
                **_named(split, k, folds, regions, seed),
                train=labelled[in_train & ~inside & ~near],
                val=labelled[~in_train & ~inside & ~near],
                test=np.sort(labelled[inside]),
                unlabelled=split.unlabelled[
                    ~np.isin(pool_region, apart) & ~np.isin(pool_duplicates, duplicates[inside])
                ],
            )
        )
    return parts


def _window_folds(
    scene: Scene, split: PatchSplit, folds: int, seed: int, regions: Regions, block: int
) -> list[PatchSplit]:
    corners = np.concatenate([split.train, split.val])
    in_train = np.arange(len(corners)) < len(split.train)
    centre = (corners + split.size // 2) @ [scene.shape[1], 1]
    region = np.arange(len(corners)) if regions == 'samples' else _regions(scene, regions, block * split.size)[centre]
    if (found := len(np.unique(region))) < folds:
        raise ValueError(
            f'fold_splits: the windows of scene {scene.name!r} lie in {found} {regions}, {folds} folds need as many; '
            'use smaller blocks or fewer folds'
        )
    of_window = deal_regions(np.zeros(len(corners), dtype=np.int64), region, folds, np.random.default_rng(seed))
    parts = []
    for k in range(folds):
        inside = of_window == k
        held = covered_pixels(corners[inside], split.size, split.shape)
        shared = window_sums(held[None], split.size)[0]
        clear, of_pool = (shared[tuple(places.T)] == 0 for places in (corners, split.unlabelled))
        if not (clear & in_train).any():
            raise ValueError(
                f'fold_splits: every training window of scene {scene.name!r} shares pixels with fold {k}; use larger '
                'blocks, fewer folds, or windows that overlap less'
            )
        parts.append(
            replace(
                split,
                **_named(split, k, folds, regions, seed),
                train=corners[clear & in_train],
                val=corners[clear & ~in_train],
                test_windows=corners[inside],
                unlabelled=split.unlabelled[of_pool],
            )
        )
    return parts


def _sample_folds(samples: SampleSet, split: SampleSplit, folds: int, seed: int, regions: Regions) -> list[SampleSplit]:
    if regions == 'blocks':
        raise ValueError("fold_splits: samples of datasets have no positions; use regions='groups' or 'samples'")
    rows = np.sort(np.concatenate([split.train, split.val]))
    region = np.arange(len(rows)) if regions == 'samples' else samples.groups[rows]
    if (found := len(np.unique(region))) < folds:
        raise ValueError(
            f'fold_splits: {len(rows)} samples of {samples.name!r} lie in {found} groups, {folds} folds need as many; '
            "use fewer folds, another group, or regions='samples'"
        )
    of_row = samples.deal(rows, region, folds, np.random.default_rng(seed))
    return [
        replace(
            split,
            **_named(split, k, folds, regions, seed),
            train=np.setdiff1d(split.train, rows[of_row == k]),
            val=np.setdiff1d(split.val, rows[of_row == k]),
            test=rows[of_row == k],
        )
        for k in range(folds)
    ]


def _named(split: AnySplit, fold: int, folds: int, regions: str, seed: int) -> dict[str, Any]:
    """Strategy and seed of a fold's split."""
    return {
        'strategy': {'name': 'fold', 'of': split.fingerprint, 'fold': fold, 'folds': folds, 'regions': regions},
        'seed': seed,
    }


def _regions(scene: Scene, regions: Regions, block: int) -> np.ndarray:
    """(H*W,) region of each pixel."""
    if regions == 'groups' and scene.groups is not None:
        return scene.groups.reshape(-1)
    return block_numbers(scene.shape, block, scene.tile_rows).reshape(-1)


def _deal(
    label: np.ndarray, region: np.ndarray, in_train: np.ndarray, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) fold of each sample, and (N,) bool: those dealt one by one."""
    rng = np.random.default_rng(seed)
    of_sample = np.full(len(label), -1)
    ids = np.unique(label)
    few = [k for k in ids if len(np.unique(region[label == k])) < folds]
    whole = ~np.isin(label, few)
    if whole.any():
        of_sample[whole] = deal_regions(label[whole], region[whole], folds, rng)
    scattered = ~whole
    for k in ids:  # every class must remain in training, whichever fold is held out
        mine = (label == k) & in_train
        held = np.bincount(of_sample[mine & whole], minlength=folds)
        if k in few or held.max() == mine.sum():
            scattered |= label == k
            for members in (np.flatnonzero(mine), np.flatnonzero((label == k) & ~in_train)):
                of_sample[rng.permutation(members)] = (np.arange(len(members)) + rng.integers(folds)) % folds
        if mine.sum() < 2:
            raise ValueError(f'fold_splits: class {k} has {int(mine.sum())} training samples; at least 2 are needed')
    return of_sample, scattered
