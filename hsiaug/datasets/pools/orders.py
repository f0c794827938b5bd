"""Orders of an epoch: stored if short, computed if long, since every worker holds its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset

STORED = 1 << 20
"""Length up to which random orders are drawn by numpy and stored; longer ones are computed on demand."""
_BLOCK = 1 << 16  # indices of a batch order computed at a time
_ROUNDS = 8
_GOLDEN, _FIRST, _SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def is_long(n: int) -> bool:
    """Whether an order of this length is computed."""
    return n > STORED


class Rows(Protocol):
    """Numbers in some order: an array, or an object that computes those at requested places."""

    def __getitem__(self, places: np.ndarray, /) -> np.ndarray: ...


class EpochIndices(list[int]):
    """Indices of one batch, with their epoch, so that an iteration keeps its own composition."""

    def __init__(self, indices: Iterable[int], epoch: int) -> None:
        super().__init__(indices)
        self.epoch = epoch

    def __reduce__(self) -> tuple[Any, ...]:
        return EpochIndices, (list(self), self.epoch)


@dataclass(frozen=True)
class InOrder:
    """``first``, ``first`` + 1, ... without end, or the numbers of another order at these places."""

    first: int = 0
    order: Rows | None = None

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        return places + self.first if self.order is None else self.order[places + self.first]


def keyed(numbers: np.ndarray, n: int, key: int, tweak: np.ndarray | int = 0, inverse: bool = False) -> np.ndarray:
    """A random permutation of 0, ..., n - 1, or its inverse, computed for (m,) numbers.

    A Feistel network on pairs below sqrt(n), whose few numbers that are not below n are mapped again until they are
    (Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002, https://doi.org/10.1007/3-540-45760-7_9).
    Each tweak, one for all numbers or one for each, gives its own permutation with this key.
    """
    rows = math.isqrt(max(n - 1, 0)) + 1
    columns = -(-n // rows)
    sides = np.divmod(np.asarray(numbers, dtype=np.uint64), np.uint64(columns))
    halves, sizes = list(sides), (np.uint64(rows), np.uint64(columns))
    streams = _mixed(np.atleast_1d(tweak).astype(np.uint64) * _GOLDEN + np.uint64(key))
    steps = range(_ROUNDS)[:: -1 if inverse else 1]
    for step in steps:
        size, other = sizes[step % 2], halves[1 - step % 2]
        moved = _mixed((other * np.uint64(_ROUNDS) + np.uint64(step)) * _GOLDEN + streams) % size
        halves[step % 2] = (halves[step % 2] + (size - moved if inverse else moved)) % size
    found = (halves[0] * sizes[1] + halves[1]).astype(np.int64)
    if (outside := found >= n).any():
        tweak = tweak[outside] if isinstance(tweak, np.ndarray) else tweak
        found[outside] = keyed(found[outside], n, key, tweak, inverse)
    return found


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014, https://doi.org/10.1145/2660193.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


class Shuffled:
    """The numbers 0, ..., n - 1 in random order."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n = n
        self._order = None if is_long(n) else rng.permutation(n)
        self._key = int(rng.integers(1 << 63)) if is_long(n) else 0
        self._places: np.ndarray | None = None

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """The numbers at some places."""
        return keyed(places, self.n, self._key) if self._order is None else self._order[places]

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Places of some numbers."""
        if self._order is None:
            return keyed(numbers, self.n, self._key, inverse=True)
        if self._places is None:
            self._places = np.argsort(self._order)
        return self._places[numbers]


class Rounds:
    """The numbers 0, ..., n - 1 in random order, then all of them in another, and so on without end.

    If given, ``pick`` draws the n numbers of a round instead of a permutation; every round is then kept.
    """

    def __init__(self, n: int, seed: int, pick: Callable[[np.random.Generator], np.ndarray] | None = None) -> None:
        self.n, self._seed, self._pick = n, seed, pick
        self._rng = np.random.default_rng(seed)
        self._kept = np.arange(0)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """The numbers at some places."""
        end = int(places.max()) + 1 if places.size else 0
        keep = end if self._pick else min(end, STORED // max(self.n, 1) * self.n)
        if keep > len(self._kept):
            missing = range(len(self._kept), keep, self.n)
            drawn = [self._pick(self._rng) if self._pick else self._rng.permutation(self.n) for _ in missing]
            self._kept = np.concatenate([self._kept, *drawn])
        if keep == end:
            return self._kept[places]
        rounds, within = np.divmod(places, self.n)
        found = keyed(within, self.n, self._seed, rounds)
        if len(self._kept):
            stored = places < keep
            found[stored] = self._kept[places[stored]]
        return found


class EpochOrder:
    """Origin of each sample of an epoch.

    Args:
        real: rows of real samples; in append mode at the first places, in replace mode each at its own place.
        number: number of real samples.
        sources: samples of each source in the epoch, and their rows.
        counts: number of samples of each source.
        places: random order of all places, the first of which are for synthetic samples (replace mode).
    """

    def __init__(
        self,
        real: Rows,
        number: int,
        sources: Sequence[tuple[Dataset[Any], Rows]],
        counts: Sequence[int],
        places: Shuffled | None = None,
    ) -> None:
        self.datasets = [dataset for dataset, _ in sources]
        self._rows: list[Rows] = [real, *(rows for _, rows in sources)]
        self.counts = [number, *counts][: len(self._rows)]
        self.length, self._places = sum(self.counts), places
        # Side k takes the turns from firsts[k] on; in append mode, turns are places.
        turns = self.counts if places is None else [0, *self.counts[1:]]
        self._firsts = np.cumsum([0, *turns[:-1]])
        self._drawn = self.length - number

    def find(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the source (0 for real) of samples at (n,) places, and their turn in it."""
        turns = wanted if self._places is None else self._places.places(wanted)
        numbers = np.searchsorted(self._firsts[1:], turns, side='right')
        if self._places is not None:
            real = turns >= self._drawn
            return np.where(real, 0, numbers), np.where(real, wanted, turns - self._firsts[numbers])
        return numbers, turns - self._firsts[numbers]

    def rows(self, number: int, turns: np.ndarray) -> np.ndarray:
        """Rows of the samples of a source (0: real) with these turns."""
        return self._rows[number][turns]

    def numbers(self) -> np.ndarray:
        """(length,) number of the source of every sample."""
        if self._places is None:
            return np.repeat(np.arange(len(self.counts)), self.counts)
        return np.concatenate([self.find(block)[0] for block in _blocks(self.length)])

    def indices(self, number: int, ascending: bool = True) -> Rows:
        """Places of the samples of a source (0: real), in the given order of turns or ascending."""
        first = int(self._firsts[number])
        if self._places is None:
            return InOrder(first)
        if ascending or not is_long(self.length):
            return np.flatnonzero(self.numbers() == number)
        return InOrder(self._drawn if number == 0 else first, self._places)


def _blocks(length: int) -> Iterator[np.ndarray]:
    for start in range(0, length, STORED):
        yield np.arange(start, min(start + STORED, length))


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
        self._counts = order.counts[1:]
        self._drawn, self._length = sum(self._counts), order.length
        self._sides: list[tuple[Rows, Rows]] = []
        for number in (*range(1, len(order.counts)), 0):
            count = order.counts[number]
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
