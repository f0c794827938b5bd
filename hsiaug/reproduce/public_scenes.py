"""Public scenes that several papers are measured on, and the one that stands in for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..scenes import BENCHMARK_SCENES
from ..scenes.config import SceneConfig
from .base import Files

STANDS_IN = 'Salinas-A'


def scene_files(scenes: Mapping[str, str]) -> tuple[Files, ...]:
    """The files of benchmark scenes, by the paper's names for them, and of the one that stands in."""
    known = {name: BENCHMARK_SCENES[key] for name, key in scenes.items()}
    return (
        *(Files(name, (scene.cube_file, scene.labels_file), scene.url) for name, scene in known.items()),
        Files(STANDS_IN, ('salinas_a.npz',), BENCHMARK_SCENES['salinas_a'].url, stands_in=True),
    )


def scene_config(name: str, file: Path, scenes: Mapping[str, str]) -> SceneConfig:
    """How one of them is opened, of which a file was found."""
    if name in scenes:
        return SceneConfig(benchmark=scenes[name], root=str(file.parent))
    return SceneConfig(path=str(file), labels_key='gt', name=name, on_bad_bands='drop')
