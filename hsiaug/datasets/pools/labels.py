"""The classes of synthetic samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ...functional.prior import apportion, em_prior, fill_to_prior
from ...functional.scaling import BandScaler
from ...samples import in_short

LabelPolicy = Literal['real', 'sqrt', 'uniform', 'inverse', 'prior'] | Mapping[str, float]
"""Class frequencies: ``real``, ``sqrt`` (square roots of the real ones), ``uniform``, ``inverse``, ``prior`` (real plus
synthetic samples match a class prior), or weights by class name."""

POLICIES = ('real', 'sqrt', 'uniform', 'inverse', 'prior')


def synthetic_counts(
    policy: LabelPolicy,
    total: int,
    classes: tuple[str, ...],
    real_counts: np.ndarray | None = None,
    prior: np.ndarray | None = None,
    left_out: Collection[str] = (),
) -> np.ndarray:
    """Number of synthetic samples of each class.

    Args:
        policy: see :data:`LabelPolicy`.
        total: number of synthetic samples.
        classes: the K class names.
        real_counts: (K,) real samples per class; required by every policy except ``uniform`` and a mapping.
        prior: (K,) class prior, for the policy ``prior``.
        left_out: classes without samples; their share goes to the others in proportion. Weights may not name them.

    Returns:
        (K,) int64 counts that add up to exactly ``total``.

    Raises:
        ValueError: for an unknown policy or class, if the policy lacks an argument, or if no class is left.
    """
    if isinstance(policy, Mapping) and (named := sorted(k for k in left_out if policy.get(k))):
        raise ValueError(f'label policy gives weight to {named}, which the source leaves out')
    weights = _weights(policy, total, classes, real_counts, prior)
    if left_out:
        weights = np.array(weights, dtype=np.float64)
        weights[[classes.index(name) for name in left_out]] = 0
        if total and not weights.any():
            raise ValueError(f'label policy {policy!r} asks only for {sorted(left_out)}, which the source leaves out')
    return apportion(weights, total) if total else np.zeros(len(classes), dtype=np.int64)


def _weights(
    policy: LabelPolicy, total: int, classes: tuple[str, ...], real_counts: np.ndarray | None, prior: np.ndarray | None
) -> np.ndarray:
    """(K,) weights of the classes; for the policy ``prior``, the counts themselves."""
    if isinstance(policy, Mapping):
        if unknown := sorted(set(policy) - set(classes)):
            raise ValueError(f'label policy names unknown classes {unknown}; choose from {list(classes)}')
        return per_class([policy.get(name, 0) for name in classes], classes, 'label policy needs a weight')
    if policy not in POLICIES:
        raise ValueError(f'unknown label policy {policy!r}; choose from {POLICIES} or give weights by class name')
    if policy == 'uniform':
        return np.ones(len(classes))
    if real_counts is None:
        raise ValueError(
            f'label policy {policy!r} needs the counts of the real classes: give real_counts or, beside real samples, '
            'a dataset that knows its labels, as hsiaug.adapt(dataset) makes'
        )
    needed = 'label policy needs the number of real samples (real_counts)'
    counts = per_class(real_counts, classes, needed, policy == 'prior')
    if policy == 'real':
        return counts
    if policy == 'sqrt':
        return np.sqrt(counts)
    if policy == 'inverse':  # also for frequencies below one
        return np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    if prior is None:
        raise ValueError("label policy 'prior' needs a class prior; see estimate_prior")
    shares = per_class(prior, classes, 'label policy needs a share')
    return fill_to_prior(counts, shares / shares.sum(), total)


def per_class(values: object, classes: tuple[str, ...], what: str, all_zero: bool = False) -> np.ndarray:
    """(K,) float64 numbers, one for each class; ``what`` begins the message that others are refused with."""
    known = np.asarray(values)
    numbers = known.shape == (len(classes),) and known.dtype.kind in 'biuf'
    if not numbers or not np.isfinite(known).all() or (known < 0).any() or not (all_zero or known.any()):
        raise ValueError(
            f'{what} of each of {len(classes)} classes, >= 0 and at least one above 0, found '
            f'{values}; the classes are {in_short(classes)}'
        )
    return known.astype(np.float64)


def estimate_prior(x: np.ndarray, y: np.ndarray, unlabelled: np.ndarray, num_classes: int) -> np.ndarray:
    """Estimate the class prior of the training area from its unlabelled pixels.

    A logistic regression is fitted to the labelled pixels, and the prior re-estimated by EM from its posteriors on the
    unlabelled ones. Half a pixel per class is added, so that no class vanishes.

    Args:
        x: (N, C) labelled training spectra.
        y: (N,) labels, each class at least once.
        unlabelled: (M, C) unlabelled spectra; if M = 0, the training frequencies are returned.
        num_classes: number of classes K.

    Returns:
        (K,) float64 that adds up to one.
    """
    frequencies = np.bincount(y, minlength=num_classes) / len(y)
    if len(unlabelled) == 0:
        return frequencies
    model = make_pipeline(BandScaler(), LogisticRegression(C=1.0, max_iter=2000)).fit(x, y)
    prior = em_prior(model.predict_proba(unlabelled), frequencies)
    smoothed = prior * len(unlabelled) + 0.5
    return smoothed / smoothed.sum()
