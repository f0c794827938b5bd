"""Unlabelled pixels of the training area with labels that neighbours agree on, beside what ``variability`` makes.

What the labels and a classifier of pixels alone lack is where pixels lie. A network and a discriminant label spectra
that are smoothed along edges, and their opinions are those of a random walker with priors (Grady, CVPR 2005): the walk
ends at a labelled pixel, or in the opinion of where it is. Only pixels count that are as near to a class as left-out
labelled ones are. It gained little over ``variability`` alone, so that this is no part of the package.
"""

from __future__ import annotations

import numpy as np
import torch
from pooled_labels import neighbours, tempered
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import cg
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch.nn.functional import one_hot

from hsiaug.datasets.held import HeldSamples
from hsiaug.functional.pasting import pairs_that_hold
from hsiaug.models.nn1d import SpectralScaler
from hsiaug.systems import TrainingData
from hsiaug.systems.base import register
from hsiaug.systems.variability import SpectralVariability
from hsiaug.trainers import ClassifierConfig, train_nn1d

TEACHER = ClassifierConfig(hidden=128, scaling='decorrelated', dropout=0.3, steps=400)
_POWER = 0.3  # with few labels a discriminant is far too sure
_PRIOR = 0.2  # weight of a pixel's own opinion, where that of a typical neighbour is exp(-1)
_LIKE = 0.95  # share of the left-out labelled spectra that lie as near to their class


@register('spatial_label')
class SpatialLabel(SpectralVariability):
    """Every other sample an unlabelled spectrum with the soft label of its place; without places none is."""

    x: Tensor  # (M, C) spectra, the labelled ones among them
    shares: Tensor  # (M, K) probabilities
    counts: Tensor  # (M,) whether a spectrum is as near to a class as labelled ones are

    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Ask the teachers, and let the walkers walk."""
        super().fit(data, seed)
        self.x, self.shares = data.x, one_hot(data.y, data.spec.num_classes).float()
        self.counts = torch.ones(len(data.x))
        if data.positions is not None and len(data.unlabelled):
            shares, counts = spatial_labels(data, seed)
            self.x = torch.cat([data.x, data.unlabelled])
            self.shares = torch.cat([self.shares, torch.from_numpy(shares).float()])
            self.counts = torch.cat([self.counts, torch.from_numpy(counts).float()])

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        drawn = super()._draw(labels, rng)
        if len(self.x) > len(self.train_y):
            rows = pairs_that_hold(labels, self.shares * self.counts[:, None], rng)
            theirs = torch.rand((len(labels), 1), generator=rng) < 0.5
            drawn = {'image': torch.where(theirs, self.x[rows], drawn['image']),
                     'label_prob': torch.where(theirs, self.shares[rows], drawn['label_prob'])}  # fmt: skip
        return drawn


def spatial_labels(data: TrainingData, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, K) probabilities of the unlabelled spectra, and whether each is as near to a class as labelled ones are."""
    count, classes, labels = len(data.x), data.spec.num_classes, data.y.numpy()
    every = torch.cat([data.x, data.unlabelled])
    near = neighbours(data.x, data.y, every, data.positions.numpy())
    smoothing = near + eye_array(len(every))
    smoothing = diags_array(1 / smoothing.sum(axis=1)) @ smoothing
    smoothing = (smoothing @ smoothing).tocsr()
    smooth = torch.from_numpy(smoothing @ every.double().numpy()).float()
    scaled = SpectralScaler(data.x.shape[1], 'decorrelated').fit(data.x, data.y)(smooth).double().numpy()
    network = train_nn1d(HeldSamples(data.x, data.y, data.spec), TEACHER, seed).eval()
    with torch.no_grad():
        of_network = network(smooth).softmax(dim=1).double().numpy()
    discriminant = LinearDiscriminantAnalysis('lsqr', 'auto', priors=np.full(classes, 1 / classes))
    of_discriminant = discriminant.fit(scaled[:count], labels).predict_proba(scaled)
    opinion = (of_network + tempered(of_discriminant, _POWER)) / 2
    left = np.empty(count)
    folds = StratifiedKFold(max(2, min(5, int(np.bincount(labels).min()))), shuffle=True, random_state=seed)
    for rest, out in folds.split(labels, labels):
        left[out] = _distances(scaled[out], scaled[rest], labels[rest])[np.arange(len(out)), labels[out]]
    alike = _distances(scaled[count:], scaled[:count], labels).min(axis=1) <= np.quantile(left, _LIKE)
    return walked(opinion, near, np.eye(classes)[labels]), alike


def walked(opinion: np.ndarray, near: csr_array, known: np.ndarray) -> np.ndarray:
    """(M, K) chances that a walk from an unlabelled pixel ends in each class.

    Args:
        opinion: (N + M, K) probabilities, those of the labelled pixels first.
        near: (N + M, N + M) weights of neighbours.
        known: (N, K) labels, one-hot.
    """
    count = len(known)
    pull = near[count:, :count] @ known + _PRIOR * opinion[count:]
    system = (diags_array(near.sum(axis=1)[count:] + _PRIOR) - near[count:, count:]).tocsr()
    scale = diags_array(1 / system.diagonal())
    ends = [cg(system, pull[:, k], x0=opinion[count:, k], rtol=1e-4, M=scale)[0] for k in range(known.shape[1])]
    found = np.stack(ends, axis=1).clip(0)
    return found / found.sum(axis=1, keepdims=True)


def _distances(x: np.ndarray, labelled: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, K) squared Mahalanobis distances to the class means, with the shrunk covariance within classes."""
    means = np.stack([labelled[labels == label].mean(axis=0) for label in np.unique(labels)])
    inverse = np.linalg.inv(ledoit_wolf(labelled - means[labels], assume_centered=True)[0])
    return np.stack([(((x - mean) @ inverse) * (x - mean)).sum(axis=1) for mean in means], axis=1)
