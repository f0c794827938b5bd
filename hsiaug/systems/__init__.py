"""Generators: published systems, our own and controls, each in one place and found by its registered name.

A system is a module or a sub-package here. Importing it registers its generator
(:func:`~hsiaug.systems.registry.register`) and, if it learns by gradient descent, its training function
(:func:`~hsiaug.systems.training.trains`). Nothing else in the package names a system.
"""

from importlib import import_module
from pkgutil import iter_modules

from .base import Generator, TrainingData, register
from .registry import REGISTRY, generator_class


def load(until: str | None = None) -> None:
    """Import the systems, all of them or until a name is registered: diffusers alone takes seconds."""
    found = {module.name: module.ispkg for module in iter_modules(__path__)}
    if until in found:
        import_module(f'.{until}', __name__)
    for name in sorted(found, key=lambda name: found[name]):  # packages, which are heavier, last
        if until in REGISTRY:
            return
        import_module(f'.{name}', __name__)


__all__ = ['Generator', 'TrainingData', 'generator_class', 'load', 'register']
