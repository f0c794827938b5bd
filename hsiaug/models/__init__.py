"""Networks, one per file."""

from ..systems.msrresgan.build import super_resolver
from ..systems.msrresgan.network import MSRResNet
from ..systems.msrresgan.srcnn import SRCNN, Bicubic
from ..systems.msrresgan.srgan import SRDiscriminator, SRResNet
from ..systems.unmixing_fusion.unmixing.network import UnmixingNetwork
from .auxiliary_bn import AuxiliaryBatchNorm, add_auxiliary_bn, drop_auxiliary_bn, synthetic_rows
from .changeformer import ChangeFormerV3, ChangeFormerV6
from .mlp import MLP
from .nn1d import NN1D, SpectralScaler
from .patch_cnn import PatchCNN
from .pfsegnet import PFSegNet
from .scene_classifiers import scene_classifier
from .segformer import SegFormer, segformer
from .siam_crnn import SiamCRNN

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
