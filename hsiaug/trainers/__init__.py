"""Training of generators and of classifiers of spectra."""

from .classifier import ClassifierConfig, LinearSVM, predict, train_nn1d
from .fit import fit_generator, patch_training_data, training_data
from .spectra_task import SpectralClassificationTask

__all__ = [
    'ClassifierConfig',
    'LinearSVM',
    'SpectralClassificationTask',
    'fit_generator',
    'patch_training_data',
    'predict',
    'train_nn1d',
    'training_data',
]
