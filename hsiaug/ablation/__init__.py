"""Ablation: plan, run, statistics."""

from .plan import Arm, Classifier, Setting, Study
from .runner import run_study

__all__ = ['Arm', 'Classifier', 'Setting', 'Study', 'run_study']
