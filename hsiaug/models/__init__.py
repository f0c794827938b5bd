"""Networks, one per file."""

from .mlp import MLP
from .nn1d import NN1D, SpectralScaler
from .pfsegnet import PFSegNet
from .segformer import SegFormer, segformer

__all__ = ['MLP', 'NN1D', 'PFSegNet', 'SegFormer', 'SpectralScaler', 'segformer']
