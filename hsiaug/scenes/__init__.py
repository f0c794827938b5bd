"""Scenes (cube, labels and wavelengths), with readers, splits and a simulated scene."""

from .change import BitemporalScene, ChangeSplitter
from .files import SceneFileError
from .labelled_patches import LabelledPatchSplit, LabelledPatchSplitter
from .patches import PatchSplit, PatchSplitter
from .readers import open_library, open_scene
from .registry import BENCHMARK_SCENES, open_benchmark_scene
from .resample import crop_to_common, stack_bands, upsample
from .scene import BadBandsError, Scene
from .simulated import SimulatedScene
from .splits import BlockSplit, GroupSplit, HalvesSplit, RandomSplit, RareClassError, Split, Splitter
from .strategies import make_splitter
from .windows import majority_labels

__all__ = [
    'BENCHMARK_SCENES', 'BadBandsError', 'BitemporalScene', 'BlockSplit', 'ChangeSplitter', 'GroupSplit', 'HalvesSplit',
    'LabelledPatchSplit', 'LabelledPatchSplitter', 'PatchSplit', 'PatchSplitter', 'RandomSplit', 'RareClassError',
    'Scene', 'SceneFileError', 'SimulatedScene', 'Split', 'Splitter', 'crop_to_common',
    'majority_labels', 'make_splitter', 'open_benchmark_scene', 'open_library', 'open_scene', 'stack_bands', 'upsample',
]  # fmt: skip
