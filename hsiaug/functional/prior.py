"""Class counts and class priors: how many samples of each class to draw."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize


def apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole counts (K,) int64 that add up to ``total`` in the given shares (largest-remainder method).

    Shares (K,) are weights, not negative and not all zero. Each count differs from its exact share by less than one;
    ties go to the lower class.
    """
    exact = np.asarray(shares, dtype=np.float64) / np.sum(shares) * total
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - counts), kind='stable')
    counts[order[: total - counts.sum()]] += 1
    return counts


def fill_to_prior(real_counts: np.ndarray, prior: np.ndarray, total: int) -> np.ndarray:
    """Counts (K,) int64 of synthetic samples that bring real plus synthetic as near to ``prior`` as adding can.

    A class that the ``real_counts`` (K,) already over-represent gets none, and the others share what is left of
    ``total`` in proportion to what they lack of a prior (K,) that adds up to one.
    """
    if total == 0:
        return np.zeros(len(prior), dtype=np.int64)
    lacking = np.maximum(np.asarray(prior) * (np.sum(real_counts) + total) - real_counts, 0)
    return apportion(lacking, total)


def em_prior(
    posteriors: np.ndarray, train_prior: np.ndarray, iterations: int = 1000, tolerance: float = 1e-8
) -> np.ndarray:
    """Class prior (K,) float64 of unlabelled data by EM re-estimation.

    Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", Neural
    Computation 14(1), 2002, equation 2.9: from class probabilities (M, K) of a classifier on the unlabelled data, and
    the class frequencies (K,) that it was trained on, until no prior changes by more than ``tolerance``.
    """
    prior = np.asarray(train_prior, dtype=np.float64)
    start = prior.copy()
    for _ in range(iterations):
        adjusted = posteriors * (prior / start)
        adjusted /= adjusted.sum(axis=1, keepdims=True)
        updated = adjusted.mean(axis=0)
        if np.abs(updated - prior).max() < tolerance:
            return updated
        prior = updated
    return prior


def tilt_to_mixture(fractions: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Weights (N,) of samples that bring their mean class fractions (N, K) to a mixture (K,), as even as that allows.

    The weights of maximum entropy are exponential in the fractions, w_i ∝ exp(λ·f_i), and add up to one; λ minimises a
    convex dual. A mixture out of reach is approached as far as a small ridge on λ lets it.
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
