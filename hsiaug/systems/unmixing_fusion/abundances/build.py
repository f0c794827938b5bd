"""Generators of abundance maps, by name.

Yu et al., "Unmixing Before Fusion: A Generalized Paradigm for Multi-Source-based Hyperspectral Image Synthesis", CVPR
2024: any generator may learn in abundance space; the paper names a hierarchical VAE, a style-based GAN and diffusion.
Trained by :mod:`hsiaug.systems.unmixing_fusion.abundances.train`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, get_args

from ....settings import check_arguments
from .base import AbundanceModel
from .diffusion import AbundanceDiffusion
from .style_gan import StyleGAN
from .vae import HierarchicalVAE

Kind = Literal['vae', 'style_gan', 'diffusion']
_CLASSES: dict[str, type[AbundanceModel]] = {cls.kind: cls for cls in (HierarchicalVAE, StyleGAN, AbundanceDiffusion)}


def abundance_model(kind: str, k: int, size: int, num_labels: int, **settings: Any) -> AbundanceModel:
    """A new generator of abundances.

    Args:
        kind: ``'vae'``, ``'style_gan'`` or ``'diffusion'``.
        k: number of endmembers.
        size: side of the maps in pixels.
        num_labels: number of labels, 0 for none.
        settings: of its network, as its ``settings`` hold them.
    """
    check_network(kind, settings)
    return _CLASSES[kind](k, size, num_labels, **settings)


def check_network(kind: str, settings: Mapping[str, Any]) -> None:
    """Check the names and types of settings of a network before it is made."""
    if kind not in get_args(Kind):
        raise ValueError(f'unknown generator of abundances {kind!r}; choose from {get_args(Kind)}')
    known = set(inspect.signature(_CLASSES[kind]).parameters) - {'k', 'size', 'num_labels'}
    if unknown := set(settings) - known:
        raise ValueError(
            f'a generator of abundances of kind {kind!r} has no settings {sorted(unknown)}; choose from {sorted(known)}'
        )
    check_arguments(_CLASSES[kind], settings, {})


__all__ = ['AbundanceModel', 'Kind', 'abundance_model', 'check_network']
