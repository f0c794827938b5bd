"""Unmixing before Fusion (CVPR 2024): images generated as abundances of endmembers."""

from .model import UnmixingFusion
from .train import UnmixingFusionConfig, train_unmixing_fusion

__all__ = ['UnmixingFusion', 'UnmixingFusionConfig', 'train_unmixing_fusion']
