"""Whole regions dealt to folds, so that each fold holds about as much of every class."""

from __future__ import annotations

import numpy as np


def deal_regions(label: np.ndarray, region: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) fold of each sample: in the order of ``rng``, each region goes where the classes of its samples lack most.

    Of each sample it is given the (N,) class and the (N,) region. scikit-learn's StratifiedGroupKFold takes regions in
    a fixed order but for ties, so that repeated deals are alike.
    """
    numbers, region = np.unique(region, return_inverse=True)
    classes, label = np.unique(label, return_inverse=True)
    counts = np.zeros((len(numbers), len(classes)))
    np.add.at(counts, (region, label), 1)
    counts /= counts.sum(axis=0)  # a rare class weighs as much as a frequent one
    of_region, held = np.empty(len(numbers), dtype=np.int64), np.zeros((folds, len(classes)))
    for number in rng.permutation(len(numbers)):
        fold = int(((held + counts[number]) ** 2 - held**2).sum(axis=1).argmin())
        of_region[number] = fold
        held[fold] += counts[number]
    return of_region[region]
