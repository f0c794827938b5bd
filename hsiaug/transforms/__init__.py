"""Mixing and augmenting on a batch: the torch modules; their kornia children and albumentations sisters are beside."""

from .augment import GeneratorAugmentation
from .bitemporal import BitemporalAugmentation, make_change_safe
from .mix import SyntheticMix

__all__ = ['BitemporalAugmentation', 'GeneratorAugmentation', 'SyntheticMix', 'make_change_safe']
