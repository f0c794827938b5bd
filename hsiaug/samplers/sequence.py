"""The sequence of an epoch that batches are cut from, computed block by block."""

from __future__ import annotations

from collections.abc import Sequence as ListOf

import numpy as np

from ..datasets.orders import EpochOrder, InOrder, Rows, Shuffled, is_long

_BLOCK = 1 << 16


class Sequence:
    """The indices of an epoch's samples, synthetic ones evenly among real ones.

    Place t is synthetic where ⌊(t+1)f⌋ exceeds ⌊t·f⌋, f being the synthetic share of the epoch. Of several sources each
    is spread as evenly among the others as all are among real samples.

    Args:
        order: of the dataset.
        rng: that shuffles real samples, and those of each source, among themselves; None keeps their order.
        live: (K,) which sources draw their samples as they come. Of more than are kept in memory these come in their
            order, which is random already: in any other, each would have a chunk drawn for itself.
    """

    def __init__(self, order: EpochOrder, rng: np.random.Generator | None, live: ListOf[bool]) -> None:
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


def _spread(counts: ListOf[int], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which source each of some consecutive places among the synthetic samples has, and its turn in that source.

    Turn j of n stands at (j + 1/2) / n, the first of several sources before the others.
    """
    if len(counts) < 2 or len(places) == 0:
        return np.zeros_like(places), places
    first, last, total, number = int(places[0]), int(places[-1]), sum(counts), len(counts)
    # A turn's place differs from its share of the places by less than the number of sources.
    lows = [max((first - number) * count // total - 1, 0) for count in counts]
    highs = [min((last + number) * count // total + 2, count) for count in counts]
    turns = [np.arange(low, high) for low, high in zip(lows, highs, strict=True)]
    stands = np.concatenate([(turn + 0.5) / max(count, 1) for turn, count in zip(turns, counts, strict=True)])
    chosen = np.argsort(stands, kind='stable')[first - sum(lows) :][: len(places)]
    numbers = np.repeat(np.arange(number), [len(turn) for turn in turns])
    return numbers[chosen], np.concatenate(turns)[chosen]
