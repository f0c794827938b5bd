"""The dataset of one part of a split, whatever its kind."""

from __future__ import annotations

from ..scenes import BitemporalScene, Scene, Split
from ..scenes.labelled_patches import LabelledPatchSplit
from ..scenes.patches import PatchPart, PatchSplit
from .change import ChangeDataset
from .patches import PatchDataset
from .scenes import SceneDataset
from .spectra import SpectraDataset


def scene_dataset(
    scene: Scene, split: Split | PatchSplit, part: PatchPart = 'train'
) -> SpectraDataset | PatchDataset | ChangeDataset | SceneDataset:
    """The real samples of one part: labelled patches, patches with masks or pairs of dates by the split, or spectra."""
    if isinstance(split, LabelledPatchSplit):
        return SceneDataset.from_scene(scene, split, part)
    if isinstance(split, PatchSplit) and isinstance(scene, BitemporalScene):
        return ChangeDataset.from_scene(scene, split, part)
    if isinstance(split, PatchSplit):
        return PatchDataset.from_scene(scene, split, part)
    return SpectraDataset(scene, split, part)
