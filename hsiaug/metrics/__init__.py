"""Metrics: accuracies, spectral and distributional fidelity, novelty."""

from .change_fidelity import ChangeDifferences, ChangeFidelity, between_halves, change_differences, change_fidelity
from .fidelity import Fidelity, fidelity
from .frechet import PRDC, frechet_distance, prdc
from .patches import PatchFidelity, patch_fidelity
from .scores import Accuracies, ChangeScores, SegmentationScores, accuracies, change_scores, segmentation_scores
from .super_resolution import SuperResolutionScores, spectral_information_divergence, super_resolution_scores

__all__ = [
    'PRDC', 'Accuracies', 'ChangeDifferences', 'ChangeFidelity', 'ChangeScores', 'Fidelity', 'PatchFidelity',
    'SegmentationScores', 'SuperResolutionScores', 'accuracies', 'between_halves', 'change_differences',
    'change_fidelity', 'change_scores', 'fidelity', 'frechet_distance', 'patch_fidelity', 'prdc', 'segmentation_scores',
    'spectral_information_divergence', 'super_resolution_scores',
]  # fmt: skip
