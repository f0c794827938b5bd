"""Scores of a ratio search in a file, so that a killed search goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..json_lines import append_line, read_lines
from .ratio_search import Candidate, Trial


class Recorded:
    """A trial whose scores are kept in a file, one line of JSON each; what is in the file is not trained again.

    Args:
        trial: its attribute ``identity``, if it has one, says what it trains on; lines of other trials are passed over.
        path: of the file.

    Raises:
        ValueError: if the file holds something else.
    """

    def __init__(self, trial: Trial, path: Path) -> None:
        self.trial, self.path = trial, path
        self.cost = float(getattr(trial, 'cost', 1.0))
        self.identity = str(getattr(trial, 'identity', ''))
        self._scores: dict[tuple[Any, ...], float] = {}
        for row in read_lines(path, 'trial', 'a score of a ratio search'):
            if row['trial'] == self.identity:
                self._scores[row['ratio'], row['threshold'], row['fold'], row['seed']] = row['score']

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        """The recorded score or, where there is none, that of a training."""
        key = (candidate.ratio, candidate.threshold, fold, seed)
        if key not in self._scores:
            score = self._scores[key] = float(self.trial(candidate, fold, seed))
            where = dict(zip(('ratio', 'threshold', 'fold', 'seed'), key, strict=True))
            append_line(self.path, {'trial': self.identity, **where, 'score': score})
        return self._scores[key]
