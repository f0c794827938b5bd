"""The scene of a config file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..settings import checked_arguments
from .change import IGNORED, BitemporalScene
from .files import existing
from .formats import open_content
from .labels import UNLABELLED
from .layout import Layout
from .raster import require_one_place
from .readers import open_scene
from .registry import open_benchmark_scene
from .scene import Scene
from .simulated import SimulatedScene


@dataclass(frozen=True)
class SceneConfig:
    """Where a scene comes from: a file, a registered benchmark scene, or the simulated one.

    Two files, or the simulated scene with ``dates: 2``, make a scene with two dates for change detection.

    Args:
        path: file of the cube (MATLAB, ``.npz``, ``.npy``, ENVI, GeoTIFF).
        labels: file of the labels, or their key in the same file; for two dates, the change mask: 1 where something
            changed, 0 where nothing did, 255 where a pixel is to be ignored.
        second: file with the cube of a second date, on the same grid and with the same bands as the first.
        cube_key: variable of the cube, if the file holds several.
        labels_key: variable of the labels, in the file of the labels or the cube.
        benchmark: name of a public benchmark scene, whose files are searched for in ``root``.
        root: folder with the files of the benchmark scene.
        simulated: settings of :class:`~hsiaug.scenes.SimulatedScene`, used if there is neither file nor benchmark.
        name: short name; if None, the file's own.
        scale: factor from stored values to values in ``unit``; if None, the file's own scale and offset.
        unit: physical unit; if None, the file's own.
        nodata: stored value that means "no measurement"; if None, the file's own.
        ignore: label values of pixels without a class, besides 0, negative values and the nodata value of the labels'
            file; with an empty list, every positive value is a class. For change masks, values to be ignored.
        wavelengths: band centres in nm, one per band of the file; if None, the file's own.
        bands: indices of the bands to use, 0-based; if None, all that the file does not mark as bad.
        layout: position of the bands in the array, ``'hwc'``, ``'chw'`` or ``'hcw'``; if None, labels and wavelengths
            decide.
        on_bad_bands: what to do about bands that are constant or hold no data: ``'error'`` or ``'drop'``.
        coarse: file with a cube of the same area from a coarser sensor, in the same unit; super-resolution
            (``msrresgan``) learns from such pairs.
        one_class: give every measured pixel the same class, whatever the labels; for generators that need no labels,
            such as ``spectral_gan`` with ``conditional: false``.
        range_nm: use only bands with centres in this interval, ends included; requires wavelengths.
    """

    path: str | None = None
    labels: str | None = None
    second: str | None = None
    cube_key: str | None = None
    labels_key: str | None = None
    benchmark: str | None = None
    root: str = '.'
    simulated: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    scale: float | None = None
    unit: str | None = None
    nodata: float | None = None
    ignore: tuple[int, ...] | None = None
    wavelengths: tuple[float, ...] | None = None
    bands: tuple[int, ...] | None = None
    layout: Layout | None = None
    on_bad_bands: Literal['error', 'drop'] = 'error'
    coarse: str | None = None
    one_class: bool = False
    range_nm: tuple[float, float] | None = None

    @property
    def dates(self) -> int:
        """Number of dates, without opening the scene."""
        simulated = self.path is None and self.benchmark is None
        return 2 if self.second is not None or (simulated and self.simulated.get('dates') == 2) else 1

    def __call__(self) -> Scene:
        """Open the scene."""
        self._require_used()
        if self.path is not None:
            scene = self._of_files(self.path)
        elif self.benchmark is not None:
            scene = self._in_range(open_benchmark_scene(self.benchmark, self.root, self.on_bad_bands, self.ignore))
        else:
            scene = simulated = SimulatedScene(**checked_arguments(SimulatedScene, self.simulated, 'simulated scene'))
            if self.dates == 2:
                scene = BitemporalScene.from_simulated(simulated)
        return scene.as_one_class() if self.one_class else scene

    def _require_used(self) -> None:
        """Refuse settings that would be ignored: two scenes at once, or settings of files without a file."""
        default = SceneConfig()
        given = {name: value for name, value in vars(self).items() if value != getattr(default, name)}
        always = {'name', 'root', 'on_bad_bands', 'one_class'}
        if self.path is not None:
            lost, why = {'benchmark', 'simulated'}, f'path ({self.path!r}) names the scene; give one of them, not both'
        elif self.benchmark is not None:
            lost = given.keys() - always - {'benchmark', 'ignore', 'range_nm'}
            why = f'benchmark ({self.benchmark!r}) names the scene; open its file as path for such settings'
        else:
            lost = given.keys() - always - {'simulated'}
            why = f'no file is named; give that of the {"scene" if self.second is None else "first"} as path'
        if said := [f'{name} ({given[name]!r})' for name in given if name in lost]:
            raise ValueError(f'scene: {", ".join(said)} would be passed over, since {why}')
        if self.one_class and self.dates == 2:
            raise ValueError('scene: one_class is for scenes of one date; of two, give the change mask as labels')
        if self.coarse is not None and self.second is not None:
            raise ValueError(f'scene: coarse ({self.coarse!r}) is for scenes of one date; leave out second')

    def _of_files(self, path: str) -> Scene:
        if (other := self.second or self.coarse) is not None:
            require_one_place(*(open_content(existing(file, 'cube'), 'cube', self.bands) for file in (path, other)))
        unlabelled = UNLABELLED if self.second is None else IGNORED
        scene = self._in_range(self._open(path, self.labels, self.labels_key, unlabelled))
        if self.second is not None:
            scene = self._with_second(scene, self._in_range(self._open(self.second)))
        elif self.coarse is not None:
            scene = replace(scene, coarse=self._open(self.coarse))
        return scene.checked(self.on_bad_bands)

    def _in_range(self, scene: Scene) -> Scene:
        """The scene with the bands in ``range_nm``."""
        if self.range_nm is None:
            return scene
        if scene.wavelengths is None:
            raise ValueError(
                f'scene: range_nm {self.range_nm} needs wavelengths, and those of {scene.name} are unknown'
            )
        low, high = self.range_nm
        bands = np.asarray(scene.bands)
        kept = bands[(scene.wavelengths[bands] >= low) & (scene.wavelengths[bands] <= high)]
        if not len(kept):
            centres = scene.wavelengths[bands]
            raise ValueError(
                f'scene: no band of {scene.name} lies in range_nm {self.range_nm}; they lie from {centres.min():g} to '
                f'{centres.max():g} nm'
            )
        return replace(scene, bands=kept)

    def _open(
        self, path: str, labels: str | None = None, labels_key: str | None = None, unlabelled: int = UNLABELLED
    ) -> Scene:
        alike = ('cube_key', 'wavelengths', 'bands', 'scale', 'unit', 'nodata', 'ignore', 'layout')
        settings: dict[str, Any] = {name: getattr(self, name) for name in alike}
        settings |= {'labels_key': labels_key, 'name': self.name or Path(path).stem, 'unlabelled': unlabelled}
        return open_scene(path, labels, on_bad_bands='keep', **settings)

    def _with_second(self, first: Scene, second: Scene) -> BitemporalScene:
        if first.labels is None:
            raise ValueError(
                f'scene: {self.path} and {self.second} are two dates; give the file of their change mask as labels'
            )
        for name in ('scale', 'offset', 'nodata'):
            ours, theirs = getattr(first, name), getattr(second, name)
            same = np.array_equal(np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float), equal_nan=True)
            if not same:  # None, which is no value, is NaN here
                raise ValueError(
                    f'scene: {self.path} has the {name} {ours}, {self.second} has {theirs}; give '
                    f'{"scale" if name == "offset" else name} if it is the same for both, or bring both to one'
                )
        facts = ('wavelengths', 'wavelengths_approximate', 'scale', 'offset', 'unit', 'nodata', 'groups', 'tile_rows')
        settings: dict[str, Any] = {name: getattr(first, name) for name in facts}
        masks = [date.measured for date in (first, second) if date.measured is not None and date.shape == first.shape]
        settings['measured'] = np.logical_and.reduce(masks) if masks else None
        settings['bands'] = np.intersect1d(np.asarray(first.bands), np.asarray(second.bands))
        return BitemporalScene.from_dates(first.name, first.cube, second.cube, np.asarray(first.labels), **settings)
