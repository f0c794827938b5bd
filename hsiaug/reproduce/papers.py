"""The papers by the names that the command line takes."""

from .audebert2018 import AUDEBERT2018
from .base import Paper
from .msrresgan import MSRRESGAN
from .patch_gan import PATCH_GAN
from .specdm import SPECDM
from .unmixing_fusion import UNMIXING_FUSION

_ALL = (AUDEBERT2018, PATCH_GAN, SPECDM, MSRRESGAN, UNMIXING_FUSION)
PAPERS: dict[str, Paper] = {paper.name: paper for paper in _ALL}
