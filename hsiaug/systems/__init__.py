"""Generators: published systems, our own and controls, each in one place and found by its registered name.

A system is a module or a sub-package here. Importing it registers its generator
(:func:`~hsiaug.systems.base.register`) and, if it learns by gradient descent, its training function
(:func:`~hsiaug.systems.training.trains`). Nothing else in the package names a system.
"""

from .base import REGISTRY, Generator, TrainingData, generator_class, load, register

__all__ = ['REGISTRY', 'Generator', 'TrainingData', 'generator_class', 'load', 'register']
