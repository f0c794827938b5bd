"""The unmixing network: endmembers, and abundances inferred from RGB."""

from .network import UnmixingNetwork
from .train import UnmixingConfig, abundances_from_rgb, train_unmixing

__all__ = ['UnmixingConfig', 'UnmixingNetwork', 'abundances_from_rgb', 'train_unmixing']
