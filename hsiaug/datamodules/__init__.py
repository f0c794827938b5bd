"""Lightning datamodules."""

from .spectra import SpectraDataModule

__all__ = ['SpectraDataModule']
