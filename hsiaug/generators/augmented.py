"""Samples of a generator, altered by another; see :mod:`hsiaug.systems.augmented`."""

from ..systems.augmented import Augmented

__all__ = ['Augmented']
