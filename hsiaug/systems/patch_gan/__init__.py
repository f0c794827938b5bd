"""A convolutional GAN of labelled patches."""

from .model import PatchGAN
from .train import PatchGANConfig, train_patch_gan

__all__ = ['PatchGAN', 'PatchGANConfig', 'train_patch_gan']
