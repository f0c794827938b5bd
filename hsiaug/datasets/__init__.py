"""torchgeo datasets: real spectra, synthetic samples, and both at a ratio."""

from .labels import LabelPolicy, estimate_prior, synthetic_counts
from .mixed import MixedDataset
from .pool import SyntheticPool
from .spectra import SpectraDataset
from .synthetic import SyntheticDataset

__all__ = [
    'LabelPolicy',
    'MixedDataset',
    'SpectraDataset',
    'SyntheticDataset',
    'SyntheticPool',
    'estimate_prior',
    'synthetic_counts',
]
