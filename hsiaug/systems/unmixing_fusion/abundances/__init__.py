"""Generators of abundances: hierarchical VAE, style-based GAN, diffusion."""

from .build import abundance_model
from .train import AbundanceConfig, train_abundances

__all__ = ['AbundanceConfig', 'abundance_model', 'train_abundances']
