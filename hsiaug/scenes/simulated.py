"""A simulated scene: an artificial landscape seen by a hyperspectral sensor.

Every part is a simple physical model: parametric reflectances with the absorption features of real materials, linear
mixing of spatially correlated abundances, illumination by direct sun on a rough surface and by a blue sky, variability
within materials, and band-wise sensor noise. With it, the demo and the tests need no download.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from ..settings import NOT_NEGATIVE, Range, check_arguments
from .scene import Scene

DEFAULT_WAVELENGTHS = np.linspace(400, 2500, 100)
CLASSES = ('grass', 'trees', 'dry vegetation', 'bare soil', 'clay soil', 'asphalt', 'tile roof', 'metal roof', 'water')
_RANGES = {
    'height': Range(4), 'width': Range(4), 'classes': Range(2, len(CLASSES)), 'change': Range(0, 1),
    **dict.fromkeys(('seed', 'patch', 'mixing', 'variability', 'relief', 'noise'), NOT_NEGATIVE),
}  # fmt: skip

Array = np.ndarray[Any, np.dtype[Any]]
Traits = Array  # (n, 4) standard normal traits of n variants of a material


def _band(w: Array, centre: float | Array, width: float | Array) -> Array:
    """An absorption feature of depth one."""
    return np.exp(-0.5 * ((w - centre) / width) ** 2)


def _step(w: Array, centre: float | Array, width: float | Array) -> Array:
    return 1 / (1 + np.exp(-(w - centre) / width))


def _leaf_water(w: np.ndarray) -> np.ndarray:
    """Optical depth of liquid water in leaves, 1 at 1450 nm."""
    features = ((970, 30, 0.12), (1200, 40, 0.25), (1450, 60, 1.0), (1940, 70, 1.6), (2500, 200, 1.3))
    return np.sum([depth * _band(w, centre, width) for centre, width, depth in features], axis=0)


def _vegetation(w: np.ndarray, t: Traits, plateau: float, chlorophyll: float, water: float) -> np.ndarray:
    """Chlorophyll absorbs at 450 and 670 nm, the red edge is near 715 nm, leaf water shapes the infrared."""
    absorbed = (
        chlorophyll * np.exp(0.25 * t[:, :1]) * (_band(w, 450, 45) + _band(w, 670, 35) + 0.25 * _band(w, 550, 60))
    )
    visible = 0.16 * np.exp(-2.2 * absorbed)
    edge = _step(w, 715 + 4 * t[:, 1:2], 13)
    infrared = plateau * (1 + 0.12 * t[:, 2:3]) * np.exp(-water * np.exp(0.2 * t[:, 3:4]) * _leaf_water(w))
    return visible * (1 - edge) + infrared * (1 - 0.18 * _step(w, 1900, 200)) * edge


def _soil(w: np.ndarray, t: Traits, bright: float, iron: float, clay: float, moisture: float) -> np.ndarray:
    """Rising with wavelength; iron oxides absorb below 900 nm, clay at 2200 nm, moisture at 1450 and 1940 nm."""
    rise = bright * (1 + 0.12 * t[:, :1]) * (0.35 + 0.65 * (1 - np.exp(-(w - 350) / (650 + 60 * t[:, 1:2]))))
    depth = iron * (1 + 0.3 * t[:, 2:3]) * (_band(w, 500, 90) + 0.5 * _band(w, 880, 80))
    depth = depth + clay * (1 + 0.3 * t[:, 3:4]) * _band(w, 2205, 35) + moisture * 0.35 * _leaf_water(w)
    return rise * np.exp(-depth)


def _asphalt(w: np.ndarray, t: Traits) -> np.ndarray:
    """Dark and nearly flat; bitumen absorbs at 1730 and 2310 nm, and ageing brightens it."""
    flat = (0.11 + 0.022 * t[:, :1]) * (0.8 + 0.2 * _step(w, 700 + 40 * t[:, 1:2], 250))
    return flat * (1 - 0.07 * np.exp(0.3 * t[:, 2:3]) * (_band(w, 1730, 30) + _band(w, 2310, 40)))


def _metal(w: np.ndarray, t: Traits) -> np.ndarray:
    """Bright and smooth, slowly varying with the coating."""
    shape = 0.36 + 0.06 * t[:, :1] + 0.05 * (1 + 0.5 * t[:, 1:2]) * np.sin((w - 400) / (650 + 50 * t[:, 2:3]))
    return shape * (0.75 + 0.25 * _step(w, 500, 80))


def _water(w: np.ndarray, t: Traits) -> np.ndarray:
    """Only visible light is reflected; suspended matter shifts the peak."""
    peak = (0.07 + 0.012 * t[:, :1]) * _band(w, 545 + 18 * t[:, 1:2], 85 + 8 * t[:, 2:3])
    return peak + 0.018 * np.exp(0.2 * t[:, 3:4]) * np.exp(-(w - 400) / 500)


MATERIALS: dict[str, Callable[[np.ndarray, Traits], np.ndarray]] = {
    'grass': lambda w, t: _vegetation(w, t, 0.46, 0.85, 0.55),
    'trees': lambda w, t: _vegetation(w, t, 0.40, 1.05, 0.70),
    'dry vegetation': lambda w, t: _soil(w, t, 0.40, 0.55, 0.02, 0.15) * (1 - 0.1 * _band(w, 2100, 60)),
    'bare soil': lambda w, t: _soil(w, t, 0.36, 0.45, 0.06, 0.10),
    'clay soil': lambda w, t: _soil(w, t, 0.33, 0.55, 0.16, 0.18),
    'asphalt': _asphalt,
    'tile roof': lambda w, t: _soil(w, t, 0.31, 0.95, 0.03, 0.03),
    'metal roof': _metal,
    'water': _water,
}
"""Reflectance (n, C) of n variants of each material at wavelengths (C,) in nm."""


def _field(rng: np.random.Generator, shape: tuple[int, int], length: float) -> np.ndarray:
    """Smooth standard normal field with a correlation length in pixels."""
    field = gaussian_filter(rng.normal(size=shape), length, mode='wrap')
    return (field - field.mean()) / max(field.std(), 1e-12)


class SimulatedScene(Scene):
    """A fully labelled simulated scene of one or two dates.

    The label of a pixel is its dominant material. The same arguments give the same scene, bit for bit on one machine.

    Args:
        height: number of rows.
        width: number of columns.
        wavelengths: band centres in nm; by default, 100 bands from 400 to 2500 nm.
        seed: seed of all randomness.
        dates: 2 adds a second image, with another season and illumination, and real changes.
        classes: number of materials, 2 to 9.
        patch: correlation length of the land cover in pixels.
        mixing: how gradually abundances change between materials; larger values mix more.
        variability: scale of the variability within materials.
        relief: standard deviation of the direct light caused by slopes.
        noise: standard deviation of the sensor noise in clear bands, in reflectance; five times as much where the
            atmosphere absorbs.
        change: share of changed pixels between two dates.

    Attributes:
        abundance: (H, W, K) float32 that add up to one.
        endmembers: (K, C) float32 mean reflectances.
        second_date: (H, W, C) float32 image of the second date, or None.
        change: (H, W) uint8 mask of pixels whose material really changed, or None.
    """

    def __init__(
        self,
        height: int = 96,
        width: int = 96,
        wavelengths: Sequence[float] | np.ndarray | None = None,
        seed: int = 0,
        dates: Literal[1, 2] = 1,
        classes: int = 9,
        patch: float = 5.0,
        mixing: float = 0.15,
        variability: float = 0.7,
        relief: float = 0.2,
        noise: float = 0.0025,
        change: float = 0.05,
    ) -> None:
        wavelengths = DEFAULT_WAVELENGTHS if wavelengths is None else np.asarray(wavelengths)
        check_arguments(SimulatedScene, locals(), _RANGES)
        w = wavelengths.astype(np.float64)
        if w.ndim != 1 or not w.size or not (np.isfinite(w) & (w >= 300) & (w <= 3000)).all():
            raise ValueError(
                'SimulatedScene: wavelengths must be a list of band centres from 300 to 3000 nm, found shape '
                f'{w.shape} with values {w.reshape(-1)[:3]}...; micrometres times 1000 are nanometres'
            )
        names = CLASSES[:classes]
        rng = np.random.default_rng(seed)
        shape = (height, width)
        strength = np.stack([_field(rng, shape, patch) + 0.3 * _field(rng, shape, patch / 4) for _ in names], axis=2)
        strength /= max(mixing, 1e-3)
        abundance = np.exp(strength - strength.max(axis=2, keepdims=True))
        abundance /= abundance.sum(axis=2, keepdims=True)
        traits = rng.normal(size=(len(names), 4, 3))  # dependence of a material's traits on three landscape factors
        factors = np.stack([_field(rng, shape, 2 * patch) for _ in range(3)], axis=2)
        local = rng.normal(size=(height, width, len(names), 4))
        state: dict[str, Any] = {'w': w, 'names': names, 'scale': variability, 'noise': noise}
        traits_map = np.einsum('hwf,ktf->hwkt', factors, traits) / np.sqrt(3) * 0.8 + 0.6 * local
        light = np.clip(1 + relief * _field(rng, shape, 3), 0.25, None)
        sky = 0.06 * (1 + 0.5 * _field(rng, shape, 6))
        cube = _image(rng, abundance, traits_map, light, sky, **state)
        self.abundance = abundance.astype(np.float32)
        zero = np.zeros((1, 4))
        self.endmembers = np.concatenate([MATERIALS[name](w, zero) for name in names]).astype(np.float32)
        self.second_date: np.ndarray | None = None
        self.change: np.ndarray | None = None
        if dates == 2:
            later, mask = _changed(rng, abundance, change, patch)
            season = np.array([-1.0, -0.6, 0.8, -0.3]) * variability  # less chlorophyll, a shifted red edge, less water
            other_light = np.clip(0.85 + relief * _field(rng, shape, 3), 0.25, None)
            self.second_date = _image(rng, later, traits_map + season, other_light, 1.4 * sky, **state)
            self.change = mask
        super().__init__(
            name='simulated',
            cube=cube,
            labels=abundance.argmax(axis=2) + 1,
            class_names={k + 1: name for k, name in enumerate(names)},
            wavelengths=w,
            unit='reflectance',
        )


def _image(
    rng: np.random.Generator,
    abundance: np.ndarray,
    traits: np.ndarray,
    light: np.ndarray,
    sky: np.ndarray,
    w: np.ndarray,
    names: tuple[str, ...],
    scale: float,
    noise: float,
) -> np.ndarray:
    """(H, W, C) float32 reflectance as retrieved without topographic correction."""
    height, width, _ = abundance.shape
    cube = np.zeros((height * width, len(w)))
    for k, name in enumerate(names):
        spectra = MATERIALS[name](w, scale * traits[:, :, k].reshape(-1, 4))
        cube += abundance[:, :, k].reshape(-1, 1) * spectra
    blue = (w / 400) ** -2  # at a fixed wavelength, so that sky light does not depend on the band grid
    cube *= light.reshape(-1, 1) + sky.reshape(-1, 1) * blue
    # The sensor receives least light where water vapour absorbs and at both ends of its range.
    absorbed = _band(w, 940, 25) + _band(w, 1130, 30) + 2 * _band(w, 1390, 45) + 2 * _band(w, 1880, 60)
    ends = np.exp(-(w - 400) / 40) + _step(w, 2440, 20)
    cube += rng.normal(size=cube.shape) * noise * (1 + 2 * absorbed + 2 * ends)
    return cube.reshape(height, width, -1).astype(np.float32)


def _changed(
    rng: np.random.Generator, abundance: np.ndarray, share: float, patch: float
) -> tuple[np.ndarray, np.ndarray]:
    """Abundances after real changes, and the mask of pixels whose dominant material has changed."""
    shape = abundance.shape[:2]
    field = _field(rng, shape, patch / 2)
    where = field > np.quantile(field, 1 - share)
    before = abundance.argmax(axis=2)
    # One new material per block of 8 x 8 pixels, since land is cleared or built on by the plot; where it is the old
    # one already, the pixel gets one of its own.
    count = abundance.shape[2]
    target = rng.integers(count, size=shape)
    target = np.where(target == before, (target + 1) % count, target)
    blocks = rng.integers(count, size=(-(-shape[0] // 8), -(-shape[1] // 8))).repeat(8, axis=0).repeat(8, axis=1)
    blocks = blocks[: shape[0], : shape[1]]
    pure = np.eye(count)[np.where(blocks == before, target, blocks)]
    later = np.where(where[:, :, None], 0.85 * pure + 0.15 * abundance, abundance)
    return later, (later.argmax(axis=2) != before).astype(np.uint8)
