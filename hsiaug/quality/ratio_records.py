"""Records of searches for a ratio: scores in a file, so that a killed search resumes, and what a record says."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..json_lines import append_line, read_lines
from ..records import as_record, read_json
from .ratio_search import Candidate, Standing, Trial, finite_score, variance_of_mean

_WHERE = ('ratio', 'threshold', 'fold', 'seed')


class Recorded:
    """A trial whose scores are saved in a file, one line of JSON each; saved scores are not trained again.

    Args:
        trial: a trial whose attribute ``identity`` identifies what it trains; lines of other trials are ignored.
        path: path of the file.

    Raises:
        ValueError: if the trial has no identity to distinguish its scores from others, or the file holds something
            else.
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
                self._scores[tuple(row[key] for key in _WHERE)] = finite_score(row['score'], str(path))

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        """The recorded score or, where there is none, that of a training."""
        key = (candidate.ratio, candidate.threshold, fold, seed)
        if key not in self._scores:
            score = finite_score(self.trial(candidate, fold, seed), f'{candidate} on fold {fold}')
            append_line(self.path, {'trial': self.identity, **dict(zip(_WHERE, key, strict=True)), 'score': score})
            self._scores[key] = score
        return self._scores[key]


class SearchRecord(NamedTuple):
    """What a file says of a search."""

    standings: list[Standing]  # lower ratios first
    chosen: Candidate | None = None  # None where it says scores only
    k: float = 0.0  # standard errors that were needed


def read_search(path: Path) -> SearchRecord:
    """What :meth:`RatioChoice.to_dict` says as JSON, or standings of the scores that :class:`Recorded` has kept.

    Raises:
        ValueError: if the file is neither.
    """
    try:
        try:
            found = read_json(path, 'a record of a ratio search')
        except ValueError:
            return SearchRecord(_of_scores(read_lines(path, 'ratio', 'a score of a ratio search')))
        if 'standings' not in found:
            return SearchRecord(_of_scores([found]))
        for one in found['standings']:
            one['standard_error'] = math.inf if one['standard_error'] is None else one['standard_error']
        standings = [as_record(Standing, one, 'a standing') for one in found['standings']]
        chosen = as_record(Candidate, found['chosen'], 'the choice')
        return SearchRecord(_in_order(standings), chosen, finite_score(found['k'], 'k'))
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError, ValueError) as error:
        raise ValueError(
            f'{path} is not a record of a ratio search ({error!r}); give the run folder of hsiaug ablate, what '
            'RatioChoice.to_dict says as JSON, or the file of Recorded'
        ) from error


def _of_scores(lines: list[dict[str, Any]]) -> list[Standing]:
    """Candidates paired with ratio 0 by trial, fold and seed."""
    scores = {(row['ratio'], row['threshold'], row['trial'], row['fold'], row['seed']): row['score'] for row in lines}
    real = {key[2:]: score for key, score in scores.items() if key[0] == 0}
    gains: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for key, score in scores.items():
        if key[0] > 0 and key[2:] in real:
            gains[key[:2]].append(score - real[key[2:]])
    folds = len({row['fold'] for row in lines})
    return _in_order([
        Standing(Candidate(*of), len(d), float(np.mean(d)), math.sqrt(variance_of_mean(np.array([d]), folds)))
        for of, d in gains.items()
    ])  # fmt: skip


def _in_order(standings: list[Standing]) -> list[Standing]:
    if not standings:
        raise KeyError('no ratio above 0 that is paired with ratio 0')
    if wrong := [one for one in standings if not math.isfinite(one.mean) or math.isnan(one.standard_error)]:
        raise ValueError(f'numbers expected, found {wrong[0]}')
    return sorted(standings, key=lambda one: (one.candidate.ratio, one.candidate.threshold or 0.0))
