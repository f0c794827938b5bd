"""The papers by the names that the command line takes."""

from .audebert2018 import AUDEBERT2018
from .base import Paper
from .msrresgan import MSRRESGAN

PAPERS: dict[str, Paper] = {paper.name: paper for paper in (AUDEBERT2018, MSRRESGAN)}
