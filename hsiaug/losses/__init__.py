"""Training losses."""

from .reconstruction import kl_divergence, mask_loss, spectral_reconstruction, value_width

__all__ = ['kl_divergence', 'mask_loss', 'spectral_reconstruction', 'value_width']
