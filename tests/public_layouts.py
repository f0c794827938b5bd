"""Small files in the layouts of public data sets, as they are downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat

from hsiaug.scenes import BENCHMARK_SCENES


def write_benchmark_scene(folder: Path, name: str, side: int = 40, classes: int = 3) -> None:
    """The two MATLAB files of a benchmark scene: stripes of a few classes along both axes, each of its own spectrum."""
    facts, rng = BENCHMARK_SCENES[name], np.random.default_rng(0)
    rows, columns = np.divmod(np.arange(side * side), side)
    labels = (1 + (rows // 4 + columns // 4) % classes).reshape(side, side)
    bends = np.sin(rng.uniform(1, 3, (classes, 1)) * np.linspace(0, 3, facts.bands))
    spectra = 1000 * rng.uniform(1, 3, (classes, 1)) * (1 + bends / 2)
    cube = spectra[labels - 1] * rng.normal(1, 0.05, (side, side, 1)) + rng.normal(0, 20, (side, side, facts.bands))
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / facts.cube_file, {facts.cube_key: cube.clip(1).astype(np.uint16)})
    savemat(folder / facts.labels_file, {facts.labels_key: labels.astype(np.uint8)})


def write_casi_pair(folder: Path, name: str, side: int = 100, bands: int = 6, factor: int = 5) -> None:
    """Two cubes of one area at resolutions of ``factor``: smooth ramps with blocks on them, and their means."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(100, 900, (side // 10, side // 10, bands)).repeat(10, axis=0).repeat(10, axis=1)
    high = coarse + 100 * np.sin(np.arange(side) / 4)[:, None, None] + rng.normal(0, 5, (side, side, bands))
    low = high.reshape(side // factor, factor, side // factor, factor, bands).mean(axis=(1, 3))
    folder.mkdir(parents=True, exist_ok=True)
    for resolution, cube in (('HR', high), ('LR', low)):
        savemat(folder / f'{resolution}_{name}.mat', {'cube': cube.clip(1).astype(np.float32)})
