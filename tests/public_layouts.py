"""Small files in the layouts of public data sets, as they are downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
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


def write_segmunich(
    root: Path, count: int = 10, side: int = 32, bands: int = 10, codes: tuple[int, ...] = (21, 5, 12)
) -> None:
    """Folders ``img`` and ``label`` of GeoTIFFs: fields of a few classes, by codes, each of its own spectrum."""
    rng = np.random.default_rng(0)
    spectra = rng.uniform(500, 3000, (len(codes), bands))
    for number in range(count):
        mask = rng.integers(0, len(codes), (4, 4)).repeat(side // 4, axis=0).repeat(side // 4, axis=1)
        image = spectra[mask].transpose(2, 0, 1) + rng.normal(0, 30, (bands, side, side))
        label = np.array(codes, dtype=np.uint8)[mask][None]
        for folder, values in (('img', image.astype(np.uint16)), ('label', label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            profile = {'count': len(values), 'height': side, 'width': side, 'dtype': values.dtype.name}
            with rasterio.open(root / folder / f'{number:05d}.tif', 'w', driver='GTiff', **profile) as file:
                file.write(values)


def write_chikusei(folder: Path, side: int = 64) -> None:
    """The MATLAB file of Chikusei: 128 bands, fields of three materials and their mixtures."""
    rng = np.random.default_rng(0)
    materials = np.cumsum(rng.uniform(0, 30, (3, 128)), axis=1) + rng.uniform(100, 2000, (3, 1))
    shares = rng.dirichlet([0.5] * 3, (side // 4, side // 4)).repeat(4, axis=0).repeat(4, axis=1)
    cube = shares @ materials + rng.normal(0, 10, (side, side, 128))
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / 'HyperspecVNIR_Chikusei_20140729.mat', {'chikusei': cube.clip(1).astype(np.uint16)})


def write_aid(folder: Path, side: int = 32) -> None:
    """Folders of JPEG images, one for each class."""
    rng = np.random.default_rng(1)
    for name in ('Airport', 'Farmland'):
        (folder / 'AID' / name).mkdir(parents=True)
        for number in range(3):
            picture = (
                rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(side // 4, axis=0).repeat(side // 4, axis=1)
            )
            Image.fromarray(picture).save(folder / 'AID' / name / f'{name.lower()}_{number + 1}.jpg')


def write_hsrs_sc(folder: Path, side: int = 32, count: int = 6) -> None:
    """Folders of TIFF images of 48 bands, one for each class; of the first in MATLAB files."""
    rng = np.random.default_rng(2)
    for name in ('building', 'city building', 'farmland', 'idle region', 'water'):
        (folder / 'HSRS-SC' / name).mkdir(parents=True)
        spectrum = np.cumsum(rng.uniform(0, 20, 48)) + 100
        for number in range(count):
            image = spectrum * rng.uniform(0.5, 1.5, (4, 4, 1)).repeat(side // 4, axis=0).repeat(side // 4, axis=1)
            image = (image + rng.normal(0, 20, image.shape)).clip(1).astype(np.float32)
            file = folder / 'HSRS-SC' / name / str(number)
            if name == 'building':
                savemat(file.with_suffix('.mat'), {'data': image})
                continue
            profile = {'count': 48, 'height': side, 'width': side, 'dtype': 'float32'}
            with rasterio.open(file.with_suffix('.tif'), 'w', driver='GTiff', **profile) as tiff:
                tiff.write(image.transpose(2, 0, 1))
