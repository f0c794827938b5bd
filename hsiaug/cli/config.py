"""What commands are given about data, and what ``hsiaug train`` noted: read as data, checked, nothing imported."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from ..ablation.identity import differences
from ..named_configs import read_yaml
from ..records import as_record, json_ready, read_json
from ..scenes import PatchSplit, PatchSplitter, Scene, Split, Splitter, make_splitter
from ..scenes.config import SceneConfig
from .data import DataConfig, noted_data

RUN_FILE = 'run.json'
MOST_VALUES = 100_000
"""Values that a config file may hold, those that its aliases repeat counted each time."""


@dataclass(frozen=True)
class SplitConfig:
    """How to split a scene.

    Args:
        strategy: ``random``, ``halves``, ``blocks`` or ``groups`` for pixels; ``patches`` for image-mask pairs or pairs
            of dates; ``change_patches`` for pairs of dates of which a given share holds change; ``labelled_patches``
            for patches with one label each.
        settings: settings of the strategy, such as ``{fraction: 0.03}``, ``{on_rare: drop}`` or ``{size: 32}``.
    """

    strategy: Literal['random', 'halves', 'blocks', 'groups', 'patches', 'change_patches', 'labelled_patches'] = (
        'random'
    )
    settings: dict[str, Any] = field(default_factory=dict)

    def splitter(self, **settings: Any) -> Splitter | PatchSplitter:
        """The splitter, its settings checked, with further ones."""
        return make_splitter(self.strategy, **{**self.settings, **settings})


SIMULATED, RANDOM = SceneConfig(), SplitConfig()


@dataclass(frozen=True)
class Trained(DataConfig):
    """What ``hsiaug train`` was given: its note of a run, or a config file of that command."""

    scene: SceneConfig = SIMULATED
    split: SplitConfig = RANDOM
    generator: str = 'spectral_gan'
    settings: dict[str, Any] | None = None
    seed: int = 0
    precision: str | None = None
    out: str | None = None
    device: str | None = None
    devices: int = 1
    nodes: int = 1
    content: dict[str, Any] | None = None
    """What the scene held (:attr:`~hsiaug.scenes.Scene.content`); None for datasets, and in older notes."""


def open_split(scene: SceneConfig, split: SplitConfig, seed: int) -> tuple[Scene, Split | PatchSplit]:
    """A scene, opened, and its split, whose settings are checked before."""
    require_fit(scene, split)
    splitter, opened = split.splitter(), scene()
    return opened, splitter(opened, seed)


def require_fit(scene: SceneConfig, split: SplitConfig) -> None:
    """Refuse a split that is not for scenes of so many dates."""
    pairs = ('patches', 'change_patches')
    if scene.dates == 2 and split.strategy not in pairs:
        raise ValueError(
            f'a scene of two dates is split into {" or ".join(pairs)}, found split.strategy {split.strategy}'
        )
    if scene.dates == 1 and split.strategy == 'change_patches':
        raise ValueError('split.strategy change_patches is for scenes of two dates; name the second as scene.second')


def trained_on(run: Path, given: DataConfig = DataConfig(), trust: bool = False) -> tuple[Any, Any]:  # noqa: B008
    """The scene and the split that ``hsiaug train`` noted in the folder of a generator; or datasets and their parts.

    What the command itself says of datasets comes first; ``trust`` imports the classes that the note names.
    """
    return open_noted(read_run(run), given, trust, run / RUN_FILE)


def open_noted(record: Trained, given: DataConfig, trust: bool, file: Path) -> tuple[Any, Any]:
    """What a note of a run names, see :func:`trained_on`."""
    if (data := noted_data(record, given, trust, file)) is not None:
        return data.parts(record.seed)
    opened, split = open_split(record.scene, record.split, record.seed)
    require_unchanged(opened, record, file)
    return opened, split


def require_unchanged(scene: Scene, record: Trained, file: Path) -> None:
    """Refuse a scene whose files, or how they are read, have changed since a run was noted."""
    if record.content is not None and (other := list(differences(record.content, json_ready(scene.content)))):
        raise ValueError(
            f'{scene.name} has changed since {file} noted what was trained on ({"; ".join(other[:4])}); bring it back, '
            'or train again in another folder'
        )


def read_run(run: Path) -> Trained:
    """The note of ``hsiaug train`` in the folder of a generator."""
    if not (run / RUN_FILE).is_file():
        raise FileNotFoundError(f'{run} holds no {RUN_FILE}, which records what it was trained on; use hsiaug train')
    return read_train(run / RUN_FILE)


def real_data(
    real: str | SceneConfig | None,
    split: SplitConfig | None,
    seed: int | None,
    bank: Path,
    given: DataConfig,
    trust: bool,
) -> tuple[Any, Any]:
    """The scene and the split that a bank is compared with; or datasets and their parts."""
    if real is None and given.data is not None:
        return given.parts(seed or 0)
    if real is None:
        raise ValueError(
            f'{bank} is a bank; give --real to compare it with: the folder of its generator, the config file '
            'of hsiaug train, or a scene; or a dataset with --data.class_path'
        )
    if isinstance(real, str) and real.lstrip().startswith('{'):
        real = as_record(SceneConfig, read_yaml(real), '--real')
    if isinstance(real, str):
        file = Path(real) / RUN_FILE if Path(real).is_dir() else Path(real)
        if not file.is_file():
            raise FileNotFoundError(
                f'{file} does not exist; give the folder that hsiaug train wrote, the config file of that command, or '
                'a scene as --real.path and --real.labels'
            )
        named = read_train(file)
        named = replace(named, seed=named.seed if seed is None else seed, split=split or named.split)
        return open_noted(named, given, trust, file)
    return open_split(real, split or RANDOM, seed or 0)


def read_train(file: Path) -> Trained:
    """A config file of ``hsiaug train``; that command's own note of a run is one too."""
    what = f'{file} is not a config file of hsiaug train'
    found = read_config(file, what)
    scene = found.get('scene') if isinstance(found, dict) else None
    # Notes from before a scene could name labels to ignore hold a scale of 1 where none was given.
    if file.name == RUN_FILE and isinstance(scene, dict) and 'ignore' not in scene and scene.get('scale') == 1.0:
        found = {**found, 'scene': {**scene, 'scale': None}}
    return as_record(Trained, found, what)


def read_config(file: Path, what: str) -> Any:
    """What a config file says, in YAML as ``--config`` reads it (1e-4 is a number), or in JSON.

    An error, which begins with ``what``, if it is neither, or aliases make more of it than anybody writes.
    """
    try:
        if file.suffix == '.json':
            found: Any = read_json(file, 'a config file')
        else:
            found = read_yaml(file.read_text(encoding='utf-8'))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f'{what}: {" ".join(str(error).split())[:300]}') from error
    left, seen = [found], 0
    while left:
        value = left.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise ValueError(f'{what}: it holds more than {MOST_VALUES} values')
        value = list(value.values()) if isinstance(value, dict) else value
        left.extend(value if isinstance(value, list | tuple | set) else ())
    return found
