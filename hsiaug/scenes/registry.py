"""Public benchmark scenes: files, bands and classes. Users download the files themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..named_configs import unknown
from .files import FilesNotFoundError
from .readers import open_scene
from .scene import Scene

EHU = 'https://www.ehu.eus/ccwintco/index.php/Hyperspectral_Remote_Sensing_Scenes'


@dataclass(frozen=True)
class BenchmarkScene:
    """Description of a public scene."""

    title: str  # full name
    cube_file: str  # file of the cube
    cube_key: str
    labels_file: str  # file of the labels
    labels_key: str
    sensor: str
    bands: int  # number of bands in the file
    # nominal band centres of the sensor before bands were removed: (number of bands, first, last) of each of its
    # spectrometers, evenly spaced
    grid_nm: tuple[tuple[int, float, float], ...]
    # bands missing from the file: inclusive ranges in the sensor's numbering, from 1
    removed: tuple[tuple[int, int], ...]
    classes: tuple[str, ...]  # class names, from id 1
    unit: str = 'radiance'  # physical unit
    url: str = EHU  # where to get the files

    @property
    def wavelengths(self) -> np.ndarray:
        """(bands,) nominal centres in nm: the sensor's grid without the removed bands."""
        gone = [band - 1 for first, last in self.removed for band in range(first, last + 1)]
        return np.delete(np.concatenate([np.linspace(first, last, n) for n, first, last in self.grid_nm]), gone)


_SALINAS = (
    'broccoli green weeds 1', 'broccoli green weeds 2', 'fallow', 'fallow rough plow', 'fallow smooth', 'stubble',
    'celery', 'grapes untrained', 'soil vineyard develop', 'corn senesced green weeds', 'lettuce romaine 4 wk',
    'lettuce romaine 5 wk', 'lettuce romaine 6 wk', 'lettuce romaine 7 wk', 'vineyard untrained',
    'vineyard vertical trellis',
)  # fmt: skip
# On the Salinas-A image this grid puts the absorptions of oxygen (762 nm) and water vapour (940, 1130 nm) within 6 nm
# of where they belong; an even grid from 400 to 2500 nm, often quoted, misplaces the first by 32 nm.
_AVIRIS = ((224, 365.9, 2496.2),)
_AVIRIS_220 = ((220, 400.0, 2500.0),)  # the 1992 product without its overlapping bands
_ROSIS_103, _ROSIS_102 = ((103, 430.0, 860.0),), ((102, 430.0, 860.0),)
_HYPERION = ((70, 355.59, 1057.68), (172, 851.92, 2577.08))  # visible and near infrared; short-wave infrared
_SALINAS_REMOVED = ((108, 112), (154, 167), (224, 224))

