"""Generators of abundance maps by name, and their training settings.

The paper uses a hierarchical VAE, a style-based GAN and diffusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ....engine.training import Precision
from ....settings import POSITIVE, SHARE, Range, check_settings, checked_arguments
from .base import GIVEN, AbundanceModel
from .diffusion import AbundanceDiffusion
from .style_gan import StyleGAN
from .vae import HierarchicalVAE

Kind = Literal['vae', 'style_gan', 'diffusion']
_CLASSES: dict[str, type[AbundanceModel]] = {cls.kind: cls for cls in (HierarchicalVAE, StyleGAN, AbundanceDiffusion)}


def abundance_model(kind: str, k: int, size: int, num_labels: int, **settings: Any) -> AbundanceModel:
    """A new generator of abundances of k endmembers; ``settings`` are those of its network."""
    check_network(kind, settings)
    return _CLASSES[kind](k, size, num_labels, **settings)


def check_network(kind: str, settings: Mapping[str, Any]) -> None:
    """Check the names and types of settings of a network before it is made."""
    if kind not in get_args(Kind):
        raise ValueError(f'unknown generator of abundances {kind!r}; choose from {get_args(Kind)}')
    checked_arguments(_CLASSES[kind], settings, _CLASSES[kind].__name__, given=GIVEN)


@dataclass(frozen=True)
class AbundanceConfig:
    """Training settings. The paper gives none of these; learning rates and lengths are our choice.

    Args:
        kind: ``'vae'``, ``'style_gan'`` or ``'diffusion'``.
        network: settings of the network, see :class:`~hsiaug.systems.unmixing_fusion.abundances.vae.HierarchicalVAE`,
            :class:`~hsiaug.systems.unmixing_fusion.abundances.style_gan.StyleGAN` and
            :class:`~hsiaug.systems.unmixing_fusion.abundances.diffusion.AbundanceDiffusion`.
        iterations: number of steps; for the GAN, a step of the discriminator and one of the generator.
        batch_size: maps per step.
        learning_rate: learning rate of Adam, which falls to 0 along a cosine except for the GAN; by default, 0.004
            (VAE), 0.001 (GAN) or 0.002 (diffusion).
        ema: decay of the average of the weights, reached after a warm-up; 0 keeps the last weights.
        augment: train on all orientations of the maps.
        r1: weight of the GAN's gradient penalty; no effect on the other kinds.
        precision: ``'32'``; ``'tf32'`` or ``'bf16'``, faster on a GPU.
    """

    kind: Kind = 'diffusion'
    network: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 3000
    batch_size: int = 16
    learning_rate: float | None = None
    ema: float = 0.995
    augment: bool = True
    r1: float = 1.0
    precision: Precision = '32'

    def __post_init__(self) -> None:
        check_settings(self, batch_size=Range(2), learning_rate=POSITIVE, ema=SHARE)
        check_network(self.kind, self.network)

    @property
    def rate(self) -> float:
        """The learning rate, that of the kind where none is given."""
        return _CLASSES[self.kind].learning_rate if self.learning_rate is None else self.learning_rate
