"""Mixing and augmentation of batches, as torch modules; kornia and albumentations have modules of their own here."""

from .augment import GeneratorAugmentation
from .bitemporal import BitemporalAugmentation, make_change_safe
from .mix import SyntheticMix

__all__ = ['BitemporalAugmentation', 'GeneratorAugmentation', 'SyntheticMix', 'make_change_safe']
