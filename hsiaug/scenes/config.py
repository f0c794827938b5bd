"""A scene as a config file names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .readers import open_scene
from .registry import open_benchmark_scene
from .scene import Scene
from .simulated import SimulatedScene


@dataclass(frozen=True)
class SceneConfig:
    """Where a scene comes from: a file, a registered benchmark scene, or the simulated one.

    Args:
        path: file of the cube (MATLAB, ``.npz``, ``.npy``, ENVI, GeoTIFF).
        labels: file of the labels, or their key in the same file.
        cube_key: variable of the cube, where a file holds several.
        labels_key: variable of the labels.
        benchmark: name of a registered public scene, looked for under ``root``.
        root: folder of the benchmark scene's files.
        simulated: settings of :class:`~hsiaug.scenes.SimulatedScene`, taken when neither file nor benchmark is named.
        name: short name; the file's own if None.
        scale: stored value times ``scale`` is the value in ``unit``.
        unit: physical unit.
        nodata: stored value that means "no measurement".
        on_bad_bands: ``'error'`` or ``'drop'``.
    """

    path: str | None = None
    labels: str | None = None
    cube_key: str | None = None
    labels_key: str | None = None
    benchmark: str | None = None
    root: str = '.'
    simulated: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    scale: float = 1.0
    unit: str | None = None
    nodata: float | None = None
    on_bad_bands: Literal['error', 'drop'] = 'error'

    def __call__(self) -> Scene:
        """Open the scene."""
        if self.path is not None and self.benchmark is not None:
            raise ValueError(f'scene: give path ({self.path!r}) or benchmark ({self.benchmark!r}), not both')
        if self.path is not None:
            return open_scene(
                self.path,
                self.labels,
                cube_key=self.cube_key,
                labels_key=self.labels_key,
                name=self.name or Path(self.path).stem,
                scale=self.scale,
                unit=self.unit,
                nodata=self.nodata,
                on_bad_bands=self.on_bad_bands,
            )
        if self.benchmark is not None:
            return open_benchmark_scene(self.benchmark, self.root, self.on_bad_bands)
        return SimulatedScene(**self.simulated)
