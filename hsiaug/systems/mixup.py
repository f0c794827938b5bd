"""Mixup of spectra, within a class or across classes.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, https://arxiv.org/abs/1710.09412. For spectra it
has a physical reading: a linear mixture of two materials in one pixel.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..samples import SampleSpec
from ..settings import POSITIVE
from .base import register
from .duplicate import ExemplarGenerator


def mixing_weights(n: int, alpha: float, rng: torch.Generator) -> Tensor:
    """(n, 1) weights of the first partner, λ ~ Beta(alpha, alpha) folded to at least one half."""
    # torch's Beta takes no generator of its own.
    numpy_rng = np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
    weight = numpy_rng.beta(alpha, alpha, size=(n, 1))
    return torch.from_numpy(np.maximum(weight, 1 - weight)).to(torch.float32)


@register('mixup')
class Mixup(ExemplarGenerator):
    """Convex combinations of two training spectra.

    The label is the class asked for, which has at least half of the mixture; across classes ``label_prob`` has the
    shares.

    Args:
        spec: spec of the samples.
        partners: ``'within'`` mixes spectra of one class, ``'across'`` draws the second from all training spectra.
        alpha: parameter of the Beta distribution of the weight.
    """

    ranges: ClassVar = {'alpha': POSITIVE}
    soft_labels = True

    def __init__(self, spec: SampleSpec, partners: Literal['within', 'across'] = 'within', alpha: float = 0.4) -> None:
        super().__init__(spec, partners=partners, alpha=alpha)
        self.partners, self.alpha = partners, alpha

    def partner(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """(n,) positions of the second spectra."""
        if self.partners == 'within':
            return self.exemplars(labels, rng)
        return torch.randint(len(self.train_y), (len(labels),), generator=rng).to(self.device)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        first, second = self.exemplars(labels, rng), self.partner(labels, rng)
        weight = mixing_weights(len(labels), self.alpha, rng).to(self.device)
        shares = [one_hot(self.train_y[p], self.spec.num_classes).to(torch.float32) for p in (first, second)]
        return {
            'image': weight * self.train_x[first] + (1 - weight) * self.train_x[second],
            'label_prob': weight * shares[0] + (1 - weight) * shares[1],
        }
