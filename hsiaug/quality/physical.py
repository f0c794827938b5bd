"""Gates for single spectra: range of values, roughness, and shape."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ..functional.scaling import band_scale
from ..samples import SampleSpec
from ..settings import BETWEEN, check_value
from ..systems import TrainingData
from .gate import Batch, Gate, rows_at_once
from .regions import deal_folds

_PIXELS = 20_000  # enough spectra to learn from
_WORST = 0.95
_TINY = 1e-12


def pixel_spectra(image: Tensor, spec: SampleSpec) -> Tensor:
    """(n, P, C) spectra of (n, C), (n, C, H, W) or, of both dates, (n, 2, C, H, W) images."""
    image = image.detach().cpu().float()
    if spec.size is None:
        return image[:, None]
    return image.movedim(-3, -1).flatten(1, -2)


class SpectralGate(Gate):
    """Base class of gates that score single spectra; the score of an image is the 95 % quantile over its pixels."""

    min_bands: ClassVar[int] = 1

    def _fit(self, data: TrainingData, regions: Tensor, seed: int) -> Tensor:
        if data.spec.bands < self.min_bands:
            raise ValueError(f'{type(self).__name__} needs {self.min_bands} bands, found {data.spec.bands}')
        spectra = pixel_spectra(data.x, data.spec)
        place = regions.reshape(len(regions), -1)
        place = place.repeat(1, spectra.shape[1] // place.shape[1])  # both dates of a pixel share a region
        rng = torch.Generator().manual_seed(seed)
        values = torch.full(spectra.shape[:2], torch.nan)
        for held in deal_folds(place, seed):
            self._learn(_some(spectra[~held], rng))
            values[held] = self._values(spectra[held])
        self._learn(_some(spectra.flatten(0, 1), rng))
        return _worst(values)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        """(n,) value of the spectrum, or the 95 % quantile of the values of an image's pixels."""
        assert self.spec is not None
        scores = []
        for image in batch['image'].split(rows_at_once(self.spec)):
            spectra = pixel_spectra(image, self.spec)
            scores.append(_worst(self._values(spectra.flatten(0, 1)).view(spectra.shape[:2])))
        return torch.cat(scores) if scores else torch.empty(0)

    @abstractmethod
    def _learn(self, spectra: Tensor) -> None:
        """Learn from (M, C) real spectra."""

    @abstractmethod
    def _values(self, spectra: Tensor) -> Tensor:
        """(M,) values of (M, C) spectra; higher is worse."""


class RangeGate(SpectralGate):
    """Rejects values out of the range of real ones. The score is the excess in standard deviations of the band."""

    name = 'range'

    def _learn(self, spectra: Tensor) -> None:
        self.low, self.high = spectra.amin(dim=0), spectra.amax(dim=0)
        self.std = _scale(spectra)

    def _values(self, spectra: Tensor) -> Tensor:
        beyond = torch.maximum(spectra - self.high, self.low - spectra)
        return (beyond / self.std).amax(dim=1)


class SmoothnessGate(SpectralGate):
    """Rejects rough spectra, by the log mean square difference of neighbouring bands, standardised by real spectra."""

    name = 'smoothness'
    min_bands = 2

    def _learn(self, spectra: Tensor) -> None:
        steps = spectra.diff(dim=1)
        self.mean, self.std = steps.mean(dim=0), _scale(steps)

    def _values(self, spectra: Tensor) -> Tensor:
        steps = (spectra.diff(dim=1) - self.mean) / self.std
        return steps.square().mean(dim=1).clamp_min(_TINY).log()


class SubspaceGate(SpectralGate):
    """Rejects spectra outside the subspace of real ones, by the log mean square residual of their principal components.

    Args:
        false_alarm: see :class:`~hsiaug.quality.gate.Gate`.
        variance: share of the real variance in the subspace, which has at most half as many components as bands.

    Raises:
        ValueError: if a number is not between 0 and 1.
    """

    name = 'subspace'
    min_bands = 2

    def __init__(self, false_alarm: float = 0.05, variance: float = 0.999) -> None:
        super().__init__(false_alarm)
        check_value('SubspaceGate', 'variance', variance, float, BETWEEN)
        self.variance = variance

    def _learn(self, spectra: Tensor) -> None:
        self.mean = spectra.mean(dim=0)
        centred = spectra.double() - self.mean
        power, axes = torch.linalg.eigh(centred.T @ centred)
        power, axes = power.flip(0).clamp_min(0), axes.flip(1)
        enough = int((power.cumsum(0) < self.variance * power.sum()).sum()) + 1
        # A few spectra span themselves; enough dimensions must remain to measure what is outside.
        self.axes = axes[:, : max(1, min(enough, len(spectra) // 2, spectra.shape[1] // 2))].float()
        self.std = _scale(self._left(spectra))

    def _left(self, spectra: Tensor) -> Tensor:
        centred = spectra - self.mean
        return centred - centred @ self.axes @ self.axes.T

    def _values(self, spectra: Tensor) -> Tensor:
        return (self._left(spectra) / self.std).square().mean(dim=1).clamp_min(_TINY).log()


def _some(spectra: Tensor, rng: torch.Generator) -> Tensor:
    return spectra[torch.randperm(len(spectra), generator=rng)[:_PIXELS]]


def _worst(values: Tensor) -> Tensor:
    """(n,) 95 % quantile of (n, P)."""
    return values.quantile(_WORST, dim=1)


def _scale(values: Tensor) -> Tensor:
    """(C,) standard deviations of (M, C) values, none negligible compared with the others."""
    return band_scale(values.mean(dim=0), values.std(dim=0, correction=0))
