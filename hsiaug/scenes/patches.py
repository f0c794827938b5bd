"""Splits of a scene into windows for training, validation and test.

Each region of the image belongs to one part, and a window belongs to a part only if all its pixels do. No pixel is
therefore in two parts, even though training windows may overlap.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from scipy.ndimage import maximum_filter

from ..seen import Footprint
from ..settings import BETWEEN, NOT_NEGATIVE, Range, check_settings, check_value
from .labels import UNLABELLED, class_positions
from .scene import Scene
from .splits import OnRare, checked_seed, fingerprint_of, require_classes
from .windows import covered_pixels, spaced_places, window_class_counts, window_sums

PatchPart = Literal['train', 'val', 'test']
Regions = Literal['blocks', 'groups', 'halves', 'upper_lower']

PARTS: tuple[PatchPart, ...] = get_args(PatchPart)
_TRAIN, _VAL, _TEST = range(3)
_NONE = 3  # pixels of a buffer
_MIN_VALID = 0.5  # least share of measured pixels in a window


@dataclass(frozen=True, eq=False)
class PatchSplit:
    """Windows of one scene in three parts that share no pixel.

    Args:
        scene: fingerprint of the scene.
        num_pixels: number of pixels of the scene.
        shape: (H, W) of the scene.
        strategy: the splitter's name and settings, JSON-ready.
        seed: seed of the draw.
        classes: class ids in label order; label k of a dataset is ``classes[k]``.
        size: side of a window in pixels.
        train: (n, 2) int64 upper-left corners, row and column, of training windows, which may overlap each other.
        val: (n, 2) corners of validation windows, which do not overlap.
        test_windows: (n, 2) corners of test windows, which do not overlap.
        dropped: what was left out, in words.
        unlabelled: (n, 2) corners of windows of the training part whose labels are hidden.
    """

    scene: str
    num_pixels: int
    shape: tuple[int, int]
    strategy: dict[str, Any]
    seed: int
    classes: tuple[int, ...]
    size: int
    train: np.ndarray
    val: np.ndarray
    test_windows: np.ndarray
    dropped: tuple[str, ...] = ()
    unlabelled: np.ndarray = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))

    def windows(self, part: PatchPart) -> np.ndarray:
        """(n, 2) upper-left corners of the windows of a part."""
        check_value('PatchSplit', 'part', part, PatchPart)
        return (self.train, self.val, self.test_windows)[PARTS.index(part)]

    def pixels(self, part: PatchPart) -> np.ndarray:
        """Flat indices, ascending, of all pixels of a part's windows."""
        return np.flatnonzero(covered_pixels(self.windows(part), self.size, self.shape))

    @property
    def test(self) -> np.ndarray:
        """Flat indices of all pixels of the test windows."""
        return self.pixels('test')

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify scene, classes, size and windows."""
        return fingerprint_of(json.dumps([self.scene, self.classes, self.size]), *map(self.windows, PARTS))

    def footprint(self) -> Footprint:
        """All pixels that a generator trained on this split may have seen: of training and validation windows."""
        unlabelled = np.flatnonzero(covered_pixels(self.unlabelled, self.size, self.shape))
        seen = np.concatenate([self.pixels('train'), self.pixels('val'), unlabelled])
        return Footprint.of(self.scene, self.num_pixels, seen)


@dataclass(frozen=True)
class PatchSplitter:
    """Draws windows of a scene for training, validation and test; call it with a scene and a seed.

    Whole regions go to test until ``test_fraction`` of the labelled pixels is reached, then to validation, and the rest
    to training. Of several draws, the one with most classes in both training and test is taken, and among these the one
    with most in validation. In a scene of stacked tiles, no window extends into another tile. Different parts may still
    hold identical spectra if a scene was resampled from a coarser grid; use a ``buffer`` for such scenes.

    Args:
        size: side of a window in pixels.
        stride: step between training windows; by default, half the size.
        test_fraction: share of the labelled pixels in the test part, as closely as whole regions allow.
        val_fraction: share of the other labelled pixels for validation; for halves, share of the training half's
            length.
        regions: ``'blocks'`` are squares of the image; ``'groups'`` are those of the scene (tiles, flight lines,
            fields); ``'halves'`` test on the left, right, upper or lower half, and validate on a strip across the
            other; ``'upper_lower'`` on the upper or lower one only.
        block: side of a block; by default, the size. The remainder at an edge of the image or tile joins the last
            block.
        buffer: training pixels closer than this to validation or test pixels, and validation pixels closer than this to
            test pixels, are in no window.
        min_labelled: least share of labelled pixels in a window. Half of its pixels must also be measured.
        max_train: largest number of training windows to keep, drawn to include every class if possible.
        min_pixels: least number of pixels of a class in the training windows.
        on_rare: ``'drop'`` leaves out classes with fewer pixels and lists them in ``dropped``; ``'error'`` refuses
            them.
        attempts: number of draws.
        max_unlabelled: largest number of windows beyond ``max_train`` to keep without labels, drawn at random, for
            generators that learn from unlabelled images.

    Raises:
        ValueError: if a setting is out of its range.
    """

    size: int = 32
    stride: int | None = None
    test_fraction: float = 0.4
    val_fraction: float = 0.2
    regions: Regions = 'blocks'
    block: int | None = None
    buffer: int = 0
    min_labelled: float = 0.05
    max_train: int | None = None
    min_pixels: int = 10
    on_rare: OnRare = 'drop'
    attempts: int = 100
    max_unlabelled: int = 0

    def __post_init__(self) -> None:
        shares = {'min_labelled': Range(0, 1), 'change_share': Range(0, 1, open_low=True), 'min_change': Range(0, 1)}
        shares |= {'test_fraction': BETWEEN, 'val_fraction': BETWEEN}
        check_settings(self, buffer=NOT_NEGATIVE, max_unlabelled=NOT_NEGATIVE, **shares)
        if self.block is not None and self.block < self.size:
            raise ValueError(
                f'PatchSplitter: no window of {self.size} fits in a block of {self.block}; enlarge the block'
            )

    def __call__(self, scene: Scene, seed: int = 0) -> PatchSplit:
        """Draw the windows of a scene.

        Raises:
            RareClassError: for a class with too few training pixels, if ``on_rare='error'``, or a single class,
                unless the scene is without classes.
        """
        seed = checked_seed(type(self).__name__, scene, seed)
        rng, tiles = np.random.default_rng(seed), self._tiles(scene)
        where = f'{type(self).__name__} of scene {scene.name!r}, seed {seed}'
        ids = np.array(scene.class_ids, dtype=np.int64)
        flat = np.where(scene.valid, scene.flat_labels(), UNLABELLED)
        if not flat.any():
            raise ValueError(f'{where}: no labelled pixel; a split needs labels')
        label = class_positions(flat, scene.class_ids, len(ids)).reshape(scene.shape)  # one past the last: ignored
        usable = window_sums(scene.valid.reshape(tiles), self.size) >= _MIN_VALID * self.size**2
        usable &= window_sums((label < len(ids)).reshape(tiles), self.size) >= self._min_count
        windows = self._draw(scene, label, usable, len(ids), rng)
        self._require_windows(where, windows)
        chosen = self._budget(window_class_counts(label, windows[_TRAIN], self.size, len(ids)), rng)
        unlabelled = self._left_over(windows[_TRAIN], chosen, rng)
        windows[_TRAIN] = windows[_TRAIN][chosen]
        windows, kept, held = self._without_rare(windows, label, len(ids))
        lost = tuple(
            f'{scene.class_title(ids[k])}: {held[k]} training pixels (at least {self.min_pixels})'
            for k in np.flatnonzero(~kept)
        )
        advice = 'Use smaller windows, other regions, more training windows or a smaller min_pixels'
        require_classes(self, scene, seed, int(kept.sum()), lost, 'training pixels', advice)
        self._require_windows(where, windows)
        train, val, test = (corners[np.lexsort(corners.T[::-1])] for corners in windows)
        return PatchSplit(
            scene=scene.fingerprint,
            num_pixels=scene.num_pixels,
            shape=scene.shape,
            strategy={'name': type(self).__name__, **dataclasses.asdict(self)},
            seed=seed,
            classes=tuple(ids[kept].tolist()),
            size=self.size,
            train=train,
            val=val,
            test_windows=test,
            dropped=lost,
            unlabelled=unlabelled,
        )

    def _require_windows(self, where: str, windows: list[np.ndarray]) -> None:
        if not all(map(len, windows)):
            found = ', '.join(f'{len(corners)} {part}' for corners, part in zip(windows, PARTS, strict=True))
            raise ValueError(
                f'{where}: found {found} windows of {self.size} x {self.size} pixels with {self.min_labelled:.0%} '
                f'labelled and {_MIN_VALID:.0%} measured, expected some in every part. Use smaller windows, larger '
                'blocks, a smaller buffer or min_labelled, or other regions'
            )

    def _without_rare(
        self, windows: list[np.ndarray], label: np.ndarray, num_classes: int
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Windows with enough labels of kept classes, (K,) bool of kept classes, and (K,) training pixels of each."""
        kept, held = np.ones(num_classes, dtype=bool), np.zeros(num_classes, dtype=np.int64)
        counts = [window_class_counts(label, corners, self.size, num_classes) for corners in windows]
        while True:  # dropping a class may drop windows, and these another class
            enough = [count[:, kept].sum(axis=1) >= self._min_count for count in counts]
            windows = [corners[which] for corners, which in zip(windows, enough, strict=True)]
            counts = [count[which] for count, which in zip(counts, enough, strict=True)]
            covered = covered_pixels(windows[_TRAIN], self.size, label.shape)
            held = np.where(kept, np.bincount(label[covered], minlength=num_classes + 1)[:-1], held)
            if (held[kept] >= self.min_pixels).all():
                return windows, kept, held
            kept = kept & (held >= self.min_pixels)

    @property
    def _min_count(self) -> float:
        """Least number of labelled pixels in a window."""
        return max(1.0, self.min_labelled * self.size**2)

    def _tiles(self, scene: Scene) -> tuple[int, int, int]:
        """(T, h, W): tiles of the scene; a single image is one tile."""
        height = scene.tile_rows or scene.shape[0]
        tiles = scene.shape[0] // height, height, scene.shape[1]
        if self.size > min(tiles[1:]):
            what = f'{tiles[0]} tiles of {height} x {tiles[2]}' if scene.tile_rows else f'{height} x {tiles[2]} pixels'
            raise ValueError(
                f'PatchSplitter: no window of {self.size} x {self.size} fits in scene {scene.name!r} with {what}; '
                'use smaller windows'
            )
        return tiles

    # --- parts ------------------------------------------------------------------------------------------------------

    def _draw(
        self, scene: Scene, label: np.ndarray, usable: np.ndarray, num_classes: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Corners of the usable windows of each part, after the best of several draws."""
        tiles, best = self._tiles(scene), (-2, 0)
        spacing = (self.size // 2 or 1 if self.stride is None else self.stride, self.size, self.size)
        need = np.array([[self.min_pixels], [1], [1]])
        regions = None if self.regions in ('halves', 'upper_lower') else self._regions(scene)
        for _ in range(self.attempts):
            part = self._halves(scene, rng) if regions is None else self._assign(scene, regions, label, rng)
            part = part.reshape(tiles)
            if self.buffer:  # pixels too close to a later part are in none; tiles are not neighbours
                latest = maximum_filter(part, size=(1, 2 * self.buffer + 1, 2 * self.buffer + 1))
                part = np.where(latest > part, _NONE, part)
            fits = [window_sums(part == number, self.size) == self.size**2 for number in range(3)]
            windows = [spaced_places(*pair) for pair in zip(fits, spacing, strict=True)]
            windows = [at[usable[tuple(at.T)]] for at in windows]
            corners = [at[:, 1:] + at[:, :1] * [tiles[1], 0] for at in windows]
            covered = [covered_pixels(c, self.size, scene.shape) for c in corners]
            held = np.stack([np.bincount(label[c], minlength=num_classes + 1)[:-1] for c in covered]) >= need
            everywhere = int(held.all(axis=0).sum())
            # Windows in every part have priority; a class missing only in validation can still be learnt and tested.
            score = (int(held[[_TRAIN, _TEST]].all(axis=0).sum()) if all(map(len, corners)) else -1, everywhere)
            if score > best:
                best, chosen = score, corners
            if everywhere == num_classes:
                break
        return chosen

    def _regions(self, scene: Scene) -> np.ndarray:
        """(H*W,) region of each pixel, numbered from 0."""
        if self.regions == 'groups':
            if scene.groups is None:
                raise ValueError(
                    f"PatchSplitter: regions='groups', but scene {scene.name!r} has no groups; give one group number "
                    "per pixel, or use regions='blocks'"
                )
            return np.unique(scene.groups, return_inverse=True)[1].reshape(-1)
        tiles, block = self._tiles(scene), self.block or self.size
        down, across = (max(1, extent // block) for extent in tiles[1:])
        tile, row, column = np.indices(tiles)
        row, column = np.minimum(row // block, down - 1), np.minimum(column // block, across - 1)
        return ((tile * down + row) * across + column).reshape(-1)

    def _assign(self, scene: Scene, region: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H*W,) part of each pixel, from a random order of the regions; unlabelled regions are for training."""
        labelled = np.bincount(region, weights=(label < len(scene.class_ids)).reshape(-1))
        order = rng.permutation(np.flatnonzero(labelled))
        if len(order) < len(PARTS):
            raise ValueError(
                f'PatchSplitter: scene {scene.name!r} has {len(order)} labelled {self.regions}; at least one is needed '
                'for each of train, val and test. Use smaller blocks or other regions'
            )
        of_region = np.full(len(labelled), _TRAIN)
        for part, share, later in ((_TEST, self.test_fraction, 2), (_VAL, self.val_fraction, 1)):
            reached = np.cumsum(labelled[order]) / labelled[order].sum()
            cut = 1 + int(np.abs(reached[: len(order) - later] - share).argmin())
            of_region[order[:cut]] = part
            order = order[cut:]
        return of_region[region]

    def _halves(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """(H, W) part of each pixel: a half of the image, and a strip across the other half."""
        axis, second, far = (int(value) for value in rng.integers(2, size=3))
        axis = 0 if self.regions == 'upper_lower' else axis
        position, across = np.indices(scene.shape)[[axis, 1 - axis]]
        length = scene.shape[1 - axis]
        strip = max(self.size, round(self.val_fraction * length))
        in_val = across >= length - strip if far else across < strip
        in_test = (position >= scene.shape[axis] // 2) == bool(second)
        return np.where(in_test, _TEST, np.where(in_val, _VAL, _TRAIN))

    def _budget(self, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Positions of at most ``max_train`` of n windows with (n, K) pixels per class."""
        if self.max_train is None or len(counts) <= self.max_train:
            return np.arange(len(counts))
        order = rng.permutation(len(counts))
        enough = np.minimum(counts[order], self.min_pixels)
        chosen: list[int] = []
        for k in np.argsort((enough > 0).sum(axis=0), kind='stable'):  # rarest class first
            if enough[chosen, k].sum() < enough[:, k].max():
                chosen.append(int(enough[:, k].argmax()))
        others = np.setdiff1d(np.arange(len(order)), chosen)
        return order[np.concatenate([chosen, others]).astype(np.int64)[: self.max_train]]

    def _left_over(self, windows: np.ndarray, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, 2) corners of at most ``max_unlabelled`` of the windows that were not chosen."""
        if self.max_unlabelled == 0:
            return windows[:0]
        others = np.setdiff1d(np.arange(len(windows)), chosen)
        return windows[np.sort(rng.permutation(others)[: self.max_unlabelled])]
