"""Scores of a ratio search in a file, so that a killed search goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .ratio_search import Candidate, Trial


class Recorded:
    """A trial whose scores are kept in a file, one line of JSON each; what is in the file is not trained again.

    Args:
        trial: its attribute ``identity``, if it has one, says what it trains on; lines of other trials are passed over.
        path: of the file; one process writes it at a time.
    """

    def __init__(self, trial: Trial, path: Path) -> None:
        self.trial, self.path = trial, path
        self.cost = float(getattr(trial, 'cost', 1.0))
        self.identity = str(getattr(trial, 'identity', ''))
        self._scores: dict[tuple[Any, ...], float] = {}
        whole = path.read_bytes() if path.exists() else b''
        for line in whole.split(b'\n'):
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError):
                continue  # torn off by a kill; the trial runs again
            if row['trial'] == self.identity:
                self._scores[row['ratio'], row['threshold'], row['fold'], row['seed']] = row['score']
        if whole and not whole.endswith(b'\n'):
            self._append('')

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        """The recorded score or, where there is none, that of a training."""
        key = (candidate.ratio, candidate.threshold, fold, seed)
        if key not in self._scores:
            score = self._scores[key] = float(self.trial(candidate, fold, seed))
            where = dict(zip(('ratio', 'threshold', 'fold', 'seed'), key, strict=True))
            self._append(json.dumps({'trial': self.identity, **where, 'score': score}))
        return self._scores[key]

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open('a') as file:
            file.write(line + '\n')
