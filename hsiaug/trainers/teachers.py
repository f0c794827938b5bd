"""Classifiers of spectra that know what a network of single spectra does not, and one opinion made of theirs.

With ten labels a class, a discriminant with one covariance for all classes beats networks where classes are compact,
trees do where they are not, linear models where the label is what a pixel holds most of; and a pixel's neighbours tell
what it is where its own spectrum does not. Which of these holds, left-out labels say: opinions are pooled linearly, by
weights that find these labels likely (Yao et al., Bayesian Analysis 2018, https://doi.org/10.1214/17-BA1091).
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

from ..functional.plain import plain_torch
from ..functional.region_growing import neighbouring
from ..models.nn1d import SpectralScaler

Probabilities = np.ndarray
_EVEN = 1e-9
_FLOOR = 1e-3  # of the probability of a left-out label: one that a teacher was wrong about and sure of is not all
_FOLDS = 5
_POWERS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Of probabilities: with few labels, discriminants are far too sure; the mean of many neighbours is not sure enough."""
_TEACHERS: dict[str, tuple[Any, Callable[[int, int], Any]]] = {
    'linear': ('standard', lambda classes, seed: LogisticRegression(C=10, max_iter=100)),
    'linear, decorrelated': ('decorrelated', lambda classes, seed: LogisticRegression(C=10, max_iter=100)),
    'discriminant': (
        'decorrelated',
        lambda classes, seed: LinearDiscriminantAnalysis(
            solver='lsqr', shrinkage='auto', priors=np.full(classes, 1 / classes)
        ),
    ),
    'trees': ('decorrelated', lambda classes, seed: ExtraTreesClassifier(100, min_samples_leaf=2, random_state=seed)),
}
"""Scaling of the bands and classifier, by name."""
_SPREAD = ((0.5, 5), (0.9, 10))
"""Share of a pixel's opinion that is its neighbours', and how often they are asked."""


@plain_torch()
def pooled_opinion(
    x: Tensor, y: Tensor, unlabelled: Tensor, num_classes: int, positions: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, dict[str, float]]:
    """Class probabilities of unlabelled spectra, by the opinion of several classifiers and of each pixel's neighbours.

    Args:
        x: (N, C) labelled spectra.
        y: (N,) int64 labels.
        unlabelled: (M, C) spectra.
        num_classes: K.
        positions: (N + M, 2) row and column of the labelled and then of the unlabelled ones; None asks no neighbours.
        seed: of the folds and the trees.

    Returns:
        (M, K) float32 probabilities on the CPU, and the weight of each teacher.

    Raises:
        ValueError: if there are not two labelled spectra of each of two classes or more, so that none can be left out.
    """
    known, labels, every = x.cpu(), y.cpu().numpy(), torch.cat([x.cpu(), unlabelled.cpu()])
    counts = np.bincount(labels, minlength=num_classes)
    present = counts[counts > 0]
    if len(present) < 2 or present.min() < 2:
        raise ValueError(
            f'pooled_opinion: two labelled spectra or more of each of at least two classes are needed, found '
            f'{counts.tolist()}; label more, or name teachers'
        )
    near = None if positions is None else _neighbours(known, y.cpu(), every, positions)
    folds = StratifiedKFold(min(_FOLDS, int(present.min())), shuffle=True, random_state=seed)
    left, asked = [], []
    for rest, out in folds.split(labels, labels):
        left.append(out)
        asked.append(_probabilities(known[rest], labels[rest], every, num_classes, seed))
    order = np.concatenate(left)
    final = _probabilities(known, labels, every, num_classes, seed)
    truth = labels[order]
    said, opinions = [], []
    for name, whole in final.items():
        own, everywhere = [given[name] for given in asked], whole
        for share, times in ((0.0, 0), *(_SPREAD if near is not None else ())):
            mixed = [_spread(given, near, share, times) for given in own]
            of_left = np.concatenate([given[out] for given, out in zip(mixed, left, strict=True)])
            power = _power(of_left, truth)
            said.append(_tempered(of_left, power)[np.arange(len(truth)), truth])
            opinions.append(_tempered(_spread(everywhere, near, share, times), power))
            if not share:  # neighbours are asked for opinions that are as sure as they should be
                own, everywhere = [_tempered(given, power) for given in own], opinions[-1]
    weights = _weights(np.stack(said, axis=1) + _FLOOR)
    pooled = sum(weight * opinion for weight, opinion in zip(weights, opinions, strict=True))
    of_teachers = weights.reshape(len(final), -1).sum(axis=1)
    heard = {name: round(float(weight), 3) for name, weight in zip(final, of_teachers, strict=True)}
    return torch.from_numpy(np.asarray(pooled)[len(known) :]).float(), heard


