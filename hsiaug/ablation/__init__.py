"""Ablation studies: plan, run, statistics; and `Experiment` for other measurements."""

from ..tasks import Classifier, Detector, Downstream, SceneClassifier, Segmenter
from .experiment import Experiment
from .plan import Arm, Setting, Study
from .runner import run_study

__all__ = [
    'Arm', 'Classifier', 'Detector', 'Downstream', 'Experiment', 'SceneClassifier', 'Segmenter', 'Setting', 'Study',
    'run_study',
]  # fmt: skip
