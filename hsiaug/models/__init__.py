"""Networks, one per file."""

from .changeformer import ChangeFormerV3, ChangeFormerV6
from .mlp import MLP
from .nn1d import NN1D, SpectralScaler
from .pfsegnet import PFSegNet
from .segformer import SegFormer, segformer
from .siam_crnn import SiamCRNN

__all__ = [
    'MLP',
    'NN1D',
    'ChangeFormerV3',
    'ChangeFormerV6',
    'PFSegNet',
    'SegFormer',
    'SiamCRNN',
    'SpectralScaler',
    'segformer',
]
