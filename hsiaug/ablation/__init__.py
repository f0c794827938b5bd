"""Ablation: plan, run, statistics."""

from .plan import Arm, Classifier, Detector, Downstream, SceneClassifier, Segmenter, Setting, Study
from .runner import run_study

__all__ = [
    'Arm',
    'Classifier',
    'Detector',
    'Downstream',
    'SceneClassifier',
    'Segmenter',
    'Setting',
    'Study',
    'run_study',
]
