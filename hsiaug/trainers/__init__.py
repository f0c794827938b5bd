"""Training of downstream models: classifiers of spectra and images, segmentation and change-detection networks."""

from importlib import import_module
from typing import Any

from .change_detection import ChangeDetector, ChangeDetectorConfig, predict_changes, train_change_detector
from .classifier import ClassifierConfig, LinearSVM, predict, train_nn1d
from .convergence import Trial, Tuned, loss_still_falls, still_falls, tune
from .lightning_tasks import ChangeTask, SceneClassificationTask, SegmentationTask
from .scene_classifier import SceneClassifierConfig, predict_scenes, train_scene_classifier
from .segmentation import Segmenter, SegmenterConfig, predict_masks, train_segmenter
from .spectra_task import SpectralClassificationTask

# Former names of this package, and the modules that hold them now.
_MOVED = {
    'fit_generator': 'hsiaug.systems.fit',
    'training_data': 'hsiaug.systems.data',
    'UnmixingConfig': 'hsiaug.systems.unmixing_fusion.unmixing',
    'abundances_from_rgb': 'hsiaug.systems.unmixing_fusion.unmixing',
    'train_unmixing': 'hsiaug.systems.unmixing_fusion.unmixing',
}


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        return getattr(import_module(_MOVED[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


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
    'Trial',
    'Tuned',
    'loss_still_falls',
    'predict',
    'predict_changes',
    'predict_masks',
    'predict_scenes',
    'still_falls',
    'train_change_detector',
    'train_nn1d',
    'train_scene_classifier',
    'train_segmenter',
    'tune',
]
