"""The papers by the names that the command line takes."""

from .audebert2018 import AUDEBERT2018
from .base import Paper
from .msrresgan import MSRRESGAN
from .specdm import SPECDM
from .unmixing_fusion import UNMIXING_FUSION

PAPERS: dict[str, Paper] = {paper.name: paper for paper in (AUDEBERT2018, SPECDM, MSRRESGAN, UNMIXING_FUSION)}
