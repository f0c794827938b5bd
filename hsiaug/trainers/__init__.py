"""Training of generators and of classifiers of spectra."""

from .classifier import ClassifierConfig, LinearSVM, predict, train_nn1d
from .fit import fit_generator, training_data
from .segmentation import Segmenter, SegmenterConfig, predict_masks, train_segmenter
from .segmentation_task import SegmentationTask
from .spectra_task import SpectralClassificationTask

__all__ = [
    'ClassifierConfig',
    'LinearSVM',
    'SegmentationTask',
    'Segmenter',
    'SegmenterConfig',
    'SpectralClassificationTask',
    'fit_generator',
    'predict',
    'predict_masks',
    'train_nn1d',
    'train_segmenter',
    'training_data',
]
