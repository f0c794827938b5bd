"""What training minimises."""

from .reconstruction import kl_divergence, mask_loss, spectral_reconstruction

__all__ = ['kl_divergence', 'mask_loss', 'spectral_reconstruction']
