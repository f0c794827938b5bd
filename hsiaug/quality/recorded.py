"""Scores of a ratio search in a file, so that a killed search resumes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..json_lines import append_line, read_lines
from .ratio_search import Candidate, Trial

_WHERE = ('ratio', 'threshold', 'fold', 'seed')


class Recorded:
    """A trial whose scores are kept in a file, one line of JSON each; what is in the file is not trained again.

    Args:
        trial: its attribute ``identity`` says what it trains on; lines of other trials are passed over.
        path: of the file.

    Raises:
        ValueError: if the trial has no identity, that distinguishes its scores from another's, or the file holds
            something else.
    """

    def __init__(self, trial: Trial, path: Path) -> None:
        self.trial, self.path = trial, path
        self.cost = float(getattr(trial, 'cost', 1.0))
        self.identity = str(getattr(trial, 'identity', '') or '')
        if not self.identity:
            raise ValueError(
                f'Recorded: {type(trial).__name__} has no identity; give it one, a text that is another for everything '
                f'that changes its scores (scene, split, generator, network), or scores of others in {path} would pass '
                'for its own'
            )
        self._scores: dict[tuple[Any, ...], float] = {}
        for row in read_lines(path, 'trial', 'a score of a ratio search'):
            if row['trial'] == self.identity:
                if missing := [key for key in (*_WHERE, 'score') if key not in row]:
                    raise ValueError(f'{path}: a score of a ratio search lacks {missing}; is this another file?')
                self._scores[tuple(row[key] for key in _WHERE)] = _score(row['score'], str(path))

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        """The recorded score or, where there is none, that of a training."""
        key = (candidate.ratio, candidate.threshold, fold, seed)
        if key not in self._scores:
            score = _score(self.trial(candidate, fold, seed), f'{candidate} on fold {fold}')
            append_line(self.path, {'trial': self.identity, **dict(zip(_WHERE, key, strict=True)), 'score': score})
            self._scores[key] = score
        return self._scores[key]


def _score(value: Any, where: str) -> float:
    if isinstance(value, bool | str) or value is None or not math.isfinite(float(value)):
        raise ValueError(f'{where}: a finite score expected, found {value!r}')
    return float(value)
