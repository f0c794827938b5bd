"""Networks, one per file."""

from .auxiliary_bn import AuxiliaryBatchNorm, add_auxiliary_bn, drop_auxiliary_bn, synthetic_rows
from .changeformer import ChangeFormerV3, ChangeFormerV6
from .mlp import MLP
from .msrresgan import MSRResNet
from .nn1d import NN1D, SpectralScaler
from .patch_cnn import PatchCNN
from .pfsegnet import PFSegNet
from .scene_classifiers import scene_classifier
from .segformer import SegFormer, segformer
from .siam_crnn import SiamCRNN
from .srcnn import SRCNN, Bicubic
from .srgan import SRDiscriminator, SRResNet
from .super_resolution import super_resolver
from .unmixing import UnmixingNetwork

__all__ = [
    'MLP',
    'NN1D',
    'SRCNN',
    'AuxiliaryBatchNorm',
    'Bicubic',
    'ChangeFormerV3',
    'ChangeFormerV6',
    'MSRResNet',
    'PFSegNet',
    'PatchCNN',
    'SRDiscriminator',
    'SRResNet',
    'SegFormer',
    'SiamCRNN',
    'SpectralScaler',
    'UnmixingNetwork',
    'add_auxiliary_bn',
    'drop_auxiliary_bn',
    'scene_classifier',
    'segformer',
    'super_resolver',
    'synthetic_rows',
]
