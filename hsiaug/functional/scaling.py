"""The scale of bands, by which all standardisations divide.

A band that hardly varies in the data it was fitted to (saturated, masked, a stripe, rounded to one value) tells nothing
about its range elsewhere. Divided by its own standard deviation, unseen values would be hundreds of units from all
others and dominate them. Such a band gets a scale derived from the other bands. All others keep their own, bit for bit.

The limits for "hardly varies" were checked on some forty public cubes, hyperspectral and Sentinel-2, whole, in halves,
in sixteenths, and on 10 to 100 random pixels each: no band of theirs is below them, including cirrus and water
absorption bands. These vary little because they are dark; a dead band has a level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

DEGENERATE = 0.04
"""Share of the typical band's standard deviation, and of its relative one: below both, a band hardly varies. Lowest
of both in real bands: 0.054."""
VANISHING = 5e-4
"""Share of the typical band's standard deviation below which a band hardly varies, dark or not. Real: 0.0013."""
ROUNDING = 1e-4
"""Standard deviation relative to the level that cannot be distinguished from rounding. Lowest in real bands: 0.0072."""
Moments = tuple[Tensor, Tensor]
_TYPICAL = 0.75  # quantile over bands: dead bands may be many, bright ones are few


def band_scale(mean: Tensor, std: Tensor) -> Tensor:
    """The value by which to divide deviations from the mean of each band.

    Args:
        mean: (C,) of the training values.
        std: (C,) of them, not negative.

    Returns:
        (C,) positive, in the dtype of ``std``: the standard deviation or, if a band hardly varies, that of a typical
        band, or the relative one of a typical band at this band's level, whichever is larger. If no band varies, it
        is the level, or one for values of 0.
    """
    dead, suggested = _dead(mean, std)
    return torch.where(dead, suggested.to(std), std)


def band_weight(mean: Tensor, std: Tensor) -> Tensor:
    """What deviations (C,) are multiplied by for a network that only reads them: 0 where a band hardly varies.

    Such a network has learnt nothing of that band, and weighs it as it was initialised. Elsewhere it is the inverse of
    :func:`band_scale`, of the same arguments.
    """
    return torch.where(_dead(mean, std)[0], 0.0, 1 / band_scale(mean, std))


def _dead(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Which bands hardly vary, (C,) bool, and the (C,) float64 scale that they get."""
    std, level = std.double(), mean.double().abs()
    std = torch.where(std > ROUNDING * level, std, 0.0)
    relative = std / (std.square() + level.square()).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    typical, usual = (values.quantile(_TYPICAL, interpolation='higher') for values in (std, relative))
    if typical == 0:  # more than three bands in four are dead
        typical, usual = std.max(), relative.max()
    dead = (std < DEGENERATE * typical) & (relative < DEGENERATE * usual) | (std <= VANISHING * typical)
    return dead, torch.maximum(typical, usual * level) if typical > 0 else torch.where(level > 0, level, 1.0)


def matching(its: Moments, wanted: Moments, count: int) -> Moments:
    """Gain and shift (d,) that give values with such means and standard deviations (d,) those of ``count`` real ones.

    As few samples are an uncertain guide, the gain, from a fifth to five, is shrunk towards 1 and the shift towards 0
    by n / (n + 10).
    """
    (its_mean, its_std), (mean, std), trust = its, wanted, count / (count + 10)
    gain = (std / its_std.clamp_min(1e-6)).clamp(0.2, 5) ** trust
    return gain, its_mean * (1 - gain) + trust * (mean - its_mean)


class BandScaler(StandardScaler):  # type: ignore[misc]
    """scikit-learn's ``StandardScaler`` with the scale of :func:`band_scale`."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> BandScaler:
        """Fit on (N, C) samples."""
        super().fit(X, y, sample_weight)
        mean, std = (torch.from_numpy(np.asarray(values, np.float64)) for values in (self.mean_, np.sqrt(self.var_)))
        self.scale_ = band_scale(mean, std).numpy()
        return self
