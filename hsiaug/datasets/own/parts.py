"""The dataset of one part of a split, of any kind."""

from __future__ import annotations

from ...scenes import BitemporalScene, Scene, Split
from ...scenes.labelled_patches import LabelledPatchSplit
from ...scenes.patches import PatchPart, PatchSplit
from ..real.patches import ChangeDataset, PatchDataset, SceneDataset
from ..real.spectra import SpectraDataset
from .adapted import AdaptedDataset
from .sample_set import HeldPart, SampleSet, SampleSplit

AnyScene = Scene | SampleSet
AnySplit = Split | PatchSplit | SampleSplit
"""A scene and its split, or datasets in their place."""


def scene_dataset(
    scene: AnyScene, split: AnySplit, part: PatchPart = 'train'
) -> SpectraDataset | PatchDataset | ChangeDataset | SceneDataset | HeldPart | AdaptedDataset:
    """The real samples of one part; the split decides between labelled patches, masks, pairs of dates and spectra."""
    if isinstance(scene, SampleSet) and isinstance(split, SampleSplit):
        return scene.part(split, part)
    if isinstance(scene, SampleSet) or isinstance(split, SampleSplit):
        raise TypeError('a SampleSplit is of a SampleSet, and other splits are of scenes')
    if isinstance(split, LabelledPatchSplit):
        return SceneDataset.from_scene(scene, split, part)
    if isinstance(split, PatchSplit) and isinstance(scene, BitemporalScene):
        return ChangeDataset.from_scene(scene, split, part)
    if isinstance(split, PatchSplit):
        return PatchDataset.from_scene(scene, split, part)
    return SpectraDataset(scene, split, part)
