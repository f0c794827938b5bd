"""Class counts and class priors."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

_STEPS, _TOLERANCE = 1000, 1e-8  # of EM at most; it stops when no prior changes by more


def apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole counts that add up to ``total`` in the given shares (largest-remainder method).

    Args:
        shares: (K,) non-negative weights, not all zero.
        total: what the counts add up to.

    Returns:
        (K,) int64; each differs from its exact share by less than one. Ties go to the lower class.
    """
    exact = np.asarray(shares, dtype=np.float64) / np.sum(shares) * total
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - counts), kind='stable')
    counts[order[: total - counts.sum()]] += 1
    return counts


def fill_to_prior(real_counts: np.ndarray, prior: np.ndarray, total: int) -> np.ndarray:
    """Counts of ``total`` synthetic samples that bring real plus synthetic as close as possible to ``prior``.

    Classes already over-represented in the real data get none; the others share the samples in proportion to what they
    lack.

    Args:
        real_counts: (K,) real samples per class.
        prior: (K,) class prior that adds up to one.
        total: number of synthetic samples.

    Returns:
        (K,) int64 that add up to ``total``.
    """
    if total == 0:
        return np.zeros(len(prior), dtype=np.int64)
    lacking = np.maximum(np.asarray(prior) * (np.sum(real_counts) + total) - real_counts, 0)
    return apportion(lacking, total)


def em_prior(posteriors: np.ndarray, train_prior: np.ndarray) -> np.ndarray:
    """Class prior of unlabelled data by EM re-estimation.

    Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
    Neural Computation 14(1), 2002, equation 2.9.

    Args:
        posteriors: (M, K) class probabilities of a classifier on the unlabelled data.
        train_prior: (K,) class frequencies that the classifier was trained on.

    Returns:
        (K,) float64 that adds up to one.
    """
    prior = np.asarray(train_prior, dtype=np.float64)
    start = prior.copy()
    for _ in range(_STEPS):
        adjusted = posteriors * (prior / start)
        adjusted /= adjusted.sum(axis=1, keepdims=True)
        updated = adjusted.mean(axis=0)
        if np.abs(updated - prior).max() < _TOLERANCE:
            return updated
        prior = updated
    return prior


def tilt_to_mixture(fractions: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """The most even weights of samples with which their mean class fractions equal a mixture.

    The weights of maximum entropy are exponential in the fractions, w_i ∝ exp(λ·f_i); λ minimises a convex dual. A
    mixture that cannot be reached is approached as far as a small ridge on λ allows.

    Args:
        fractions: (N, K) class fractions of each sample.
        mixture: (K,) wanted mean, adding up to one.

    Returns:
        (N,) positive weights that add up to one.
    """

    def dual(tilt: np.ndarray) -> tuple[float, np.ndarray]:
        scores = fractions @ tilt
        weights = np.exp(scores - scores.max())
        total = weights.sum()
        value = np.log(total) + scores.max() - tilt @ mixture + ridge * tilt @ tilt
        return float(value), weights @ fractions / total - mixture + 2 * ridge * tilt

    ridge = 1e-5
    tilt = minimize(dual, np.zeros(len(mixture)), jac=True, method='L-BFGS-B', options={'maxiter': 500}).x
    weights = np.exp(fractions @ tilt - (fractions @ tilt).max())
    return weights / weights.sum()
