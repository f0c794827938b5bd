"""The samples of an epoch: where each comes from, and their order in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..pools.orders import STORED, InOrder, Rows, Shuffled, is_long
from ..shared import SharedInt

_BLOCK = 1 << 16  # indices of a batch order computed at a time


Key = tuple[int, tuple[float, ...]]
"""An epoch, and the ratios of its sources."""


class EpochIndices(list[int]):
    """Indices of one batch, with the ``key`` of their order, so that an iteration keeps its own composition."""

    def __init__(self, indices: Iterable[int], key: Key) -> None:
        super().__init__(indices)
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return EpochIndices, (list(self), self.key)


class SharedRatios(SharedInt):
    """The ratios of the current epoch, which the main process sets for its workers too."""

    def __init__(self, sources: int) -> None:
        self._tensor = torch.full((1 + sources,), -1.0, dtype=torch.float64, device='cpu').share_memory_()

    def say(self, epoch: int, ratios: Sequence[float]) -> None:
        """Set them."""
        self._tensor.numpy()[:] = (epoch, *ratios)

    def forget(self) -> None:
        """Leave them unknown."""
        self._tensor.fill_(-1)

    def of(self, epoch: int) -> tuple[float, ...] | None:
        """The ratios of an epoch; None if they are not known."""
        said, *ratios = self._tensor.tolist()
        return tuple(ratios) if said == epoch else None


@dataclass(frozen=True, eq=False)
class Side:
    """The real samples of an epoch, or those of one source: the first ``count`` of some rows of a dataset."""

    dataset: Dataset[Any]
    rows: Rows
    count: int


class EpochOrder:
    """Origin of each sample of an epoch.

    Args:
        key: what it is the order of.
        sides: real samples, and those of each source. In append mode, they take the places one side after the other.
        places: random order of all places, the first of which are for synthetic samples, while each real sample has
            the row of its place (replace mode).
    """

    def __init__(self, key: Key, sides: Sequence[Side], places: Shuffled | None = None) -> None:
        self.key, self.sides, self.length, self._places = key, sides, sum(side.count for side in sides), places
        # The sides in the order of their turns, and the first turn of each; in append mode, turns are places.
        self._numbers = np.roll(np.arange(len(sides)), 0 if places is None else -1)
        self._firsts = np.cumsum([0, *(sides[number].count for number in self._numbers.tolist())])[:-1]

    def find(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the side (0 for real) of samples at (n,) places, and their turn in it."""
        turns = wanted if self._places is None else self._places.places(wanted)
        found = np.searchsorted(self._firsts[1:], turns, side='right')
        numbers, turns = self._numbers[found], turns - self._firsts[found]
        return numbers, turns if self._places is None else np.where(numbers == 0, wanted, turns)

    def numbers(self) -> np.ndarray:
        """(length,) number of the side of every sample."""
        blocks = (np.arange(first, min(first + STORED, self.length)) for first in range(0, self.length, STORED))
        return np.concatenate([np.arange(0), *(self.find(block)[0] for block in blocks)])

    def indices(self, number: int, ascending: bool = True) -> Rows:
        """Places of the samples of a side, in the given order of turns or ascending."""
        if self._places is None or (is_long(self.length) and not ascending):
            return InOrder(int(self._firsts[self._numbers == number][0]), self._places)
        return np.flatnonzero(self.numbers() == number)


class BatchOrder:
    """The indices from which batches of an epoch are cut, with synthetic samples evenly among real ones.

    Place t is synthetic if ⌊(t+1)f⌋ exceeds ⌊t·f⌋, where f is the synthetic share of the epoch. Several sources are
    spread as evenly among each other as all of them among real samples.

    Args:
        order: order of the dataset.
        rng: shuffles real samples, and those of each source, among themselves; None keeps their order.
        live: (K,) bool: sources drawn live. If there are more samples than are kept in memory, these come in their
            original order, which is random already: in any other, each would need its own chunk.
    """

    def __init__(self, order: EpochOrder, rng: np.random.Generator | None, live: Sequence[bool]) -> None:
        self._counts = [side.count for side in order.sides[1:]]
        self._drawn, self._length = sum(self._counts), order.length
        self._sides: list[tuple[Rows, Rows]] = []
        for number in (*range(1, len(order.sides)), 0):
            count = order.sides[number].count
            kept = rng is None or (number and live[number - 1] and is_long(count))
            shuffled = InOrder() if rng is None or kept else Shuffled(count, rng)
            self._sides.append((order.indices(number, ascending=rng is None), shuffled))
        self._start, self._rows = 0, np.arange(0)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Indices of the samples at places from ``start`` to ``stop``."""
        if not self._start <= start <= stop <= self._start + len(self._rows):
            self._start = start
            self._rows = self._block(start, max(stop, min(start + _BLOCK, self._length)))
        return self._rows[start - self._start : stop - self._start]

    def _block(self, start: int, stop: int) -> np.ndarray:
        places = np.arange(start, stop)
        before = places * self._drawn // max(self._length, 1)
        synthetic = (places + 1) * self._drawn // max(self._length, 1) > before
        numbers, turns = np.full(len(places), len(self._counts)), places - before
        numbers[synthetic], turns[synthetic] = _spread(self._counts, before[synthetic])
        rows = np.empty(len(places), dtype=np.int64)
        for number, (indices, shuffled) in enumerate(self._sides):
            wanted = numbers == number
            rows[wanted] = indices[shuffled[turns[wanted]]]
        return rows


def _spread(counts: Sequence[int], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source of consecutive places among the synthetic samples, and their turns in that source.

    Turn j of n is at (j + 1/2) / n; in a tie, the first source comes first.
    """
    if len(counts) < 2 or len(places) == 0:
        return np.zeros_like(places), places
    first, last, total, number = int(places[0]), int(places[-1]), sum(counts), len(counts)
    # The place of a turn differs from its share of the places by less than the number of sources.
    lows = [max((first - number) * count // total - 1, 0) for count in counts]
    highs = [min((last + number) * count // total + 2, count) for count in counts]
    turns = [np.arange(low, high) for low, high in zip(lows, highs, strict=True)]
    stands = np.concatenate([(turn + 0.5) / max(count, 1) for turn, count in zip(turns, counts, strict=True)])
    chosen = np.argsort(stands, kind='stable')[first - sum(lows) :][: len(places)]
    numbers = np.repeat(np.arange(number), [len(turn) for turn in turns])
    return numbers[chosen], np.concatenate(turns)[chosen]
