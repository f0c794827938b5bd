"""The real scenes of the studies, read from the data folder into hsiaug's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from hsiaug.scenes import (
    BitemporalScene,
    BlockSplit,
    GroupSplit,
    HalvesSplit,
    PatchSplitter,
    Scene,
    SimulatedScene,
    Splitter,
    majority_labels,
    stack_bands,
)

AVIRIS_NM = np.linspace(365.9, 2496.2, 224)  # nominal, as in the 224-band library of this sensor
# Nominal centres: the twelve bands of Sentinel-2A without B10, and seven of Landsat 8.
SENTINEL2_NM = (442.7, 492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 945.1, 1613.7, 2202.4)
LANDSAT8_NM = (443.0, 482.0, 561.4, 654.6, 864.7, 1608.9, 2200.7)
SALINAS_REMOVED = [*range(107, 112), *range(153, 167), 223]  # bands 108-112, 154-167, 224, 1-based


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _reflectance(make: Callable[..., Any], data: dict[str, np.ndarray], *args: Any, **facts: Any) -> Any:
    """A scene of reflectances, scaled as its file says, without empty bands."""
    return make(*args, scale=float(data['scale']), unit='reflectance', **facts).checked('drop')


def salinas_a(root: Path) -> Scene:
    """AVIRIS sub-scene of vegetables; split into left and right halves, with few labels."""
    data = _load(root / 'salinas_a' / 'salinas_a.npz')
    names = {1: 'broccoli', 10: 'corn', **{k: f'lettuce {k - 7} wk' for k in range(11, 15)}}
    wavelengths = np.delete(AVIRIS_NM, SALINAS_REMOVED)
    return Scene(
        'salinas_a', data['cube'], data['gt'], names, wavelengths, wavelengths_approximate=True, unit='radiance'
    ).checked('drop')


def enmap_potsdam(root: Path) -> Scene:
    """EnMAP satellite tiles of a town and its surroundings; split by tiles."""
    data = _load(root / 'enmap_potsdam' / 'enmap_potsdam.npz')
    names = {i: str(name) for i, name in enumerate(data['class_names'])}
    facts = {'class_names': names, 'wavelengths': data['wavelength_nm'], 'nodata': float(data['nodata'])}
    return _reflectance(Scene.from_tiles, data, 'enmap_potsdam', data['tiles'], data['gt'], **facts)


def santa_barbara(root: Path) -> Scene:
    """Library of urban materials from AVIRIS pixels and field spectra; split by the polygon of a spectrum."""
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
    """Crop of the 2018 contest scene; a pixel is labelled if at least 90 % of it belong to one class."""
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


# --- scenes with masks ----------------------------------------------------------------------------------------------


def houston18_patches(root: Path) -> Scene:
    """The crop of :func:`houston18`; a pixel is labelled if at least half of it belongs to one class."""
    labels = _load(root / 'houston18_crop' / 'houston18_crop.npz')['gt']
    return replace(houston18(root), labels=majority_labels(labels, 4))


def jasper_ridge(root: Path) -> Scene:
    """AVIRIS scene of four materials; the label is the material of most abundance."""
    data = _load(root / 'jasper_ridge' / 'jasper_ridge.npz')
    return _dominant('jasper_ridge', data, AVIRIS_NM[data['aviris_band_number'] - 1], approximate=True)


def samson(root: Path) -> Scene:
    """Airborne scene of soil, tree and water; the label is the material of most abundance."""
    data = _load(root / 'samson' / 'samson.npz')
    return _dominant('samson', data, data['wavelength_nm'], approximate=False)


def _dominant(name: str, data: dict[str, np.ndarray], wavelengths: np.ndarray, approximate: bool) -> Scene:
    labels = data['abundance'].argmax(axis=2) + 1
    names = {k + 1: str(material) for k, material in enumerate(data['endmember_names'])}
    return _reflectance(Scene, data, name, data['cube'], labels, names, wavelengths, approximate)


def barkbeetle(root: Path, side: int = 32) -> Scene:
    """Sentinel-2 tiles of forests in 2020 with masks of bark-beetle damage; split by patches.

    Tiles of 32 pixels are listed in the file; for another ``side``, all tiles of the patches, half a side apart.
    """
    data = _load(root / 's2_barkbeetle' / 's2_barkbeetle.npz')
    places = _places(data, side)
    labels = _tiles(data, 'damage', places, side).astype(np.int64) + 1
    return _reflectance(
        Scene.from_tiles, data, 'barkbeetle', _tiles(data, 't2', places, side), labels, places[:, 0],
        class_names={1: 'undamaged', 2: 'damaged'}, wavelengths=np.array(SENTINEL2_NM), wavelengths_approximate=True,
        nodata=0,
    )  # fmt: skip


def _places(data: dict[str, np.ndarray], side: int) -> np.ndarray:
    """(T, 3) patch, row and column of each tile."""
    if side == 32:
        return data['tile32']
    steps = [[range(0, length - side + 1, side // 2) for length in shape] for shape in data['shape'].tolist()]
    return np.array([(k, row, column) for k, (rows, columns) in enumerate(steps) for row in rows for column in columns])


def _tiles(data: dict[str, np.ndarray], key: str, places: np.ndarray, side: int) -> np.ndarray:
    """(T, side, side, ...) tiles of an array stored as one list of the pixels of all patches."""
    patches = [
        data[key][start:stop].reshape(*shape, *data[key].shape[1:])
        for start, stop, shape in zip(data['offset'][:-1], data['offset'][1:], data['shape'], strict=True)
    ]
    return np.stack([patches[patch][row : row + side, column : column + side] for patch, row, column in places])


def water12(root: Path) -> Scene:
    """Patches of harmonised Landsat and Sentinel-2 with masks of water; split by groups of overlapping patches."""
    data = _load(root / 'water12_patches' / 'water12_patches.npz')
    return _reflectance(
        Scene.from_tiles, data, 'water12', data['images'], data['mask'].astype(np.int64) + 1, data['overlap_group'],
        class_names={1: 'land', 2: 'water'}, wavelengths=np.array(LANDSAT8_NM), wavelengths_approximate=True,
    )  # fmt: skip


def slovenia(root: Path) -> Scene:
    """Sentinel-2 image, the third of five dates, with a mask of land cover."""
    data = _load(root / 's2_slovenia_lulc' / 'testeopatch.npz')
    names = {k: str(name) for k, name in enumerate(data['class_names'])}
    return _reflectance(Scene, data, 'slovenia', data['images'][2], data['mask'].astype(np.int64), names)


def clouds(root: Path, sensor: str = 'sentinel2') -> Scene:
    """A scene of Landsat 5, Landsat 7 or Sentinel-2 with a mask of clouds and their shadows."""
    data = _load(root / 'cloud6_csmask' / f'{sensor}.npz')
    names = {k + 1: str(name) for k, name in enumerate(data['class_names'])}
    return _reflectance(Scene, data, f'clouds_{sensor}', data['image'], data['mask'].astype(np.int64) + 1, names)


MASKED: dict[str, Callable[[Path], Scene]] = {
    'houston18': houston18_patches,
    'jasper_ridge': jasper_ridge,
    'samson': samson,
    'enmap_potsdam': enmap_potsdam,
    'barkbeetle': barkbeetle,
    'water12': water12,
    'slovenia': slovenia,
    'clouds_sentinel2': clouds,
}
"""Scenes for segmentation."""


def patch_splitter(name: str, size: int) -> PatchSplitter:
    """The split into windows for a scene of :data:`MASKED`: by groups if it has any, else by blocks."""
    grouped = ('enmap_potsdam', 'barkbeetle', 'water12')
    return PatchSplitter(size=size, regions='groups' if name in grouped else 'blocks')


# --- scenes of two dates --------------------------------------------------------------------------------------------

SENTINEL2_BANDS = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12')
SENTINEL2_CENTRES = {**dict(zip(SENTINEL2_BANDS, SENTINEL2_NM, strict=True)), 'B10': 1373.5}
OSCD_STORED = {
    '10m': ('B02', 'B03', 'B04', 'B08'),
    '20m': ('B05', 'B06', 'B07', 'B8A', 'B11', 'B12'),
    '60m': ('B01', 'B09', 'B10'),
}
OSCD_BANDS = ('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B11', 'B12')
OSCD_CITIES = ('aguasclaras', 'bercy', 'bordeaux', 'mumbai', 'nantes', 'paris', 'pisa', 'rennes')


def oscd(root: Path, cities: Sequence[str] = OSCD_CITIES, bands: Sequence[str] = OSCD_BANDS) -> BitemporalScene:
    """Sentinel-2 pairs of cities with masks of urban change, all bands on the 10 m grid; split by cities."""

    def pair(city: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        data = _load(root / 'oscd' / f'{city}.npz')
        first, second = (
            stack_bands(
                {
                    name: data[f'{date}_{pixel}'][..., k]
                    for pixel, names in OSCD_STORED.items()
                    for k, name in enumerate(names)
                },
                bands,
            )
            for date in ('t1', 't2')
        )
        return first, second, data['cm']

    return BitemporalScene.from_pairs(
        'oscd',
        [pair(city) for city in cities],
        wavelengths=np.array([SENTINEL2_CENTRES[name] for name in bands]),
        wavelengths_approximate=True,
        scale=1e-4,
        unit='reflectance',
        nodata=0,
    ).checked('drop')


def barkbeetle_change(root: Path, side: int = 32) -> BitemporalScene:
    """Sentinel-2 tiles of forests in September 2019 and 2020 with masks of bark-beetle damage; tiles as there."""
    data = _load(root / 's2_barkbeetle' / 's2_barkbeetle.npz')
    places = _places(data, side)
    pairs = zip(*(_tiles(data, key, places, side) for key in ('t1', 't2', 'damage')), strict=True)
    return _reflectance(
        BitemporalScene.from_pairs, data, 'barkbeetle_change', pairs, places[:, 0],
        wavelengths=np.array(SENTINEL2_NM), wavelengths_approximate=True, nodata=0,
    )  # fmt: skip


def slovenia_change(root: Path) -> BitemporalScene:
    """The third and fifth dates of :func:`slovenia`, with simulated changes of land cover."""
    scene, data = slovenia(root), _load(root / 's2_slovenia_lulc' / 'testeopatch.npz')
    return _with_changes('slovenia_change', data['images'][2], data['images'][4], scene.labels, scale=scene.scale)


def two_dates(name: str, read: Callable[[Path], Scene], root: Path) -> BitemporalScene:
    """A scene and a simulated second date: other light, changes of land cover, noise."""
    scene, rng = read(root), np.random.default_rng(0)
    first = scene.cube.astype(np.float32)
    height, width, bands = first.shape
    light = gaussian_filter(rng.normal(size=(height, width)), 8)[:, :, None]
    gain = gaussian_filter(rng.normal(size=bands), 4)
    second = first * np.exp(0.15 * (light / light.std() + gain / gain.std()))
    second += 0.01 * first.std(axis=(0, 1)) * rng.normal(size=first.shape)
    second = second.astype(np.float32)
    return _with_changes(name, first, second, scene.labels, wavelengths=scene.wavelengths)


def _with_changes(
    name: str, first: np.ndarray, second: np.ndarray, labels: np.ndarray, **options: Any
) -> BitemporalScene:
    """Two dates (H, W, C); in the second, irregular regions look like land of another class nearby.

    The new land comes from the mirrored position in the same block of 16 pixels, so no part of a split sees another.
    """
    rows, columns = (_mirrored(length, 16) for length in labels.shape)
    there, other = (part[rows][:, columns] for part in (second, labels))
    field = gaussian_filter(np.random.default_rng(0).normal(size=labels.shape), 2)
    changed = (field > np.median(field)) & (labels != other)
    second = np.where(changed[:, :, None], there, second)
    return BitemporalScene.from_dates(name, first, second, changed.astype(np.uint8), **options).checked('drop')


def _mirrored(length: int, block: int) -> np.ndarray:
    """The mirrored position of each position in its block; the last block takes the remainder."""
    at, last = np.arange(length), length // block - 1
    number = np.minimum(at // block, last)
    return number * block + np.where(number == last, length, (number + 1) * block) - 1 - at


def simulated_change(root: Path) -> BitemporalScene:
    """A simulated landscape at two seasons; needs no file."""
    return BitemporalScene.from_simulated(SimulatedScene(192, 192, dates=2))


def simulated_change_2(root: Path) -> BitemporalScene:
    """Another simulated landscape, with more changes; needs no file."""
    scene = SimulatedScene(192, 192, dates=2, seed=7, change=0.2)
    return replace(BitemporalScene.from_simulated(scene), name='simulated_change_2')


# Patches of :func:`water12` that show the same pixels at two dates: of one overlap group, with equal heights.
WATER_DATES = ((18, 34), (65, 69), (12, 40), (23, 64), (11, 27), (37, 102), (35, 58))


def water_change(root: Path) -> BitemporalScene:
    """Seven places of :func:`water12` at two dates; change is water at only one of them. Split by places."""
    data = _load(root / 'water12_patches' / 'water12_patches.npz')
    image, mask = data['images'], data['mask']
    pairs = [(image[i], image[j], (mask[i] != mask[j]).astype(np.uint8)) for i, j in WATER_DATES]
    return _reflectance(
        BitemporalScene.from_pairs, data, 'water_change', pairs, wavelengths=np.array(LANDSAT8_NM),
        wavelengths_approximate=True,
    )  # fmt: skip


CHANGE: dict[str, Callable[[Path], BitemporalScene]] = {
    'oscd': oscd,
    'barkbeetle_change': barkbeetle_change,
    'slovenia_change': slovenia_change,
    'houston18_change': partial(two_dates, 'houston18_change', houston18_patches),
    'jasper_change': partial(two_dates, 'jasper_change', jasper_ridge),
    'samson_change': partial(two_dates, 'samson_change', samson),
    'clouds_change': partial(two_dates, 'clouds_change', partial(clouds, sensor='landsat7')),
    'simulated_change': simulated_change,
    'simulated_change_2': simulated_change_2,
    'water_change': water_change,
}
"""Scenes for change detection."""


def change_splitter(name: str, size: int) -> PatchSplitter:
    """The split into windows for a scene of :data:`CHANGE`: by places if it has several.

    Training windows overlap by 60 % as in SpecDM, and none crosses the edge of a city.
    """
    inside, places = 1.0 if name == 'oscd' else 0.5, name in ('oscd', 'barkbeetle_change', 'water_change')
    regions: Literal['groups', 'blocks'] = 'groups' if places else 'blocks'
    return PatchSplitter(size=size, stride=round(0.4 * size), regions=regions, min_labelled=inside)
