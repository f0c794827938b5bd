"""Networks, one per file."""

from .mlp import MLP
from .nn1d import NN1D, SpectralScaler

__all__ = ['MLP', 'NN1D', 'SpectralScaler']
