"""Splits of the pixels of a scene into training, validation and test parts.

Test pixels are chosen first. Everything that a generator may see comes from the rest, the *training area*; the
validation part is taken from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.ndimage import binary_dilation

from ..seen import Footprint
from ..settings import BETWEEN, NOT_NEGATIVE, SHARE, Range, check_settings, check_value
from .labels import UNLABELLED
from .scene import Scene
from .windows import block_numbers

OnRare = Literal['error', 'drop']
Parts = tuple[np.ndarray, np.ndarray]

_COMPARED = 65_536  # spectra compared at a time; all together would take gigabytes on a fully labelled scene


class RareClassError(ValueError):
    """A class with fewer pixels than the split needs."""


@dataclass(frozen=True, eq=False)
class Split:
    """Pixels of one scene in four disjoint parts.

    Args:
        scene: fingerprint of the scene.
        num_pixels: number of pixels of the scene.
        strategy: the splitter's name and settings, JSON-ready.
        seed: seed of the draw.
        classes: class ids in label order; label k of a dataset is ``classes[k]``.
        train: flat indices of labelled training pixels, ascending.
        val: flat indices of labelled validation pixels, inside the training area.
        test: flat indices of labelled test pixels.
        unlabelled: flat indices of training-area pixels whose label, if any, is hidden.
        dropped: what was left out, in words.
    """

    scene: str
    num_pixels: int
    strategy: dict[str, Any]
    seed: int
    classes: tuple[int, ...]
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    unlabelled: np.ndarray
    dropped: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify scene, classes and parts."""
        return fingerprint_of(json.dumps([self.scene, self.classes]), self.train, self.val, self.test, self.unlabelled)

    def footprint(self) -> Footprint:
        """All pixels that a generator trained on this split may have seen: train, val and unlabelled."""
        return Footprint.of(self.scene, self.num_pixels, np.concatenate([self.train, self.val, self.unlabelled]))


def checked_seed(who: str, scene: object, seed: int) -> int:
    """The seed of a split, if it is one, and what is to be split is a scene."""
    if not isinstance(scene, Scene):
        raise TypeError(f'{who}: a Scene is split, found {type(scene).__name__}; see open_scene')
    return int(check_value(who, 'seed', seed, int, NOT_NEGATIVE))


def require_classes(
    splitter: Any, scene: Scene, seed: int, kept: int, lost: Sequence[str], what: str, advice: str
) -> None:
    """Refuse a split that leaves out rare classes, if that is an error, or has fewer than two classes.

    One will do in a scene that has no classes.
    """
    if kept >= (1 if scene.without_classes else 2) and (not lost or splitter.on_rare == 'drop'):
        return
    if not lost:
        advice = 'fewer than two classes are left. Generators that need no classes train on scene.as_one_class()'
    elif splitter.on_rare == 'error':
        advice += ", or on_rare='drop' to leave such classes out"
    why = '; '.join(lost) + '. ' if lost else ''
    raise RareClassError(
        f'{type(splitter).__name__} of scene {scene.name!r}, seed {seed}: {kept} of {kept + len(lost)} classes have '
        f'enough {what}, {why}{advice}'
    )


def fingerprint_of(head: str, *parts: np.ndarray) -> str:
    """16 hex digits that identify a split, from a text and integers."""
    digest = hashlib.sha256(head.encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes() + b'|')
    return digest.hexdigest()[:16]


def spectral_duplicates(scene: Scene, pixels: np.ndarray) -> np.ndarray:
    """(N,) int64 numbers of the spectra at (N,) flat pixel indices, equal for equal spectra.

    Identical spectra on both sides of a split make a test pixel a training pixel. Scenes that were resampled from a
    coarser grid hold many: Salinas-A has 3699 distinct spectra among its 5348 labelled pixels. Spectra are compared by
    two 64-bit hashes of the bits of all bands in use.
    """
    weights = np.random.default_rng(0).integers(1, 2**63, size=(2, scene.num_bands), dtype=np.uint64) | np.uint64(1)
    hashes = np.empty((len(pixels), 2), dtype=np.uint64)
    for start in range(0, len(pixels), _COMPARED):
        part = slice(start, start + _COMPARED)
        bits = scene.spectra(pixels[part]).view(np.uint32).astype(np.uint64)
        for k, w in enumerate(weights):
            hashes[part, k] = (bits * w).sum(axis=1, dtype=np.uint64)
    order = np.lexsort(hashes.T[::-1])  # np.unique over rows would copy them as structures
    ranked = hashes[order]
    first = np.zeros(len(pixels), dtype=bool)
    first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    duplicates = np.empty(len(pixels), dtype=np.int64)
    duplicates[order] = np.cumsum(first)
    return duplicates


