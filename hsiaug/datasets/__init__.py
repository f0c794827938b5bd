"""torchgeo datasets of real samples, of synthetic samples, and of both mixed at a ratio."""

from .bank.export import export_bank
from .bank.reader import BankError, SyntheticBank
from .bank.tar_shards import TarShards
from .bank.writer import write_bank
from .folders.one_date import PairFolder, SceneFolder
from .folders.two_dates import ChangeFolder
from .mixing.checks import require_unseen_samples
from .mixing.mixed import MixedDataset
from .mixing.sources import SyntheticPool, as_pool
from .own.adapted import AdaptedDataset, adapt
from .own.foreign import DataArrayImage, GeoSamples
from .own.parts import scene_dataset
from .own.sample_set import SampleSet, SampleSplit, SampleSplitter
from .pools.labels import LabelPolicy, estimate_prior, synthetic_counts
from .pools.pool import Draw
from .pools.synthetic import SyntheticDataset
from .real.held import IGNORE
from .real.patches import ChangeDataset, PatchDataset, SceneDataset
from .real.spectra import SpectraDataset

__all__ = [
    'IGNORE',
    'AdaptedDataset',
    'BankError',
    'ChangeDataset',
    'ChangeFolder',
    'DataArrayImage',
    'Draw',
    'GeoSamples',
    'LabelPolicy',
    'MixedDataset',
    'PairFolder',
    'PatchDataset',
    'SampleSet',
    'SampleSplit',
    'SampleSplitter',
    'SceneDataset',
    'SceneFolder',
    'SpectraDataset',
    'SyntheticBank',
    'SyntheticDataset',
    'SyntheticPool',
    'TarShards',
    'adapt',
    'as_pool',
    'estimate_prior',
    'export_bank',
    'require_unseen_samples',
    'scene_dataset',
    'synthetic_counts',
    'write_bank',
]
