"""Mixing and augmenting on a batch: torch modules; for kornia and albumentations see the modules of these names."""

from .augment import GeneratorAugmentation
from .bitemporal import BitemporalAugmentation, make_change_safe
from .mix import SyntheticMix

__all__ = ['BitemporalAugmentation', 'GeneratorAugmentation', 'SyntheticMix', 'make_change_safe']