def _deal(rng: np.random.Generator, members: np.ndarray, duplicates: np.ndarray, count: int) -> Parts:
    """Deal about ``count`` members to the first part and the rest to the second, keeping duplicates together."""
    order = rng.permutation(np.unique(duplicates))
    rank = np.empty(int(duplicates.max()) + 1 if duplicates.size else 0, dtype=np.int64)
    rank[order] = np.arange(len(order))
    by_rank = np.argsort(rank[duplicates], kind='stable')
    ends = np.flatnonzero(np.diff(rank[duplicates][by_rank], append=-1))  # last member of each set
    enough = int(np.searchsorted(ends + 1, count))
    cut = 0 if count == 0 else int(ends[min(enough, len(ends) - 1)]) + 1
    return members[by_rank[:cut]], members[by_rank[cut:]]


@dataclass(frozen=True)
class Splitter(ABC):
    """Base of all split strategies; call it with a scene and a seed.

    Args:
        per_class: labelled pixels per class to use from the training area, validation included; None for all.
        val_fraction: share of those labelled pixels used for validation instead of training, which studies need: of
            3 % that is 0.9 %. 0 for none, as in Audebert et al.
        min_count: least number of labelled pixels of a class on either side.
        on_rare: ``'error'`` refuses classes with fewer pixels, ``'drop'`` leaves them out and lists them in
            ``dropped``.
        max_unlabelled: largest number of unlabelled pixels to keep, drawn at random.
        max_test: largest number of test pixels to keep, drawn at random, at least one of each class; None for all.
    """

    per_class: int | None = None
    val_fraction: float = 0.3
    min_count: int = 5
    on_rare: OnRare = 'error'
    max_unlabelled: int = 20_000
    max_test: int | None = None

    def __post_init__(self) -> None:
        # Of a class one trains, and one validates.
        ranges = {'per_class': Range(2), 'val_fraction': SHARE, 'fraction': BETWEEN, 'test_fraction': BETWEEN}
        check_settings(self, max_unlabelled=NOT_NEGATIVE, buffer=NOT_NEGATIVE, **ranges)

    @abstractmethod
    def sides(self, scene: Scene, pixels: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Parts:
        """Masks over all H*W pixels: the training and the test area; of valid labelled pixels and their class ids."""

    def __call__(self, scene: Scene, seed: int = 0) -> Split:
        """Split a scene.

        Raises:
            RareClassError: for a class with too few pixels, if ``on_rare='error'``.
        """
        seed = checked_seed(type(self).__name__, scene, seed)
        rng = np.random.default_rng(seed)
        flat = scene.flat_labels()
        pixels = np.flatnonzero((flat != UNLABELLED) & scene.valid)
        if pixels.size == 0:
            raise ValueError(
                f'Scene {scene.name!r}: no labelled pixel that is measured; a split needs labels, and 0, negative ones '
                'and NaN are none. Generators that need no labels train on scene.as_one_class(), in a config '
                'scene.one_class: true'
            )
        in_train, in_test = self.sides(scene, pixels, flat[pixels], rng)
        test = pixels[in_test[pixels]]
        area = np.flatnonzero(in_train & scene.valid)
        labelled = area[flat[area] != UNLABELLED]
        pool = np.setdiff1d(area, labelled, assume_unique=True)
        if len(pool) > 4 * self.max_unlabelled:  # thinned first, so that finding duplicates in huge scenes is cheap
            pool = np.sort(rng.choice(pool, 4 * self.max_unlabelled, replace=False))

        # Copies of test spectra are removed from the training area, where they would leak.
        everything = np.concatenate([test, labelled, pool])
        duplicates = np.empty(scene.num_pixels, dtype=np.int64)
        duplicates[everything] = spectral_duplicates(scene, everything)
        leaked = np.isin(duplicates[labelled], duplicates[test])
        dropped = []
        if leaked.any():
            dropped.append(f'{int(leaked.sum())} labelled training pixels identical to test pixels')
        labelled = labelled[~leaked]
        pool = pool[~np.isin(duplicates[pool], duplicates[test])]

        kept, lost = [], []
        need = max(self.min_count, self.per_class or 0)
        for class_id in scene.class_ids:
            have, tested = int((flat[labelled] == class_id).sum()), int((flat[test] == class_id).sum())
            if have < need or tested < self.min_count:
                why = (
                    f'{scene.class_title(class_id)}: {have} training pixels (at least {need}), '
                    f'{tested} test pixels (at least {self.min_count})'
                )
                if unmeasured := int(((flat == class_id) & ~scene.valid).sum()):
                    why += f', {unmeasured} pixels that are not measured (nodata, NaN or masked)'
                lost.append(why)
            else:
                kept.append(class_id)
        advice = 'Use another split, other numbers per class or a smaller min_count'
        require_classes(self, scene, seed, len(kept), lost, 'pixels', advice)
        dropped += lost

        train, val, hidden = [], [], []
        for class_id in kept:
            members = labelled[flat[labelled] == class_id]
            if self.per_class is not None:
                chosen = rng.permutation(members)
                hidden.append(chosen[self.per_class :])
                members = np.sort(chosen[: self.per_class])
            wanted = max(1, round(self.val_fraction * len(members))) if self.val_fraction else 0
            val_count = min(wanted, len(members) - 1)
            to_val, to_train = _deal(rng, members, duplicates[members], val_count)
            if len(to_train) == 0:  # all are duplicates of each other, so both sides may hold them
                to_val, to_train = members[:val_count], members[val_count:]
            train.append(to_train)
            val.append(to_val)
        all_val = np.concatenate(val)
        # Pixels of dropped classes and beyond the budget become unlabelled.
        others = labelled[~np.isin(flat[labelled], kept)]
        pool = np.concatenate([pool, others, *hidden])
        pool = pool[~np.isin(duplicates[pool], duplicates[all_val])]
        if len(pool) > self.max_unlabelled:
            pool = rng.choice(pool, self.max_unlabelled, replace=False)
        test = test[np.isin(flat[test], kept)]
        if self.max_test is not None and len(test) > self.max_test:
            test = self._some(test, flat, rng)
        return Split(
            scene=scene.fingerprint,
            num_pixels=scene.num_pixels,
            strategy={'name': type(self).__name__, **dataclasses.asdict(self)},
            seed=seed,
            classes=tuple(kept),
            train=np.sort(np.concatenate(train)),
            val=np.sort(all_val),
            test=np.sort(test),
            unlabelled=np.sort(pool),
            dropped=tuple(dropped),
        )

    def _some(self, test: np.ndarray, flat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``max_test`` random test pixels, with at least one of each class."""
        assert self.max_test is not None
        ids = np.unique(flat[test])
        if self.max_test < len(ids):
            raise ValueError(f'{type(self).__name__}: max_test={self.max_test} is fewer than the {len(ids)} classes')
        chosen = rng.choice(test, self.max_test, replace=False)
        if np.isin(ids, flat[chosen]).all():
            return chosen
        first = np.concatenate([rng.choice(test[flat[test] == class_id], 1) for class_id in ids])
        return np.concatenate([first, rng.choice(np.setdiff1d(test, first), self.max_test - len(ids), replace=False)])


@dataclass(frozen=True)
class RandomSplit(Splitter):
    """A random share of the labelled pixels of each class for training, the rest for testing (Audebert et al.: 3 %).

    As neighbouring pixels fall on both sides, accuracies are too high. Only pixels without any label are unlabelled
    training data, since test pixels lie between them.

    Args:
        fraction: share of the labelled pixels of a class in the training area.
    """

    fraction: float = 0.03

    def sides(self, scene: Scene, pixels: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Parts:
        """Masks of the training and the test pixels."""
        duplicates = spectral_duplicates(scene, pixels)
        train = scene.flat_labels() == UNLABELLED
        test = np.zeros(scene.num_pixels, dtype=bool)
        for class_id in np.unique(labels):
            mine = labels == class_id
            budget = self.fraction * mine.sum() if self.per_class is None else self.per_class
            to_train, to_test = _deal(rng, pixels[mine], duplicates[mine], max(round(budget), 1))
            train[to_train] = True
            test[to_test] = True
        return train, test


@dataclass(frozen=True)
class HalvesSplit(Splitter):
    """Two halves of the image (Audebert et al.: spatially disjoint 50 %).

    Args:
        axis: ``'columns'`` trains on the left half, ``'rows'`` on the upper one.
        swap: exchange the two halves.
        buffer: pixels closer than this to the border between the halves belong to neither.
    """

    axis: Literal['columns', 'rows'] = 'columns'
    swap: bool = False
    buffer: int = 0

    def sides(self, scene: Scene, pixels: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Parts:
        """Masks of the two halves."""
        along = 1 if self.axis == 'columns' else 0
        position = np.indices(scene.shape)[along].reshape(-1)
        middle = scene.shape[along] // 2
        near = np.where(position < middle, middle - position, position - middle + 1) <= self.buffer
        first, second = (position < middle) & ~near, (position >= middle) & ~near
        return (second, first) if self.swap else (first, second)


@dataclass(frozen=True)
class GroupSplit(Splitter):
    """Whole groups (tiles, flight lines, fields) for training or testing, drawn until the test share is reached.

    Args:
        test_fraction: share of the labelled pixels in the test part, as closely as whole groups allow.
        attempts: number of draws; the one with most classes on both sides is taken.
    """

    test_fraction: float = 0.5
    attempts: int = 50

    def groups(self, scene: Scene) -> np.ndarray:
        """(H*W,) group of each pixel."""
        if scene.groups is None:
            raise ValueError(f'GroupSplit: scene {scene.name!r} has no groups; give one group number per pixel')
        return scene.groups.reshape(-1)

    def sides(self, scene: Scene, pixels: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Parts:
        """Masks of the training and the test groups."""
        numbers, group = np.unique(self.groups(scene), return_inverse=True)
        group = group.reshape(-1)
        ids, label = np.unique(labels, return_inverse=True)
        counts = np.zeros((len(numbers), len(ids)), dtype=np.int64)
        np.add.at(counts, (group[pixels], label.reshape(-1)), 1)
        filled = np.flatnonzero(counts.sum(axis=1))
        if len(filled) < 2:
            raise ValueError(f'{type(self).__name__}: scene {scene.name!r} has {len(filled)} labelled groups; 2 needed')
        need = max(self.min_count, self.per_class or 0)
        most = -1
        for _ in range(self.attempts):
            order = rng.permutation(filled)
            reached = np.cumsum(counts[order].sum(axis=1)) / counts.sum()
            cut = int(np.argmin(np.abs(reached[:-1] - self.test_fraction))) + 1
            tested, trained = counts[order[:cut]].sum(axis=0), counts[order[cut:]].sum(axis=0)
            kept = int(((tested >= self.min_count) & (trained >= need)).sum())
            if kept > most:  # the first of equals; a later one would favour an exact share
                most, chosen = kept, order[:cut]
            if kept == len(ids):
                break
        in_test = np.isin(group, chosen)
        return ~in_test, in_test  # groups without labels belong to the training area: they hold no test pixel


@dataclass(frozen=True)
class BlockSplit(GroupSplit):
    """Square blocks of the image for training or testing, with a buffer between them.

    Args:
        block: side of a block in pixels.
        buffer: training pixels closer than this to a test block are left out.
    """

    block: int = 16
    buffer: int = 2

    def groups(self, scene: Scene) -> np.ndarray:
        """(H*W,) block of each pixel."""
        return block_numbers(scene.shape, self.block).reshape(-1)

    def sides(self, scene: Scene, pixels: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Parts:
        """Masks of the training blocks without the buffer around the test blocks, and of the test blocks."""
        _, test = super().sides(scene, pixels, labels, rng)
        square = np.ones((2 * self.buffer + 1,) * 2, dtype=bool)
        return ~binary_dilation(test.reshape(scene.shape), structure=square).reshape(-1), test
