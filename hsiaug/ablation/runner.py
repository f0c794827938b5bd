"""Run a study: resumable, in local processes or on a Ray cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..datasets.own.parts import AnyScene
from ..records import read_json, short_digest, write_json
from ..systems.fit import require_settings
from ..tasks.base import finite
from ..trainers.inception import said_of_inception
from ..workers import Engine, check_workers, naming, run_tasks
from .cells import Group
from .environment import command
from .environment import environment as environment
from .experiment import measure_each, work_through
from .identity import differences, require_same_study, study_identity
from .plan import Arm, Setting, Study, arm_identity, splitter_identity
from .results import PLAN_FILE, RESULTS_FILE, file_stem, read_results


def run_study(
    study: Study,
    out: str | os.PathLike[str],
    workers: int = 1,
    engine: Engine = 'process',
    device: str = 'cpu',
    progress: bool = True,
) -> Path:
    """Run the missing cells of a study.

    Every finished cell is one line of ``results.jsonl``. An interrupted run loses at most the cells being trained;
    repeat the call to resume it. The result of a cell does not depend on workers, engine or interruptions.

    Args:
        study: the study.
        out: run folder.
        workers: number of parallel processes (or Ray tasks), one thread each; 1 runs in this process.
        engine: ``'process'`` or ``'ray'`` (needs the ``ray`` extra and a run folder on a shared file system).
        device: device to train on.
        progress: show a progress bar with an estimate of the remaining time.

    Returns:
        the run folder.

    Raises:
        ValueError: if the folder holds results of another study, naming what differs, or files that are not part of a
            study; or if a cell has no result, naming it.
        KeyboardInterrupt: if interrupted; all workers have ended and finished cells are recorded.
    """
    check_workers('run_study', workers, engine)
    folder = Path(out).expanduser().absolute()
    study = replace(study)  # opens its scenes anew: a file may have changed since cells were listed
    for arm in study.arms:
        with naming(f'arm {arm.name!r}'):  # before anything is trained for hours
            require_settings(arm.generator, arm.settings, study.kind)
    planned = {cell.key for cell in study.all_cells()}
    rows = read_results(folder / RESULTS_FILE)
    done = {row['cell'] for row in rows}
    if done:
        require_same_study(study, folder, len(done))
        if not done & planned:
            raise ValueError(
                f'{folder} holds {len(done)} results of another study, none of this one; choose another folder, or the '
                'config that it was started with'
            )
    write_json(folder / PLAN_FILE, describe(study, device, workers))
    pending = [
        (setting, seed)
        for setting, seed in study.groups()
        if any(cell.key not in done for cell in study.cells(setting, seed)) or unmeasured(study, setting, seed, folder)
    ]
    tasks = run_tasks(run_group, [(*one, folder, device) for one in pending], (study,), workers, engine, device)
    work_through(tasks, study.title, len(planned - done), progress)
    return folder


def run_group(study: Study, setting: Setting, seed: int, folder: Path, device: str) -> Iterator[int]:
    """Run the missing cells of one group, yielding 1 as each is recorded, and measure the fidelity of its arms."""
    done = {row['cell'] for row in read_results(folder / RESULTS_FILE)}
    cells = [cell for cell in study.cells(setting, seed) if cell.key not in done]
    fresh = {cell.arm.name for cell in cells if cell.arm is not None}
    missing = unmeasured(study, setting, seed, folder, fresh)
    if not cells and not missing:
        return
    group = open_group(study, setting, seed, folder, device)
    yield from measure_each(
        folder / RESULTS_FILE, ((str(cell), partial(group.run, cell, study.metrics)) for cell in cells)
    )
    for arm, file in missing:
        with naming(f'{setting.scene}, {setting.budget}, fidelity of arm {arm.name!r}, seed {seed}'):
            record = group.measure_fidelity(arm)
        write_json(file, {**finite(record), 'key': _fidelity_key(study, setting, seed, arm)})


def open_group(study: Study, setting: Setting, seed: int, folder: Path, device: str = 'cpu') -> Group:
    """One split of one scene and everything that its cells share; the first seed's group keeps data for figures."""
    keep = seed == study.seeds[0]
    group = Group(_open(study, setting.scene), setting, seed, folder, device, keep, study.inception)
    if group.task is not study.task:
        raise ValueError(
            f'{setting.scene}, {setting.budget}: samples of kind {group.task.kind!r}, but '
            f'{study.classifiers[0].name!r} works on {study.kind!r}; choose among {list(group.task.models)}'
        )
    return group