BENCHMARK_SCENES: dict[str, BenchmarkScene] = {
    'indian_pines': BenchmarkScene(
        'Indian Pines (corrected)', 'Indian_pines_corrected.mat', 'indian_pines_corrected', 'Indian_pines_gt.mat',
        'indian_pines_gt', 'AVIRIS', 200, _AVIRIS_220, ((104, 108), (150, 163), (220, 220)),
        ('alfalfa', 'corn notill', 'corn mintill', 'corn', 'grass pasture', 'grass trees', 'grass pasture mowed',
         'hay windrowed', 'oats', 'soybean notill', 'soybean mintill', 'soybean clean', 'wheat', 'woods',
         'buildings grass trees drives', 'stone steel towers'),
    ),
    'pavia_university': BenchmarkScene(
        'Pavia University', 'PaviaU.mat', 'paviaU', 'PaviaU_gt.mat', 'paviaU_gt', 'ROSIS', 103, _ROSIS_103, (),
        ('asphalt', 'meadows', 'gravel', 'trees', 'painted metal sheets', 'bare soil', 'bitumen',
         'self-blocking bricks', 'shadows'),
    ),
    'pavia_centre': BenchmarkScene(
        'Pavia Centre', 'Pavia.mat', 'pavia', 'Pavia_gt.mat', 'pavia_gt', 'ROSIS', 102, _ROSIS_102, (),
        ('water', 'trees', 'asphalt', 'self-blocking bricks', 'bitumen', 'tiles', 'shadows', 'meadows', 'bare soil'),
    ),
    'salinas': BenchmarkScene(
        'Salinas (corrected)', 'Salinas_corrected.mat', 'salinas_corrected', 'Salinas_gt.mat', 'salinas_gt', 'AVIRIS',
        204, _AVIRIS, _SALINAS_REMOVED, _SALINAS,
    ),
    'salinas_a': BenchmarkScene(
        'Salinas-A (corrected)', 'SalinasA_corrected.mat', 'salinasA_corrected', 'SalinasA_gt.mat', 'salinasA_gt',
        'AVIRIS', 204, _AVIRIS, _SALINAS_REMOVED, _SALINAS,
    ),
    'botswana': BenchmarkScene(
        'Botswana', 'Botswana.mat', 'Botswana', 'Botswana_gt.mat', 'Botswana_gt', 'Hyperion', 145, _HYPERION,
        ((1, 9), (56, 81), (98, 101), (120, 133), (165, 186), (221, 242)),
        ('water', 'hippo grass', 'floodplain grasses 1', 'floodplain grasses 2', 'reeds', 'riparian', 'firescar',
         'island interior', 'acacia woodlands', 'acacia shrublands', 'acacia grasslands', 'short mopane',
         'mixed mopane', 'exposed soils'),
    ),
    'ksc': BenchmarkScene(
        'Kennedy Space Center', 'KSC.mat', 'KSC', 'KSC_gt.mat', 'KSC_gt', 'AVIRIS', 176, _AVIRIS,
        ((1, 4), (102, 116), (151, 172), (218, 224)),
        ('scrub', 'willow swamp', 'CP hammock', 'CP/oak', 'slash pine', 'oak/broadleaf', 'hardwood swamp',
         'graminoid marsh', 'spartina marsh', 'cattail marsh', 'salt marsh', 'mud flats', 'water'),
    ),
}  # fmt: skip
"""The scenes by their names in configs."""


def open_benchmark_scene(
    name: str,
    root: str | os.PathLike[str] = '.',
    on_bad_bands: Literal['error', 'drop'] = 'error',
    ignore: Sequence[int] | None = None,
) -> Scene:
    """Open a registered scene.

    Args:
        name: one of :data:`BENCHMARK_SCENES`.
        root: folder of its files.
        on_bad_bands: refuse or drop bands that carry no information.
        ignore: class ids to leave unlabelled.

    Raises:
        BadBandsError: if bands carry no information and are not to be dropped.
        ValueError: for an unknown name, or files with the wrong shape.
        DatasetNotFoundError: if a file is missing; the message says where to get it.
    """
    if name not in BENCHMARK_SCENES:
        raise ValueError(unknown('benchmark scene', name, BENCHMARK_SCENES))
    facts, folder = BENCHMARK_SCENES[name], Path(root).expanduser()
    missing = [file for file in (facts.cube_file, facts.labels_file) if not (folder / file).is_file()]
    if missing:
        raise FilesNotFoundError(
            f'{facts.title}: {" and ".join(missing)} not found in {folder}. Download from {facts.url} and put the '
            f'files {facts.cube_file} and {facts.labels_file} there, or give another root'
        )
    scene = open_scene(
        folder / facts.cube_file,
        folder / facts.labels_file,
        cube_key=facts.cube_key,
        labels_key=facts.labels_key,
        class_names={i + 1: c for i, c in enumerate(facts.classes)},
        name=name,
        unit=facts.unit,
        ignore=ignore,
        layout='hwc',
        on_bad_bands=on_bad_bands,
    )
    if scene.cube.shape[2] != facts.bands:
        raise ValueError(
            f'{folder / facts.cube_file}: {scene.cube.shape[2]} bands, the public file has {facts.bands}; '
            'open it with open_scene if it is another version'
        )
    scene.wavelengths, scene.wavelengths_approximate = facts.wavelengths, True
    return scene
