"""Reports: figures and pages."""

from .ablation import ReportPaths, text_table, write_report
from .evaluation import write_evaluation

__all__ = ['ReportPaths', 'text_table', 'write_evaluation', 'write_report']
