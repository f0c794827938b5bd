"""Ablation: plan, run, statistics."""

from .plan import Arm, Classifier, Segmenter, Setting, Study
from .runner import run_study

__all__ = ['Arm', 'Classifier', 'Segmenter', 'Setting', 'Study', 'run_study']
