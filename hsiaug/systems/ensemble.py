"""Several generators as one, against the mode collapse of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..functional.devices import sent
from ..samples import SampleSpec, joined_provenance, require_compatible
from .base import Generator, TrainingData, make_part, part_of, register


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
        self.soft_labels = any(member.soft_labels for member in self.members)  # type: ignore[misc]

    @classmethod
    def of(cls, generators: list[Generator], data: TrainingData, seed: int = 0) -> Ensemble:
        """An ensemble of trained generators, which remembers what each of them has seen."""
        if not generators:
            raise ValueError('Ensemble: at least one member is needed')
        for generator in generators[1:]:
            require_compatible(generators[0].spec, generator.spec)
        ensemble = cls(generators[0].spec, [part_of(generator) for generator in generators])
        ensemble.members = nn.ModuleList(generators)
        ensemble.to(generators[0].device).adopt(data, seed)
        parts = {f'member {number}': one.provenance for number, one in enumerate((ensemble, *generators))}
        known = {who: one for who, one in parts.items() if one is not None}
        ensemble.provenance = joined_provenance(known)
        return ensemble

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        choice = torch.randint(len(self.members), (len(labels),), generator=rng)
        batch: dict[str, Tensor] = {}
        for i, member in enumerate(self.members):
            assert isinstance(member, Generator)
            rows = choice == i
            if not rows.any():
                continue
            drawn = {key: value.float() if value.is_floating_point() else value
                     for key, value in member._draw(labels[rows], rng).items()}  # fmt: skip
            if self.spec.target_key == 'label':
                drawn.setdefault('label', labels[rows])
            if self.soft_labels and 'label_prob' not in drawn:
                drawn['label_prob'] = one_hot(labels[rows], self.spec.num_classes).float()
            for key, value in drawn.items():
                if key not in batch:
                    batch[key] = torch.empty((len(labels), *value.shape[1:]), dtype=value.dtype, device=self.device)
                batch[key][sent(rows.nonzero()[:, 0], self.device)] = sent(value, self.device)
        return batch
