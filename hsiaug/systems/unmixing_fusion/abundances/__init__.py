"""Generators of abundances: hierarchical VAE, style-based GAN, diffusion."""

from .config import AbundanceConfig, abundance_model
from .train import train_abundances

__all__ = ['AbundanceConfig', 'abundance_model', 'train_abundances']
