"""Forms of ``variability`` that were measured beside it and are no part of the package.

Mixtures can be kept near their first spectrum, and unlabelled spectra can say how materials scatter: those of the
training area that lie as near in angle to a labelled spectrum as labelled ones of its class lie to each other.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData
from hsiaug.systems.base import register
from hsiaug.systems.variability import SpectralVariability

_MOST = 50  # unlabelled spectra of a labelled one


@register('varied_spectra')
class VariedSpectra(SpectralVariability):
    """As :class:`SpectralVariability`, the steps between spectra and mixtures being others.

    Args:
        spec: spec of the samples.
        share: largest share of the second spectrum in a mixture, whose shares are uniform up to there.
        scatter: standard deviations, of the scatter within classes among near unlabelled spectra, that are added.
        partners: see :class:`SpectralVariability`.
    """

    def __init__(
        self,
        spec: SampleSpec,
        share: float = 0.5,
        scatter: float = 0.0,
        partners: Literal['within', 'across'] = 'across',
    ) -> None:
        super().__init__(spec, partners=partners)
        self.share, self.scatter = share, scatter
        self.settings |= {'share': share, 'scatter': scatter}

    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Keep a root of the pooled covariance within classes, as Ledoit and Wolf shrink it."""
        super().fit(data, seed)
        if self.scatter:
            spread = data.x.std(dim=0).clamp_min(1e-9)
            residuals = (near_residuals(data) / spread).double().numpy()
            value, vector = torch.linalg.eigh(torch.from_numpy(ledoit_wolf(residuals, assume_centered=True)[0]))
            self.root = spread[:, None] * (vector * value.clamp_min(0).sqrt()).float()

    def _vary(self, position: Tensor, rng: torch.Generator) -> Tensor:
        x = super()._vary(position, rng)
        return x + self.scatter * torch.randn(x.shape, generator=rng) @ self.root.T if self.scatter else x

    def mixed(self, one: Tensor, other: Tensor, rows: Any, alpha: float, rng: torch.Generator) -> dict[str, Tensor]:
        """Mixtures of spectra and labels; folded weights of the other are at most one half."""
        other = one + 2 * self.share * (other - one)
        drawn = super().mixed(one, other, rows, alpha, rng)
        first = one_hot(self.train_y[rows[0]], self.spec.num_classes)
        drawn['label_prob'] = first + 2 * self.share * (drawn['label_prob'] - first)
        return drawn


def near_residuals(data: TrainingData) -> Tensor:
    """(R, C) differences of near unlabelled spectra from their mean over the labelled ones of a class.

    As bright as the labelled spectrum that each is nearest to; labelled spectra's own where hardly any is near.
    """
    unit, among = normalize(data.x, dim=1), normalize(data.unlabelled, dim=1)
    other = torch.where((data.y[:, None] == data.y) & ~torch.eye(len(unit), dtype=torch.bool), unit @ unit.T, -2.0)
    best, owner = (unit @ among.T).max(dim=0) if len(among) else (torch.empty(0), torch.empty(0, dtype=torch.int64))
    best = torch.where(best >= other.amax(dim=1).median(), best, -2.0)
    rows = [torch.nonzero((owner == k) & (best > -2))[:, 0] for k in range(len(unit))]
    found = torch.cat([mine[best[mine].argsort(descending=True)[:_MOST]] for mine in rows])
    x, y = data.x, data.y
    if len(found) > 20:
        x, y = among[found] * data.x[owner[found]].norm(dim=1, keepdim=True), data.y[owner[found]]
    means = torch.stack([x[y == label].mean(dim=0) for label in range(data.spec.num_classes)])
    return x - means[y]
