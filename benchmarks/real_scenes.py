"""The real scenes of the spectral studies, brought to hsiaug's form. Each is read from the folder of data at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hsiaug.scenes import BlockSplit, GroupSplit, HalvesSplit, Scene, Splitter

AVIRIS_NM = np.linspace(365.9, 2496.2, 224)  # nominal, as in the 224-band library of the same sensor
SALINAS_REMOVED = [*range(107, 112), *range(153, 167), 223]  # bands 108-112, 154-167, 224, 1-based


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def salinas_a(root: Path) -> Scene:
    """AVIRIS sub-scene of vegetables; split in left and right halves, with few labels."""
    data = _load(root / 'salinas_a' / 'salinas_a.npz')
    names = {1: 'broccoli', 10: 'corn', **{k: f'lettuce {k - 7} wk' for k in range(11, 15)}}
    wavelengths = np.delete(AVIRIS_NM, SALINAS_REMOVED)
    return Scene(
        'salinas_a', data['cube'], data['gt'], names, wavelengths, wavelengths_approximate=True, unit='radiance'
    ).checked('drop')


def enmap_potsdam(root: Path) -> Scene:
    """EnMAP satellite tiles of a town and its surroundings; split by tiles."""
    data = _load(root / 'enmap_potsdam' / 'enmap_potsdam.npz')
    return Scene.from_tiles(
        'enmap_potsdam',
        data['tiles'],
        data['gt'],
        class_names={i: str(name) for i, name in enumerate(data['class_names'])},
        wavelengths=data['wavelength_nm'],
        scale=float(data['scale']),
        unit='reflectance',
        nodata=float(data['nodata']),
    ).checked('drop')


def santa_barbara(root: Path) -> Scene:
    """Library of urban materials from AVIRIS pixels and the field; split by the polygon that a spectrum is from."""
    data = _load(root / 'spectral_libraries' / 'roberts2017_santa_barbara_urban.npz')
    names, labels = np.unique(data['level_2'], return_inverse=True)
    return Scene.from_spectra(
        'santa_barbara',
        data['spectra'],
        labels.reshape(-1) + 1,
        np.unique(data['polygon_unit_id'], return_inverse=True)[1].reshape(-1),
        class_names={i + 1: str(name) for i, name in enumerate(names)},
        wavelengths=data['wavelength'] * 1000,
        bands=np.flatnonzero(data['bbl']),
        scale=1e-4,
        unit='reflectance',
    ).checked('drop')


def houston18(root: Path) -> Scene:
    """Crop of the 2018 contest scene; labels on the image's grid where at least 90 % of a pixel is of one class."""
    data = _load(root / 'houston18_crop' / 'houston18_crop.npz')
    height, width = data['cube'].shape[:2]
    fine = data['gt'].reshape(height, 4, width, 4).transpose(0, 2, 1, 3).reshape(height, width, 16)
    share = np.stack([(fine == k).mean(axis=2) for k in range(13)], axis=2)
    labels = np.where(share.max(axis=2) >= 0.9, share.argmax(axis=2), 0)
    return Scene(
        'houston18',
        data['cube'],
        labels,
        wavelengths=np.linspace(380, 1050, 48),
        wavelengths_approximate=True,
        unit='radiance',
    ).checked('drop')


READERS: dict[str, Callable[[Path], Scene]] = {
    'salinas_a': salinas_a,
    'enmap_potsdam': enmap_potsdam,
    'santa_barbara': santa_barbara,
    'houston18': houston18,
}

DISJOINT: dict[str, Callable[..., Splitter]] = {
    'salinas_a': HalvesSplit,
    'enmap_potsdam': GroupSplit,
    'santa_barbara': GroupSplit,
    'houston18': BlockSplit,
}
"""The spatially disjoint split of each scene."""


def find_scenes(root: Path) -> Iterator[Scene]:
    """Every scene whose file is there."""
    for reader in READERS.values():
        try:
            yield reader(root)
        except FileNotFoundError:
            continue
