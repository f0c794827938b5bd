"""Reports: figures and pages."""

from .ablation import ReportPaths, text_table, write_report
from .evaluation import evaluate_generator

__all__ = ['ReportPaths', 'evaluate_generator', 'text_table', 'write_report']
