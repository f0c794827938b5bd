"""MSRResGAN (2018): super-resolution GAN with residual and gradient learning, as augmentation."""

from .model import MSRResGAN
from .train import SuperResolutionConfig, train_super_resolution

__all__ = ['MSRResGAN', 'SuperResolutionConfig', 'train_super_resolution']
