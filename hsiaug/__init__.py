"""hsiaug: mix synthetic hyperspectral samples into training at a chosen ratio, and measure honestly what you gain."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = '0.1.0'

# Public names and their modules, which are imported on first use, so that importing hsiaug is cheap.
_HOMES = {
    'SampleSpec': 'samples',
    'Scene': 'scenes',
    'SimulatedScene': 'scenes',
    'open_scene': 'scenes',
    'SpectraDataset': 'datasets',
    'SyntheticDataset': 'datasets',
    'MixedDataset': 'datasets',
    'adapt': 'datasets',
    'SyntheticBank': 'datasets',
    'write_bank': 'datasets',
    'MixedBatchSampler': 'samplers',
    'SyntheticMix': 'transforms',
    'MixedDataModule': 'datamodules',
    'Generator': 'systems',
    'fit': 'systems.fit',
    'fit_generator': 'systems.fit',
}

__all__ = ['__version__', *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted(__all__)
