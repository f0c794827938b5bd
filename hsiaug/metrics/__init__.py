"""Metrics: accuracies, spectral and distribution fidelity, authenticity."""

from .change import ChangeScores, change_scores
from .change_differences import ChangeDifferences, between_halves, change_differences
from .change_fidelity import ChangeFidelity, change_fidelity
from .classification import Accuracies, accuracies
from .fidelity import Fidelity, fidelity
from .frechet import PRDC, frechet_distance, prdc
from .patches import PatchFidelity, patch_fidelity
from .segmentation import SegmentationScores, segmentation_scores
from .super_resolution import SuperResolutionScores, spectral_information_divergence, super_resolution_scores

__all__ = [
    'PRDC',
    'Accuracies',
    'ChangeDifferences',
    'ChangeFidelity',
    'ChangeScores',
    'Fidelity',
    'PatchFidelity',
    'SegmentationScores',
    'SuperResolutionScores',
    'accuracies',
    'between_halves',
    'change_differences',
    'change_fidelity',
    'change_scores',
    'fidelity',
    'frechet_distance',
    'patch_fidelity',
    'prdc',
    'segmentation_scores',
    'spectral_information_divergence',
    'super_resolution_scores',
]
