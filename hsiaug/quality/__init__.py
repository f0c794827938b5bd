"""Quality control of synthetic samples: gates fitted to real samples, coverage, and the choice of a ratio."""

from ..evidence import Evidence, Recommendation, recommended_ratio
from .adaptive_ratio import AdaptiveRatio, RatioCallback
from .agreement import AgreementGate
from .coverage import Coverage
from .fold_trials import FoldTrial, PatchTrial, SpectraTrial
from .folds import fold_splits
from .gate import Decision, Gate, GateReport, Gates, held_out_limit
from .gated import ALL_GATES, Gated, GatedDataset, GateError, all_gates, fit_gates, gate_generator
from .novelty import NoveltyGate, noise_covariance
from .physical import RangeGate, SmoothnessGate, SubspaceGate
from .ratio_records import Recorded
from .ratio_search import Candidate, RatioChoice, RatioSearch, Standing, Trial
from .regions import label_regions

__all__ = [
    'ALL_GATES', 'AdaptiveRatio', 'AgreementGate', 'Candidate', 'Coverage', 'Decision', 'Evidence', 'FoldTrial', 'Gate',
    'GateError', 'GateReport', 'Gated', 'GatedDataset', 'Gates', 'NoveltyGate', 'PatchTrial', 'RangeGate',
    'RatioCallback', 'RatioChoice', 'RatioSearch', 'Recommendation', 'Recorded', 'SmoothnessGate', 'SpectraTrial',
    'Standing', 'SubspaceGate', 'Trial', 'all_gates', 'fit_gates', 'fold_splits', 'gate_generator', 'held_out_limit',
    'label_regions', 'noise_covariance', 'recommended_ratio',
]  # fmt: skip
