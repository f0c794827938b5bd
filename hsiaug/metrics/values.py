"""Fidelity metrics as single values, with the values of real samples for reference, and intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

from ..functional.spectral import spectral_angle
from .fidelity import fidelity
from .patches import Pair, PatchFidelity, class_moments

TITLES: dict[str, tuple[str, str]] = {
    'fid_image': ('Fréchet distance of images', '0'),
    'fid_mask': ('Fréchet distance of masks', '0'),
    'msad': ('spectral angle between class means (mSAD, radians)', '0'),
    'std_ratio': ('standard deviation within a class, synthetic / real', '1'),
    'precision': ('precision', '1'),
    'recall': ('recall', '1'),
    'density': ('density', '1'),
    'coverage': ('coverage', '1'),
    'class_share_error': ('class shares, total variation', '0'),
    'cooccurrence_error': ('neighbouring classes, total variation', '0'),
    'alignment': ('alignment of mask and image', '1'),
}
"""Measures by field of a :class:`~hsiaug.metrics.patches.PatchFidelity`: what they are, and what is ideal."""
DIFFERENCES = {
    'unchanged': 'where nothing changed, Wasserstein distance in real standard deviations',
    'changed': 'where something changed',
    'unchanged_texture': 'steps from a pixel to the next, where nothing changed',
    'changed_texture': 'steps from a pixel to the next, where something changed',
}
"""The same of :class:`~hsiaug.metrics.ChangeDifferences`."""
OF_IMAGES = ('fid_image', 'msad', 'std_ratio', 'precision', 'recall', 'density', 'coverage', 'class_share_error')
"""What is measured of images whose pixels all have their label."""
OF_DATE, OF_BOTH = OF_IMAGES[:-1], ('fid_image', 'fid_mask', 'class_share_error', 'cooccurrence_error', 'alignment')
"""What is measured of one date of a pair, and of both dates with their change mask."""
_SHARES = ('precision', 'recall', 'coverage', 'class_share_error', 'cooccurrence_error')
_SVM = {
    'real_fake': 'linear SVM trained on real, accuracy on synthetic samples',
    'fake_real': 'linear SVM trained on synthetic, accuracy on held-out real samples',
    'fake_fake': 'linear SVM trained on synthetic, accuracy on others of them',
}


class Value(NamedTuple):
    """A measure of synthetic samples."""

    synthetic: float
    real: float  # of real samples in their place, the best to hope for
    ideal: str = 'as real'  # in words
    most: float = math.inf  # what it cannot exceed


Measure = Callable[[Pair, Pair], Mapping[str, Value]]
"""Of held-out real and of synthetic samples, by what is measured."""


@dataclass(frozen=True)
class Measured:
    """A measure with its interval."""

    value: Value  # of all samples
    interval: tuple[float, float] | None  # 95 %, None where there are too few samples


def with_intervals(measure: Measure, test: Pair, fake: Pair, parts: int, seed: int = 0) -> dict[str, Measured]:
    """Measures with delete-a-group jackknife intervals (Shao and Tu 1995): t of ``parts`` − 1 degrees of freedom.

    Each part, a random share of the synthetic and of the held-out real samples alike, is left out in turn. Samples
    count as independent; neighbouring ones are not, and the intervals are rather too narrow for that.
    """
    whole = measure(test, fake)
    rng = torch.Generator().manual_seed(seed)
    deals = [torch.randperm(len(side[0]), generator=rng) % parts for side in (test, fake)]
    without: list[Mapping[str, Value]] = []
    if min(len(test[0]), len(fake[0])) >= 2 * parts:
        for k in range(parts):
            left = [(side[0][deal != k], side[1][deal != k]) for side, deal in zip((test, fake), deals, strict=True)]
            without.append(measure(left[0], left[1]))
    found = {}
    for name, value in whole.items():
        values = torch.tensor([each[name].synthetic for each in without], dtype=torch.float64)
        interval = None
        if len(values) and values.isfinite().all():
            error = math.sqrt((parts - 1) * float(values.var(correction=0)))
            half = float(student.ppf(0.975, parts - 1)) * error
            interval = max(value.synthetic - half, 0.0), min(value.synthetic + half, value.most)  # none is negative
        found[name] = Measured(value, interval)
    return found


def spectra_measure(train: Pair, num_classes: int) -> Measure:
    """Measures of spectra (n, C) with labels (n,)."""

    def moments(pair: Pair) -> tuple[Tensor, Tensor]:
        return class_moments(pair[0][:, :, None, None], pair[1][:, None, None], num_classes)

    known = moments(train)

    def measure(test: Pair, fake: Pair) -> dict[str, Value]:
        (mean, std), drawn = moments(test), moments(fake)
        angles, ratios = [], []
        for side_mean, side_std in (drawn, known):
            angles.append(float(spectral_angle(mean, side_mean).nanmean()))
            ratios.append(float((side_std.mean(dim=1) / std.mean(dim=1)).nanmedian()))
        result, best = fidelity(train, test, fake, num_classes), fidelity(train, test, test, num_classes)
        return {
            TITLES['msad'][0]: Value(angles[0], angles[1], TITLES['msad'][1]),
            TITLES['std_ratio'][0]: Value(ratios[0], ratios[1], TITLES['std_ratio'][1]),
            'band-to-band roughness, over that of training spectra': Value(
                result.roughness_ratio, best.roughness_ratio, '1'
            ),
            'nearer to a training spectrum than that one’s neighbour (share)': Value(
                result.closer_than_real, best.closer_than_real, most=1.0
            ),
            **{name: Value(result.svm[key], result.svm['real_real'], most=1.0) for key, name in _SVM.items()},
        }

    return measure


def patch_values(result: PatchFidelity, fields: Sequence[str], prefix: str = '') -> dict[str, Value]:
    """Some measures of images with masks, each with its value of real training samples."""
    return {
        prefix + TITLES[field][0]: Value(
            getattr(result, field),
            getattr(result.real_reference, field),
            TITLES[field][1],
            1.0 if field in _SHARES else math.inf,
        )
        for field in fields
    }
