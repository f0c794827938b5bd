"""Mixing on a batch: the torch module, its kornia child, its albumentations sister."""

from .mix import SyntheticMix

__all__ = ['SyntheticMix']