def fidelity_files(study: Study, setting: Setting, seed: int, folder: Path) -> list[tuple[Arm, Path]]:
    """The arms of one group whose fidelity is measured, and the files; of arms that share a generator, the first."""
    if seed not in study.seeds[: study.fidelity_seeds]:
        return []
    arms: dict[str, Arm] = {}
    for cell in study.cells(setting, seed):
        if cell.arm is not None:
            arms.setdefault(json.dumps([cell.arm.generator, cell.arm.settings], sort_keys=True), cell.arm)
    return [(arm, folder / 'fidelity' / file_name(setting, f'{arm.name}-{seed}', 'json')) for arm in arms.values()]


def unmeasured(
    study: Study, setting: Setting, seed: int, folder: Path, fresh: Collection[str] = ()
) -> list[tuple[Arm, Path]]:
    """The arms of one group whose fidelity is still to be measured, and the files.

    Those are ``fresh`` ones, and all whose file is missing or belongs to another generator or scene.
    """

    def known(arm: Arm, file: Path) -> bool:
        if arm.name in fresh or not file.exists():
            return False
        return read_json(file, 'the fidelity of an arm').get('key') == _fidelity_key(study, setting, seed, arm)

    return [(arm, file) for arm, file in fidelity_files(study, setting, seed, folder) if not known(arm, file)]


def _fidelity_key(study: Study, setting: Setting, seed: int, arm: Arm) -> str:
    decides = [study.scene_content(setting.scene), splitter_identity(setting), seed, arm.generator, arm.settings]
    return short_digest(decides if study.inception is None else [*decides, study.inception.name])


def file_name(setting: Setting, name: str, suffix: str, prefix: str = '') -> str:
    """A unique file name for something of one setting."""
    return f'{prefix}{file_stem(setting.scene, setting.budget, name)}.{suffix}'


_opened: tuple[Study, str, AnyScene] | None = None


def _open(study: Study, name: str) -> AnyScene:
    global _opened
    if _opened is None or _opened[0] is not study or _opened[1] != name:
        _opened = None  # one scene in memory
        scene = study.scenes[name]()
        planned = study.scene_content(name)
        if scene.content != planned:
            raise ValueError(
                f'scene {name!r} has changed since the study was planned: '
                + '; '.join(differences(planned, scene.content))
            )
        _opened = study, name, scene
    return _opened[2]


def describe(study: Study, device: str, workers: int) -> dict[str, Any]:
    """The plan for the report: what was asked for, on which machine, by which command."""
    inception = study.inception
    features = '' if inception is None else f'Fréchet distances of images are of {said_of_inception(inception)}.'
    return {
        'title': study.title,
        'quick': study.quick,
        'command': command(),
        'environment': environment(device),
        'workers': workers,
        'metrics': list(study.metrics),
        'baseline': 'real',
        'notes': [note for note in (study.task.note, features) if note],
        'scenes': sorted({s.scene for s in study.settings}),
        'settings': [[s.scene, s.budget, type(s.splitter).__name__] for s in study.settings],
        'identity': study_identity(study),
        'arms': [{'name': a.name, **{k: v for k, v in arm_identity(a).items() if k != 'type'}, 'control': a.control,
                  'default': a.default}
                 for a in study.arms],
        'ratios': list(study.ratios),
        'seeds': list(study.seeds),
        'classifiers': [c.name for c in study.classifiers],
        'cells': len(study.all_cells()),
    }  # fmt: skip
