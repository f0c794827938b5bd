"""Balancing of the training windows of a change-detection split by their share of change."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..settings import Range, check_value
from .change import CHANGED, BitemporalScene
from .patches import PatchSplit, PatchSplitter
from .scene import Scene
from .windows import window_class_counts


def balance_change(
    scene: BitemporalScene,
    split: PatchSplit,
    share: float = 0.5,
    min_change: float = 0.01,
    max_train: int | None = None,
) -> PatchSplit:
    """A split with fewer training windows, a larger share of which holds change.

    Windows without change are dropped at random, with the split's seed. Validation and test windows do not change:
    scores on balanced windows would be too high. To balance a few windows out of many, pass ``max_train`` here and not
    to the splitter; smaller selections are part of larger ones.

    Args:
        scene: the scene of the split.
        split: a split of the scene.
        share: least share of training windows that hold change.
        min_change: least share of changed pixels for a window to hold change; 0 means a single pixel.
        max_train: largest number of training windows to keep.

    Raises:
        ValueError: if a setting is out of its range, the split is of another scene, or no training window holds change.
    """
    check_value('balance_change', 'share', share, float, Range(0, 1, open_low=True))
    check_value('balance_change', 'min_change', min_change, float, Range(0, 1))
    check_value('balance_change', 'max_train', max_train, int | None)
    if split.scene != scene.fingerprint:
        raise ValueError(f'balance_change: the split was not made for scene {scene.name!r}; split this scene')
    changed = ((scene.flat_labels() == CHANGED) & scene.valid).reshape(scene.shape)
    pixels = window_class_counts(changed.astype(np.int64), split.train, split.size, 2)[:, 1]
    holds = pixels >= max(1, min_change * split.size**2)
    rng = np.random.default_rng(split.seed)
    with_change, without = (rng.permutation(np.flatnonzero(which)) for which in (holds, ~holds))
    if len(with_change) == 0:
        most = pixels.max(initial=0) / split.size**2
        raise ValueError(
            f'balance_change: none of {len(split.train)} training windows of scene {scene.name!r} has {min_change:.2%} '
            f'changed pixels, the most is {most:.2%}; lower min_change, or split with another seed'
        )
    # Rounded before flooring, so that 2.9999 windows count as 3.
    others = min(len(without), math.floor(round(len(with_change) * (1 - share) / share, 9)))
    total = len(with_change) + others
    kept = min(total, max_train or total)
    first = -(-kept * len(with_change) // total)
    chosen = np.sort(np.concatenate([with_change[:first], without[: kept - first]]))
    left_out = len(split.train) - kept
    words = (f'{left_out} training windows, to balance those with and without change',) if left_out else ()
    return replace(
        split,
        train=split.train[chosen],
        strategy={
            **split.strategy,
            'balance_change': {'share': share, 'min_change': min_change, 'max_train': max_train},
        },
        dropped=(*split.dropped, *words),
    )


@dataclass(frozen=True)
class ChangeSplitter(PatchSplitter):
    """Draws windows of pairs of dates, and balances the training windows by their share of change.

    ``max_train`` applies after balancing; see :func:`balance_change`.

    Args:
        change_share: least share of training windows that hold change.
        min_change: least share of changed pixels for a window to hold change.
    """

    change_share: float = 0.5
    min_change: float = 0.01

    def __call__(self, scene: Scene, seed: int = 0) -> PatchSplit:
        """Draw the windows of a scene of two dates."""
        if not isinstance(scene, BitemporalScene):
            raise TypeError(f'ChangeSplitter: scene {scene.name!r} has one date; use PatchSplitter')
        every = PatchSplitter.__call__(replace(self, max_train=None), scene, seed)
        split = balance_change(scene, every, self.change_share, self.min_change, self.max_train)
        chosen = np.flatnonzero((every.train[:, None] == split.train).all(axis=2).any(axis=1))
        unlabelled = self._left_over(every.train, chosen, np.random.default_rng(seed))
        return replace(split, strategy={**split.strategy, 'max_train': self.max_train}, unlabelled=unlabelled)
