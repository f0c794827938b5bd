"""Ablation: plan, run, statistics."""

from ..tasks import Classifier, Detector, Downstream, SceneClassifier, Segmenter
from .plan import Arm, Setting, Study
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
