"""Lightning datamodules that mix synthetic samples into training."""

from .mixed import MixedDataModule
from .spectra import SpectraDataModule

__all__ = ['MixedDataModule', 'SpectraDataModule']
