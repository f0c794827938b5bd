"""SpecDM (2025): two-stream autoencoder and latent diffusion of image-mask pairs and change triplets."""

from .config import TwoStreamConfig
from .model import TwoStreamDiffusion
from .train import train_two_stream

__all__ = ['TwoStreamConfig', 'TwoStreamDiffusion', 'train_two_stream']
