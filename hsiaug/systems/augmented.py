"""One generator's samples, altered by another: super-resolution as post-processing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..samples import SampleSpec, joined_provenance, require_compatible
from ..streams import drawn_seed
from .base import Generator, make_part, part_of, register


@register('augmented')
class Augmented(Generator):
    """Samples of one generator, altered by another; fills banks and is mixed in like any generator.

    The source is asked for the labels. If the augmenter cuts a window out of a sample with a mask, the window may not
    contain the requested class.

    Args:
        spec: spec of the samples.
        source, augmenter: ``{'type': ..., 'settings': {...}}`` of the two generators; :meth:`of` fills in both.
    """

    source: Generator
    augmenter: Any

    def __init__(self, spec: SampleSpec, source: dict[str, Any], augmenter: dict[str, Any]) -> None:
        super().__init__(spec, source=source, augmenter=augmenter)
        self.source, self.augmenter = (make_part(spec, part) for part in (source, augmenter))
        _require_augment(self.augmenter)

    @classmethod
    def of(cls, source: Generator, augmenter: Generator) -> Augmented:
        """What makes samples and what alters them, by its ``augment``, as one, which remembers what either has seen.

        Raises:
            SpecMismatchError: if the two do not fit together in bands, size, classes and unit.
        """
        _require_augment(augmenter)
        require_compatible(source.spec, augmenter.spec)
        both = cls(source.spec, part_of(source), part_of(augmenter))
        both.source, both.augmenter = source, augmenter
        both.class_prior.copy_(source.class_prior)
        parts = {'source': source.provenance, 'augmenter': augmenter.provenance}
        if known := {who: one for who, one in parts.items() if one is not None}:  # the pixels that either has seen
            training = {'generator': 'augmented', **both.settings, 'parts': [dict(p.training) for p in known.values()]}
            both.provenance = joined_provenance(known, version=__version__, training=training)
        return both.to(source.device)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        batch = self.source._draw(labels, rng)
        altered: dict[str, Tensor] = self.augmenter.augment(batch, drawn_seed(rng))
        return altered


def _require_augment(augmenter: Generator) -> None:
    if not callable(getattr(augmenter, 'augment', None)):
        raise TypeError(
            f"Augmented: {augmenter.type_name!r} has no augment, so it cannot alter samples; 'msrresgan' is one that "
            'can'
        )
