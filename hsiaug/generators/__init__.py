"""Generators: one published system, baseline or rival per file, all in one contract."""

from importlib import import_module

from ..systems.base import REGISTRY, Generator, TrainingData, generator_class, register

_MODULES = (
    'spectral_gan', 'duplicate', 'jitter', 'relighting', 'mixup', 'gaussian', 'variability', 'ensemble',
    'patch_augment', 'msrresgan', 'augmented', 'patch_gan', 'two_stream_diffusion',
    'change_editing', 'unmixing_fusion',
)  # fmt: skip


def load(until: str | None = None) -> None:
    """Import generator modules, all of them or until a name is registered: diffusers alone takes seconds."""
    for name in _MODULES:
        if until in REGISTRY:
            return
        import_module(f'.{name}', __name__)


__all__ = ['Generator', 'TrainingData', 'generator_class', 'load', 'register']
