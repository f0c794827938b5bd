"""Standardisation of bands for models of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from .scaling import band_scale


class BandScaler(StandardScaler):  # type: ignore[misc]
    """scikit-learn's ``StandardScaler`` with the scale of :func:`~hsiaug.functional.scaling.band_scale`."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> BandScaler:
        """Fit on (N, C) samples."""
        super().fit(X, y, sample_weight)
        mean, std = (torch.from_numpy(np.asarray(values, np.float64)) for values in (self.mean_, np.sqrt(self.var_)))
        self.scale_ = band_scale(mean, std).numpy()
        return self
