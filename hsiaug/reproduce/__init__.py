"""Papers, their published numbers, and how to reproduce each of their tables and figures."""

from .audebert2018 import AUDEBERT2018
from .base import Drawing, Files, Paper, Published, Table, Values, Work
from .msrresgan import MSRRESGAN
from .patch_gan import PATCH_GAN
from .run import find_files, reproduce
from .specdm import SPECDM
from .unmixing_fusion import UNMIXING_FUSION

PAPERS: dict[str, Paper] = {
    paper.name: paper for paper in (AUDEBERT2018, PATCH_GAN, SPECDM, MSRRESGAN, UNMIXING_FUSION)
}
"""Papers by their names on the command line."""

__all__ = ['PAPERS', 'Drawing', 'Files', 'Paper', 'Published', 'Table', 'Values', 'Work', 'find_files', 'reproduce']
