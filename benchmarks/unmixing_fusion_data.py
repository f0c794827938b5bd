"""Scenes, RGB images and splits of the study of "Unmixing before Fusion"."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from real_scenes import AVIRIS_NM, _load, houston18_patches, jasper_ridge
from super_resolution import ABU
from torch import Tensor

from hsiaug.datasets import SceneDataset, SceneFolder
from hsiaug.scenes import LabelledPatchSplitter, Scene
from hsiaug.systems import TrainingData
from hsiaug.systems.unmixing_fusion.train import NO_LABEL
from hsiaug.trainers import training_data

PLACES = {1: 'airport', 2: 'beach', 3: 'urban'}
OXYGEN_NM, BEFORE, AFTER = 761.0, 38, 36  # an absorption of the air, and bands on its both sides
SIDE = 16  # of an image; the AVIRIS scenes are 100 pixels wide
RGB_FACTOR = 4  # aerial pixels to one of an image, a side
RGB_FOLDERS = {'cIndustry': 'urban', 'fResident': 'urban', 'dRiverLake': 'unlabelled', 'gParking': 'unlabelled'}
"""Folders of RGB images with a scene like those of AVIRIS in them, and the class that they are given."""


def places(root: Path) -> Scene:
    """AVIRIS scenes of eight places; the label is the kind of place, as the files' names have it.

    The files give neither wavelengths nor gains. Radiance shows oxygen's absorption at 761 nm in one band, from which
    75 bands are counted at AVIRIS' spacing, up to the first that was removed for water: nominal, but alike in all
    scenes. A place's brightness would give its class away, so each is divided by its 99th percentile. San Diego is left
    out: it shows no oxygen, so that it must be reflectance.
    """
    kinds, tiles, labels = {name: number for number, name in PLACES.items()}, [], []
    for name in ABU:
        if name == 'sandiego':
            continue
        cube = _load(root / 'abu_anomaly' / f'{name}.npz')['cube'][:100, :100].astype(np.float32)
        mean = cube.mean(axis=(0, 1))
        dips = 2 * mean[2:-2] / (mean[:-4] + mean[4:])
        oxygen = 2 + 30 + int(dips[30:50].argmin())
        cube = cube[..., oxygen - BEFORE : oxygen + AFTER + 1]
        tiles.append(cube / np.quantile(cube, 0.99))
        labels.append(np.full(cube.shape[:2], kinds[name.split('-')[1]]))
    return Scene.from_tiles(
        'places',
        np.stack(tiles),
        np.stack(labels),
        class_names=PLACES,
        wavelengths=OXYGEN_NM + np.diff(AVIRIS_NM).mean() * np.arange(-BEFORE, AFTER + 1),
        wavelengths_approximate=True,
        unit='radiance, relative',
    )


SCENES: dict[str, Callable[[Path], Scene]] = {
    'places': places,
    'houston18': houston18_patches,
    'jasper_ridge': jasper_ridge,
}


def splitter(per_class: int | None = None) -> LabelledPatchSplitter:
    """Images of 16 x 16 pixels from blocks of 24 that go whole to training, validation or test.

    Args:
        per_class: training images of a class; all, at steps of four pixels, if None.
    """
    few = {} if per_class is None else {'per_class': per_class, 'val_per_class': per_class, 'min_patches': per_class}
    return LabelledPatchSplitter(
        size=24, stride=24, patch=SIDE, patch_stride=4, rule='dominant', regions='blocks', min_labelled=0.1, **few
    )


def opened(root: Path, scene: str, seed: int) -> tuple[TrainingData, SceneDataset]:
    """What trains in one split of a scene, and what tests."""
    found = SCENES[scene](root)
    split = splitter()(found, seed)
    return training_data(found, split), SceneDataset.from_scene(found, split, 'test')


def copy_rgb(root: Path, out: Path) -> Path:
    """Put the RGB images into a folder per class, named as in the scene of places; returns the folder."""
    folder = out / 'rgb'
    for source, target in RGB_FOLDERS.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for file in sorted((root / 'rsscn7' / source).iterdir()):
            if not (copy := folder / target / f'{source}-{file.name}').exists():
                shutil.copyfile(file, copy)
    return folder


def rgb_images(folder: Path, classes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """(n, 3, H, W) images from 0 to 1, and (n,) labels, −1 where a folder's name is no class."""
    images = SceneDataset.from_dataset(SceneFolder(folder, scale=1 / 255))
    known = [classes.index(name) if name in classes else NO_LABEL for name in images.spec.classes]
    return images.image, torch.tensor(known)[images.label]
