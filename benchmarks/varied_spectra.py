"""``variability`` whose mixtures stay near their first spectrum: hardly better, and no part of the package."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hsiaug.samples import SampleSpec
from hsiaug.systems.base import register
from hsiaug.systems.variability import SpectralVariability


@register('varied_spectra')
class VariedSpectra(SpectralVariability):
    """As :class:`SpectralVariability`; shares of the second spectrum in a mixture are uniform up to ``share``."""

    def __init__(self, spec: SampleSpec, share: float = 0.5) -> None:
        super().__init__(spec)
        self.share = share
        self.settings |= {'share': share}

    def mixed(
        self, one: Tensor, other: Tensor, rows: tuple[Tensor, Tensor], alpha: float, rng: torch.Generator
    ) -> dict[str, Any]:
        """Mixtures of spectra and of labels; as inherited they hold up to one half of the second."""
        drawn = super().mixed(one, other, rows, alpha, rng)
        of_first = {'image': one, 'label_prob': one_hot(self.train_y[rows[0]], self.spec.num_classes)}
        return {name: first + 2 * self.share * (drawn[name] - first) for name, first in of_first.items()}
