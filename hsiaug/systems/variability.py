"""Physically informed spectra: illumination, within-material variability and mixing, learned from few labels.

Two pixels of the same material differ for three reasons, and each is one step here. They are lit differently
(:mod:`.exemplars`); the material itself varies, as the many *unlabelled* pixels show; and pixels mix materials. The
variability step transfers observed differences: the unlabelled spectra with the smallest angles to a training spectrum
are probably of its material, so that the differences between them are variations of this material.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..functional.devices import sent
from ..functional.plain import plain_torch
from ..functional.region_growing import grow_regions
from ..samples import SampleSpec
from ..settings import COUNT, NOT_NEGATIVE
from .base import TrainingData, own_settings, register
from .exemplars import ExemplarGenerator, relight, sky_shape


@register('variability')
class SpectralVariability(ExemplarGenerator):
    """Training spectra, varied like unlabelled pixels, relit, and mixed in pairs with soft labels.

    Args:
        spec: spec of the samples; its wavelengths shape the sky term.
        variability: scale of the transferred difference, uniform in [0, variability]; 0 switches this step off.
        neighbours: number of unlabelled spectra per training spectrum whose differences are transferred.
        direct: standard deviation of the direct light, see :func:`~hsiaug.systems.exemplars.relight`.
        diffuse: standard deviation of the sky's share.
        mixing: parameter of the Beta distribution of the mixing weight; 0 switches mixing off.
        partners: ``'across'`` mixes with any training spectrum, ``'within'`` with one of the same class.
        segment: how far to grow a segment of unlabelled pixels from a labelled one, in units of the image's typical
            step, see :func:`~hsiaug.functional.region_growing.grow_regions`. Pixels whose nearest labelled spectrum in
            angle has the same class are used in place of the labelled one, up to ``neighbours`` of them. 0 uses none;
            spectral libraries and datasets never do, as their spectra have no position.
    """

    ranges: ClassVar = {
        'variability': NOT_NEGATIVE, 'neighbours': COUNT, 'direct': NOT_NEGATIVE, 'diffuse': NOT_NEGATIVE,
        'mixing': NOT_NEGATIVE, 'segment': NOT_NEGATIVE,
    }  # fmt: skip
    soft_labels = True
    fitted = (*ExemplarGenerator.fitted, 'pool', 'near', 'segment_x', 'members')
    unlabelled = ('alike',)
    pool: Tensor  # (P, C) training and unlabelled spectra at unit norm
    near: Tensor  # (N, neighbours) positions in the pool of the spectra nearest to each training spectrum
    segment_x: Tensor  # (S, C) training spectra and those of their segments
    members: Tensor  # (N, neighbours + 1) positions there of each training spectrum and, in turn, of its segment
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
        segment: float = 0.0,
    ) -> None:
        super().__init__(spec, **own_settings(locals()))
        self.variability, self.neighbours = variability, neighbours
        self.direct, self.diffuse, self.mixing, self.partners, self.segment = direct, diffuse, mixing, partners, segment
        self.register_buffer('sky', sky_shape(spec))
        if not segment:  # then nothing is kept of it, nor saved
            for name in ('segment_x', 'members'):
                self.register_buffer(name, torch.empty(0), persistent=False)

    @classmethod
    def overlooks_unlabelled(cls, settings: Mapping[str, Any]) -> str | None:
        """The setting that it lacks to look at samples without labels; None where it looks at them."""
        return 'variability above 0' if settings.get('variability') == 0 else None

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
        if self.segment > 0:
            self.segment_x, self.members = _segments(data, self.segment, self.neighbours, self.device)
        super().fit(data, seed)

    def _vary(self, position: Tensor, rng: torch.Generator) -> Tensor:
        """(n, C) training spectra plus a difference between two of their neighbours, at their own brightness."""
        if self.segment > 0:
            turn = sent(torch.randint(self.members.shape[1], (len(position),), generator=rng), self.device)
            x = self.segment_x[self.members[position, turn]]
        else:
            x = self.train_x[position]
        if self.variability == 0:
            return x
        pair = sent(torch.randint(self.near.shape[1], (2, len(position)), generator=rng), self.device)
        a, b = (self.pool[self.near[position, choice]] for choice in pair)
        strength = self.variability * sent(torch.rand((len(position), 1), generator=rng), self.device)
        return x + strength * x.norm(dim=1, keepdim=True) * (a - b)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        first = self.exemplars(labels, rng)
        image = relight(self._vary(first, rng), self.sky, self.direct, self.diffuse, rng)
        if self.mixing == 0:
            return {'image': image, 'label_prob': one_hot(self.train_y[first], self.spec.num_classes).float()}
        second = self.partners_of(labels, self.partners, rng)
        other = relight(self._vary(second, rng), self.sky, self.direct, self.diffuse, rng)
        return self.mixed(image, other, (first, second), self.mixing, rng)


def _segments(data: TrainingData, reach: float, most: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(S, C) training spectra and those of their segments, and (N, most + 1) positions there for each training one.

    Where a segment has fewer, its members, the training spectrum among them, take turns.
    """
    count = len(data.x)
    members = torch.arange(count)[:, None].repeat(1, most + 1)
    if data.positions is None or not len(data.unlabelled):
        return data.x.to(device), members.to(device)
    everything = torch.cat([data.x, data.unlabelled])
    owner, path = grow_regions(everything, data.positions, count, reach)
    owner[:count] = -1
    found = torch.nonzero(owner >= 0)[:, 0]
    unit = normalize(data.x, dim=1)
    for rows in found.split(1024):
        nearest = (normalize(everything[rows], dim=1) @ unit.T).argmax(dim=1)
        owner[rows[data.y[nearest] != data.y[owner[rows]]]] = -1
    found = found[owner[found] >= 0]
    found = found[torch.argsort(path[found], stable=True)]
    for row in torch.unique(owner[found]).tolist():
        mine = torch.cat([torch.tensor([row]), found[owner[found] == row][:most]])
        members[row] = mine.repeat(-(-(most + 1) // len(mine)))[: most + 1]
    used = torch.unique(torch.cat([torch.arange(count), members.reshape(-1)]))
    return everything[used].to(device), torch.searchsorted(used, members).to(device)
