"""Training of generators, of classifiers of spectra and images, of segmentation and change-detection networks."""

from ..systems.fit import fit_generator, training_data
from ..systems.unmixing_fusion.unmixing.train import UnmixingConfig, abundances_from_rgb, train_unmixing
from .change_detection import ChangeDetector, ChangeDetectorConfig, predict_changes, train_change_detector
from .change_detection_task import ChangeTask
from .classifier import ClassifierConfig, LinearSVM, predict, train_nn1d
from .scene_classifier import SceneClassifierConfig, predict_scenes, train_scene_classifier
from .scene_task import SceneClassificationTask
from .segmentation import Segmenter, SegmenterConfig, predict_masks, train_segmenter
from .segmentation_task import SegmentationTask
from .spectra_task import SpectralClassificationTask

__all__ = [
    'ChangeDetector',
    'ChangeDetectorConfig',
    'ChangeTask',
    'ClassifierConfig',
    'LinearSVM',
    'SceneClassificationTask',
    'SceneClassifierConfig',
    'SegmentationTask',
    'Segmenter',
    'SegmenterConfig',
    'SpectralClassificationTask',
    'UnmixingConfig',
    'abundances_from_rgb',
    'fit_generator',
    'predict',
    'predict_changes',
    'predict_masks',
    'predict_scenes',
    'train_change_detector',
    'train_nn1d',
    'train_scene_classifier',
    'train_segmenter',
    'train_unmixing',
    'training_data',
]
