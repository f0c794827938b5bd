"""Papers, their published numbers, and how each of their tables and figures is made again."""

from .base import Drawing, Files, Paper, Published, Table, Values, Work
from .papers import PAPERS
from .run import find_files, reproduce

__all__ = ['PAPERS', 'Drawing', 'Files', 'Paper', 'Published', 'Table', 'Values', 'Work', 'find_files', 'reproduce']
