"""Pure tensor functions shared by losses, metrics and datasets."""

from .degradation import degrade, upsample
from .gradient_penalty import gradient_penalty_autograd, gradient_penalty_mlp
from .prior import apportion, em_prior, fill_to_prior, tilt_to_mixture
from .scaling import band_scale
from .spectral import spectral_angle

__all__ = [
    'apportion',
    'band_scale',
    'degrade',
    'em_prior',
    'fill_to_prior',
    'gradient_penalty_autograd',
    'gradient_penalty_mlp',
    'spectral_angle',
    'tilt_to_mixture',
    'upsample',
]