def _probabilities(
    x: Tensor, labels: np.ndarray, every: Tensor, num_classes: int, seed: int
) -> dict[str, Probabilities]:
    """(P, K) of each teacher; a class that it has not seen has probability 0."""
    scaled: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    found = {}
    for name, (scaling, make) in _TEACHERS.items():
        if scaling not in scaled:
            scaler = SpectralScaler(x.shape[1], scaling).fit(x, torch.from_numpy(labels))
            scaled[scaling] = scaler(x).double().numpy(), scaler(every).double().numpy()
        inputs, asked = scaled[scaling]
        with warnings.catch_warnings():  # a linear teacher need not be at its optimum
            warnings.simplefilter('ignore', ConvergenceWarning)
            teacher = make(len(np.unique(labels)), seed).fit(inputs, labels)
        found[name] = np.zeros((len(every), num_classes))
        found[name][:, teacher.classes_] = teacher.predict_proba(asked)
    return found


def _tempered(probabilities: Probabilities, power: float) -> Probabilities:
    raised = probabilities.clip(_EVEN, 1) ** power
    return raised / raised.sum(axis=1, keepdims=True)


def _power(given: Probabilities, labels: np.ndarray) -> float:
    """The power of probabilities that finds left-out labels likeliest."""
    rows = np.arange(len(labels))
    return max(_POWERS, key=lambda power: float(np.log(_tempered(given, power)[rows, labels] + _FLOOR).mean()))


def _weights(likelihood: np.ndarray, times: int = 30) -> np.ndarray:
    """Weights of a linear pool by expectation maximisation, stopped early: left-out labels are few.

    Args:
        likelihood: (n, T) probability that each opinion gave to each left-out label.
        times: steps.
    """
    weights = np.full(likelihood.shape[1], 1 / likelihood.shape[1])
    for _ in range(times):
        share = likelihood * weights
        weights = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


def _neighbours(x: Tensor, y: Tensor, every: Tensor, positions: Tensor) -> csr_array | None:
    """(P, P) weights of the eight neighbours of each pixel, by how alike they are; None where there are none."""
    start, end = neighbouring(positions, diagonal=True)
    if not len(start):
        return None
    scaled = SpectralScaler(x.shape[1], 'decorrelated').fit(x, y)(every)
    distance = (scaled[start] - scaled[end]).square().sum(dim=1).double().numpy()
    alike = np.exp(-distance / max(float(np.median(distance)), _EVEN))
    one_way = coo_array((alike, (start, end)), shape=(len(every),) * 2).tocsr()
    both = one_way + one_way.T
    return diags_array(1 / np.maximum(both.sum(axis=1), _EVEN)) @ both


def _spread(opinion: Probabilities, near: csr_array | None, share: float, times: int) -> Probabilities:
    """Opinions that give a share to those of the neighbours, and so in turn to theirs."""
    if near is None or not share:
        return opinion
    alone = np.asarray(near.sum(axis=1)) < 0.5  # pixels without neighbours keep their own
    mixed = opinion
    for _ in range(times):
        mixed = (1 - share) * opinion + share * np.where(alone[:, None], opinion, near @ mixed)
    return mixed


__all__ = ['pooled_opinion']
