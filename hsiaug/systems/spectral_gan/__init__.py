"""Conditional spectral WGAN-GP with an auxiliary classifier (Audebert et al. 2018)."""

from .model import SpectralGAN
from .train import SpectralGANConfig, train_spectral_gan

__all__ = ['SpectralGAN', 'SpectralGANConfig', 'train_spectral_gan']
