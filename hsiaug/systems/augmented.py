"""One generator's samples, altered by another: super-resolution as post-processing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..samples import Footprint, Provenance, SampleSpec, require_compatible, same_scene, seen_of_both
from .base import Generator, make_part, part_of, register


@register('augmented')
class Augmented(Generator):
    """Samples of a source, altered by another generator's ``augment``; it fills banks and mixes as any generator.

    Labels are asked of the source; a window that an augmenter cuts out of a sample with a mask need not hold the class
    that was asked for.

    Args:
        spec: spec of the samples.
        source: ``{'type': ..., 'settings': {...}}`` of the generator that makes them; :meth:`of` fills both in.
        augmenter: the same of the one that alters them.
    """

    source: Generator
    augmenter: Any

    def __init__(self, spec: SampleSpec, source: dict[str, Any], augmenter: dict[str, Any]) -> None:
        super().__init__(spec, source=source, augmenter=augmenter)
        self.source, self.augmenter = (make_part(spec, part) for part in (source, augmenter))
        _require_augment(self.augmenter)

    @classmethod
    def of(cls, source: Generator, augmenter: Generator) -> Augmented:
        """The two as one, which remembers what either has seen.

        Args:
            source: makes samples.
            augmenter: alters them; one with an ``augment``, of the same bands, size, classes and unit.

        Raises:
            SpecMismatchError: if the two do not fit together.
        """
        _require_augment(augmenter)
        require_compatible(source.spec, augmenter.spec)
        both = cls(source.spec, part_of(source), part_of(augmenter))
        both.source, both.augmenter = source, augmenter
        both.class_prior.copy_(source.class_prior)
        both.provenance = _joint_provenance(source, augmenter, both.settings)
        return both.to(source.device)

    def allocate(self, state: Mapping[str, Tensor]) -> None:
        """Give the data-dependent buffers of both their saved shapes."""
        for name, part in (('source.', self.source), ('augmenter.', self.augmenter)):
            part.allocate({key.removeprefix(name): value for key, value in state.items() if key.startswith(name)})

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        batch = self.source._draw(labels, rng)
        altered: dict[str, Tensor] = self.augmenter.augment(batch, int(torch.randint(2**62, (), generator=rng)))
        return altered


def _require_augment(augmenter: Generator) -> None:
    if not callable(getattr(augmenter, 'augment', None)):
        raise TypeError(
            f"Augmented: {augmenter.type_name!r} has no augment, so it cannot alter samples; 'msrresgan' is one that "
            'can'
        )


def _joint_provenance(source: Generator, augmenter: Generator, settings: dict[str, Any]) -> Provenance | None:
    """The source's provenance, with the pixels that either has seen."""
    known = [p for p in (source.provenance, augmenter.provenance) if p is not None]
    if not known:
        return None
    seen = [p.seen for p in known if p.seen is not None]
    if len(seen) == 2 and not same_scene(seen[0].scene, seen[1].scene):
        raise ValueError(
            'Augmented: the source and the augmenter were trained on different scenes, and what both have seen cannot '
            'be kept in one provenance; train the augmenter on the scene of the source'
        )
    joint = None
    if seen:
        pixels = np.unique(np.concatenate([footprint.pixels() for footprint in seen]))
        joint = Footprint.of(seen[0].scene, seen[0].size, pixels)
    training = {'generator': 'augmented', **settings, 'parts': [dict(p.training) for p in known]}
    return replace(known[0], version=__version__, training=training, seen=joint, **seen_of_both(known))
