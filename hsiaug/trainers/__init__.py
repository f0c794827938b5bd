"""Training of generators, of classifiers of spectra, of segmentation and change-detection networks."""

from .change_detection import ChangeDetector, ChangeDetectorConfig, predict_changes, train_change_detector
from .change_detection_task import ChangeTask
from .classifier import ClassifierConfig, LinearSVM, predict, train_nn1d
from .fit import fit_generator, training_data
from .segmentation import Segmenter, SegmenterConfig, predict_masks, train_segmenter
from .segmentation_task import SegmentationTask
from .spectra_task import SpectralClassificationTask

__all__ = [
    'ChangeDetector',
    'ChangeDetectorConfig',
    'ChangeTask',
    'ClassifierConfig',
    'LinearSVM',
    'SegmentationTask',
    'Segmenter',
    'SegmenterConfig',
    'SpectralClassificationTask',
    'fit_generator',
    'predict',
    'predict_changes',
    'predict_masks',
    'train_change_detector',
    'train_nn1d',
    'train_segmenter',
    'training_data',
]
