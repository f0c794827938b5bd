"""Generators: one published system, baseline or rival per file, all in one contract."""

from importlib import import_module

from .base import Generator, TrainingData, generator_class, register

_MODULES = (
    'spectral_gan', 'duplicate', 'jitter', 'relighting', 'mixup', 'gaussian', 'variability', 'ensemble',
    'patch_augment', 'two_stream_diffusion',
)  # fmt: skip


def load_all() -> None:
    """Import every generator module, so that the registry is complete."""
    for name in _MODULES:
        import_module(f'.{name}', __name__)


__all__ = ['Generator', 'TrainingData', 'generator_class', 'load_all', 'register']
