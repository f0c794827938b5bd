"""Mixing on a batch: the torch module, its kornia child, its albumentations sister."""

from .bitemporal import BitemporalAugmentation, make_change_safe
from .mix import SyntheticMix

__all__ = ['BitemporalAugmentation', 'SyntheticMix', 'make_change_safe']
