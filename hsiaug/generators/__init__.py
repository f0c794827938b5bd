"""Generators by the name that they had before each system got a place of its own, :mod:`hsiaug.systems`."""

from ..systems import Generator, TrainingData, generator_class, load, register

__all__ = ['Generator', 'TrainingData', 'generator_class', 'load', 'register']
