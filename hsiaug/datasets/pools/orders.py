"""Orders of many numbers: stored if short, computed if long, since every worker holds its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

STORED = 1 << 20
"""Length up to which random orders are drawn by numpy and stored; longer ones are computed on demand."""
_ROUNDS = 8
_GOLDEN, _FIRST, _SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def is_long(n: int) -> bool:
    """Whether an order of this length is computed."""
    return n > STORED


class Rows(Protocol):
    """Numbers in some order: an array, or an object that computes those at requested places."""

    def __getitem__(self, places: np.ndarray, /) -> np.ndarray: ...


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
