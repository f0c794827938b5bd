"""Unlabelled pixels of the training area with the pooled opinion of several classifiers and of their neighbours.

What a network of single spectra lacks: with few labels a discriminant with one covariance is better where classes are
compact, trees where they are not, and neighbours know where the spectrum does not tell. Which holds, left-out labels
say: opinions are pooled linearly, with weights that find these likely (Yao et al., Bayesian Analysis 2018,
https://doi.org/10.1214/17-BA1091). No gain was confirmed, so that this is no part of the package.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, diags_array
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from hsiaug.functional.pasting import pairs_that_hold
from hsiaug.models.nn1d import SpectralScaler
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.base import register

_LEAST, _FLOOR = 1e-9, 1e-3  # the latter of a left-out label's probability: one that is missed is not all
_POWERS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Of probabilities: with few labels discriminants are far too sure, the mean of many neighbours is not sure enough."""
_TEACHERS: dict[str, tuple[str, Callable[[int, int], Any]]] = {
    'linear': ('standard', lambda classes, seed: LogisticRegression(C=10, max_iter=100)),
    'linear, decorrelated': ('decorrelated', lambda classes, seed: LogisticRegression(C=10, max_iter=100)),
    'discriminant': (
        'decorrelated',
        lambda classes, seed: LinearDiscriminantAnalysis('lsqr', 'auto', priors=np.full(classes, 1 / classes)),
    ),
    'trees': ('decorrelated', lambda classes, seed: ExtraTreesClassifier(100, min_samples_leaf=2, random_state=seed)),
}
_SPREAD = ((0.0, 0), (0.5, 5), (0.9, 10))
"""Share of a pixel's opinion that is its neighbours', and how often they are asked."""


@register('pooled_label')
class PooledLabel(Generator):
    """Unlabelled spectra, each drawn as a class with a chance proportional to its probability, with soft labels."""

    fitted = ('x', 'shares')
    unlabelled = ('alike',)
    soft_labels = True
    x: Tensor  # (M, C)
    shares: Tensor  # (M, K) probabilities

    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Ask the teachers."""
        places = None if data.positions is None else data.positions.numpy()
        self.x = data.unlabelled
        self.shares, heard = pooled(data.x, data.y, data.unlabelled, data.spec.num_classes, places, seed)
        self.adopt(data, seed, {'heard': heard})

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        rows = pairs_that_hold(labels, self.shares, rng)
        return {'image': self.x[rows], 'label_prob': self.shares[rows]}


def pooled(
    x: Tensor, y: Tensor, unlabelled: Tensor, classes: int, places: np.ndarray | None, seed: int
) -> tuple[Tensor, dict[str, float]]:
    """(M, K) probabilities of unlabelled spectra, and the weight of each teacher.

    Args:
        x: (N, C) labelled spectra, two of each class or more.
        y: (N,) labels.
        unlabelled: (M, C) spectra.
        classes: K.
        places: (N + M, 2) row and column of the labelled and then of the unlabelled ones; None asks no neighbours.
        seed: of the folds and the trees.
    """
    labels, every = y.numpy(), torch.cat([x, unlabelled])
    near = None if places is None else neighbours(x, y, every, places)
    if near is not None:
        near = diags_array(1 / np.maximum(near.sum(axis=1), _LEAST)) @ near
    folds = StratifiedKFold(max(2, min(5, int(np.bincount(labels).min()))), shuffle=True, random_state=seed)
    parts = [(out, _asked(x[rest], labels[rest], every, classes, seed)) for rest, out in folds.split(labels, labels)]
    truth = labels[np.concatenate([out for out, _ in parts])]
    final, said, opinions = _asked(x, labels, every, classes, seed), [], []
    for name, whole in final.items():
        own, everywhere = [given[name] for _, given in parts], whole
        for share, times in _SPREAD if near is not None else _SPREAD[:1]:
            spread = [_spread(given, near, share, times) for given in own]
            left = np.concatenate([given[out] for (out, _), given in zip(parts, spread, strict=True)])
            likely = {power: tempered(left, power)[np.arange(len(truth)), truth] for power in _POWERS}
            power = max(likely, key=lambda power: float(np.log(likely[power] + _FLOOR).mean()))
            said.append(likely[power] + _FLOOR)
            opinions.append(tempered(_spread(everywhere, near, share, times), power))
            if not share:  # neighbours are asked for opinions that are as sure as they should be
                own, everywhere = [tempered(given, power) for given in own], opinions[-1]
    weights = np.full(len(said), 1 / len(said))
    for _ in range(30):  # expectation maximisation, stopped early: left-out labels are few
        found = np.stack(said, axis=1) * weights
        weights = (found / found.sum(axis=1, keepdims=True)).mean(axis=0)
    opinion = np.tensordot(weights, np.stack(opinions), axes=1)[len(x) :]
    of_teachers = weights.reshape(len(final), -1).sum(axis=1)
    return torch.from_numpy(opinion).float(), dict(zip(final, of_teachers.round(3).tolist(), strict=True))


def _asked(x: Tensor, labels: np.ndarray, every: Tensor, classes: int, seed: int) -> dict[str, np.ndarray]:
    """(P, K) probabilities of each teacher."""
    found = {}
    for name, (scaling, make) in _TEACHERS.items():
        scaler = SpectralScaler(x.shape[1], scaling).fit(x, torch.from_numpy(labels))
        with warnings.catch_warnings():  # a linear teacher need not be at its optimum
            warnings.simplefilter('ignore', ConvergenceWarning)
            teacher = make(len(np.unique(labels)), seed).fit(scaler(x).double().numpy(), labels)
        found[name] = np.zeros((len(every), classes))
        found[name][:, teacher.classes_] = teacher.predict_proba(scaler(every).double().numpy())
    return found


def tempered(probabilities: np.ndarray, power: float) -> np.ndarray:
    """(P, K) probabilities to a power, which below 1 makes them less sure."""
    raised = probabilities.clip(_LEAST, 1) ** power
    return raised / raised.sum(axis=1, keepdims=True)


def neighbours(x: Tensor, y: Tensor, every: Tensor, places: np.ndarray) -> csr_array:
    """(P, P) weights of the eight neighbours of each pixel, by how alike they are."""
    row, column = places.T
    width = int(column.max()) + 2  # a column apart, so that no row runs into the next
    place = row * width + column
    order, pairs = np.argsort(place), []
    for step in (1, width - 1, width, width + 1):
        found = order[np.searchsorted(place[order], place + step).clip(max=len(place) - 1)]
        start = np.flatnonzero(place[found] == place + step)
        pairs.append((start, found[start]))
    start, end = np.concatenate(pairs, axis=1)
    scaled = SpectralScaler(x.shape[1], 'decorrelated').fit(x, y)(every)
    distance = (scaled[start] - scaled[end]).square().sum(dim=1).double().numpy()
    alike = np.exp(-distance / max(float(np.median(distance)), _LEAST))
    one_way = coo_array((alike, (start, end)), shape=(len(every),) * 2).tocsr()
    return one_way + one_way.T


def _spread(opinion: np.ndarray, near: csr_array | None, share: float, times: int) -> np.ndarray:
    """Opinions that give a share to those of the neighbours, and so in turn to theirs; a pixel alone keeps its own."""
    if near is None or not share:
        return opinion
    alone, mixed = (near.sum(axis=1) < 0.5)[:, None], opinion
    for _ in range(times):
        mixed = (1 - share) * opinion + share * np.where(alone, opinion, near @ mixed)
    return mixed
