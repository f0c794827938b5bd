"""Metrics: accuracies, spectral and distribution fidelity, authenticity."""

from .classification import Accuracies, accuracies
from .fidelity import Fidelity, fidelity

__all__ = ['Accuracies', 'Fidelity', 'accuracies', 'fidelity']
