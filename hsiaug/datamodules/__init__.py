"""Lightning datamodules."""

from .mixed import MixedDataModule
from .spectra import SpectraDataModule

__all__ = ['MixedDataModule', 'SpectraDataModule']
