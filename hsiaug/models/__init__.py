"""Networks, one per file."""

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
    'AuxiliaryBatchNorm',
    'ChangeFormerV3',
    'ChangeFormerV6',
    'PFSegNet',
    'PatchCNN',
    'SegFormer',
    'SiamCRNN',
    'SpectralScaler',
    'add_auxiliary_bn',
    'drop_auxiliary_bn',
    'scene_classifier',
    'segformer',
    'synthetic_rows',
]
