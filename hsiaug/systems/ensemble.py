"""Several generators as one, against the mode collapse of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..functional.devices import sent
from ..samples import SampleSpec, require_compatible
from .base import Generator, TrainingData, register
from .registry import make_part, part_of


@register('ensemble')
class Ensemble(Generator):
    """A uniform mixture of generators: each sample comes from a member drawn at random.

    Args:
        spec: spec of the samples.
        members: one ``{'type': ..., 'settings': {...}}`` per member; :meth:`of` makes an ensemble of generators.
    """

    def __init__(self, spec: SampleSpec, members: list[dict[str, Any]]) -> None:
        if not members:
            raise ValueError('Ensemble: at least one member is needed')
        super().__init__(spec, members=members)
        self.members = nn.ModuleList(make_part(spec, member) for member in members)

    @classmethod
    def of(cls, generators: list[Generator], data: TrainingData, seed: int = 0) -> Ensemble:
        """An ensemble of trained generators."""
        for generator in generators[1:]:
            require_compatible(generators[0].spec, generator.spec)
        if not generators:
            raise ValueError('Ensemble: at least one member is needed')
        ensemble = cls(generators[0].spec, [part_of(generator) for generator in generators])
        ensemble.members = nn.ModuleList(generators)
        ensemble.to(generators[0].device).adopt(data, seed)
        return ensemble

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        choice = torch.randint(len(self.members), (len(labels),), generator=rng)
        image = torch.empty((len(labels), self.spec.bands), device=self.device)
        for i, member in enumerate(self.members):
            assert isinstance(member, Generator)
            rows = choice == i
            if rows.any():
                image[sent(rows.nonzero()[:, 0], self.device)] = member._draw(labels[rows], rng)['image'].to(
                    image.dtype
                )
        return {'image': image}
