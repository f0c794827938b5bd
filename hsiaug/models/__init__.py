"""Networks, one per file."""

from .changeformer import ChangeFormerV3, ChangeFormerV6
from .mlp import MLP
from .msrresgan import MSRResNet
from .nn1d import NN1D, SpectralScaler
from .pfsegnet import PFSegNet
from .segformer import SegFormer, segformer
from .siam_crnn import SiamCRNN
from .srcnn import SRCNN, Bicubic
from .srgan import SRDiscriminator, SRResNet
from .super_resolution import super_resolver

__all__ = [
    'MLP',
    'NN1D',
    'SRCNN',
    'Bicubic',
    'ChangeFormerV3',
    'ChangeFormerV6',
    'MSRResNet',
    'PFSegNet',
    'SRDiscriminator',
    'SRResNet',
    'SegFormer',
    'SiamCRNN',
    'SpectralScaler',
    'segformer',
    'super_resolver',
]
