"""Physically informed spectra: illumination, within-material variability and mixing, learned from few labels.

Three things make two pixels of one material differ. They are lit differently (:mod:`.relighting`); the material itself
varies, which the *unlabelled* pixels show, of which there are many; and pixels mix materials. Each is one step here.
The variability step is the transfer of observed differences: the training spectrum's nearest unlabelled spectra in
angle are of its material most likely, and differences between them are differences that this material shows.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..functional.plain import plain_torch
from ..samples import SampleSpec
from ..settings import COUNT, NOT_NEGATIVE
from .base import TrainingData, register
from .duplicate import ExemplarGenerator
from .mixup import mixing_weights
from .relighting import relight, sky_shape


@register('variability')
class SpectralVariability(ExemplarGenerator):
    """Training spectra, varied as unlabelled pixels vary, relit, and mixed by pairs with soft labels.

    Args:
        spec: spec of the samples; its wavelengths shape the sky term.
        variability: scale of the transferred difference, uniform in [0, variability]; 0 switches the step off.
        neighbours: unlabelled spectra among which differences are observed, per training spectrum.
        direct: standard deviation of the direct light, see :func:`~hsiaug.systems.relighting.relight`.
        diffuse: standard deviation of the sky's share.
        mixing: parameter of the Beta distribution of the mixing weight; 0 switches mixing off.
        partners: ``'across'`` mixes with any training spectrum, ``'within'`` with one of the same class.
    """

    ranges: ClassVar = {
        'variability': NOT_NEGATIVE, 'neighbours': COUNT, 'direct': NOT_NEGATIVE, 'diffuse': NOT_NEGATIVE,
        'mixing': NOT_NEGATIVE,
    }  # fmt: skip
    soft_labels = True
    fitted = (*ExemplarGenerator.fitted, 'pool', 'near')
    unlabelled = ('alike',)
    pool: Tensor  # (P, C) training and unlabelled spectra at unit norm
    near: Tensor  # (N, neighbours) positions in the pool of the spectra nearest to each training spectrum
    sky: Tensor

    def __init__(
        self,
        spec: SampleSpec,
        variability: float = 0.5,
        neighbours: int = 10,
        direct: float = 0.15,
        diffuse: float = 0.05,
        mixing: float = 1.0,
        partners: Literal['within', 'across'] = 'across',
    ) -> None:
        if partners not in ('within', 'across'):
            raise ValueError(f"SpectralVariability: unknown partners {partners!r}; choose from 'within', 'across'")
        super().__init__(
            spec,
            variability=variability,
            neighbours=neighbours,
            direct=direct,
            diffuse=diffuse,
            mixing=mixing,
            partners=partners,
        )
        self.variability, self.neighbours = variability, neighbours
        self.direct, self.diffuse, self.mixing, self.partners = direct, diffuse, mixing, partners
        self.register_buffer('sky', sky_shape(spec))

    @plain_torch()
    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Keep the training spectra and find each one's nearest unlabelled spectra by angle."""
        everything = torch.cat([data.x, data.unlabelled]) if self.variability > 0 else data.x[:1]
        pool = normalize(everything.to(self.device), dim=1)
        count = min(self.neighbours, len(pool))
        near = torch.empty((len(data.x), count), dtype=torch.int64, device=self.device)
        used = torch.zeros(len(pool), dtype=torch.bool, device=self.device)
        for rows in torch.arange(len(data.x), device=self.device).split(1024):
            cosine = normalize(data.x.to(self.device)[rows], dim=1) @ pool.T
            near[rows] = cosine.topk(count, dim=1).indices
            used[near[rows].reshape(-1)] = True
        # Only neighbours of some training spectrum are ever drawn: the rest of the pool is not kept.
        self.pool = pool[used]
        self.near = (torch.cumsum(used, 0) - 1)[near]
        super().fit(data, seed)

    def _vary(self, position: Tensor, rng: torch.Generator) -> Tensor:
        """(n, C) training spectra plus a difference between two of their neighbours, at their own brightness."""
        x = self.train_x[position]
        if self.variability == 0:
            return x
        pair = torch.randint(self.near.shape[1], (2, len(position)), generator=rng).to(self.device)
        a, b = (self.pool[self.near[position, choice]] for choice in pair)
        strength = self.variability * torch.rand((len(position), 1), generator=rng).to(self.device)
        return x + strength * x.norm(dim=1, keepdim=True) * (a - b)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        first = self.exemplars(labels, rng)
        image = relight(self._vary(first, rng), self.sky, self.direct, self.diffuse, rng)
        prob = one_hot(self.train_y[first], self.spec.num_classes).to(torch.float32)
        if self.mixing > 0:
            if self.partners == 'within':
                second = self.exemplars(labels, rng)
            else:
                second = torch.randint(len(self.train_y), (len(labels),), generator=rng).to(self.device)
            other = relight(self._vary(second, rng), self.sky, self.direct, self.diffuse, rng)
            weight = mixing_weights(len(labels), self.mixing, rng).to(self.device)
            image = weight * image + (1 - weight) * other
            other_prob = one_hot(self.train_y[second], self.spec.num_classes).to(torch.float32)
            prob = weight * prob + (1 - weight) * other_prob
        return {'image': image, 'label_prob': prob}
