"""Run a study: resumable, in local processes or on a Ray cluster."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from .. import __version__
from ..progress import progress_bar
from ..records import read_json, short_digest, write_json
from ..samples import LeakageError
from ..scenes import Scene
from ..settings import check_value
from ..tasks.base import finite
from .cells import Group
from .identity import differences, require_same_study, study_identity
from .names import file_stem
from .plan import Arm, Setting, Study, arm_identity, splitter_identity
from .results import PLAN_FILE, RESULTS_FILE, append_result, read_results
from .workers import run_in_processes

Engine = Literal['process', 'ray']


def run_study(
    study: Study,
    out: str | os.PathLike[str],
    workers: int = 1,
    engine: Engine = 'process',
    device: str = 'cpu',
    progress: bool = True,
) -> Path:
    """Run what is still missing of a study.

    Every finished cell is one line of ``results.jsonl``; a killed run loses at most the cells in hand, and the same
    call resumes it. A cell's result doesn't depend on workers, engine or interruptions.

    Args:
        study: what to measure.
        out: run folder.
        workers: processes (or Ray tasks) at once, one thread each; 1 runs in this process.
        engine: ``'process'`` or ``'ray'`` (the ``ray`` extra; the run folder must be on a shared file system).
        device: where to train.
        progress: show a progress bar with an estimate.

    Returns:
        the run folder.

    Raises:
        ValueError: if the folder holds results of another study, naming what differs, or files that are no part of a
            study; or if a cell has no result, naming it.
        KeyboardInterrupt: if it is interrupted, with all workers ended and finished cells recorded.
    """
    if engine not in ('process', 'ray'):
        raise ValueError(f"unknown engine {engine!r}; choose from 'process', 'ray'")
    check_value('run_study', 'workers', workers, int)
    folder = Path(out).absolute()
    study = replace(study)  # which opens its scenes anew: a file may have changed since it was asked for cells
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
    missing = len(planned - done)
    with (
        progress_bar(progress, total=missing, unit='cell', desc=study.title, smoothing=0.05) as advance,
        closing(_engine(engine, workers)(study, pending, folder, device, workers)) as running,
    ):
        for finished in running:
            advance(finished)
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
    for cell in cells:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise SystemExit('the study was killed')  # an orphan must not race with the restarted study
        with naming(str(cell)):
            row = group.run(cell, study.metrics)
        append_result(folder / RESULTS_FILE, row)
        yield 1
    for arm, file in missing:
        with naming(f'{setting.scene}, {setting.budget}, fidelity of arm {arm.name!r}, seed {seed}'):
            record = group.measure_fidelity(arm)
        write_json(file, {**finite(record), 'key': _fidelity_key(study, setting, seed, arm)})


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Errors of one training or measurement say which of a study's it was.

    Raises:
        ValueError: instead of one, or of an error in numbers or of torch, that is raised inside.
    """
    try:
        yield
    except LeakageError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f'{what}: {error}') from error
    except RuntimeError as error:  # torch's; it may be a bug, so it stays one
        raise RuntimeError(f'{what}: {error}') from error


def open_group(study: Study, setting: Setting, seed: int, folder: Path, device: str = 'cpu') -> Group:
    """One split of one scene, and everything that its cells share; the first seed's keeps what figures show.

    Raises:
        ValueError: if the scene gives samples of another kind than the downstream models work on.
    """
    group = Group(_open(study, setting.scene), setting, seed, folder, device, keep=seed == study.seeds[0])
    if group.task is not study.task:
        raise ValueError(
            f'{setting.scene}, {setting.budget}: samples of kind {group.task.kind!r}, but '
            f'{study.classifiers[0].name!r} works on {study.kind!r}; choose among {list(group.task.models)}'
        )
    return group


def fidelity_files(study: Study, setting: Setting, seed: int, folder: Path) -> list[tuple[Arm, Path]]:
    """The arms of one group whose fidelity is measured, and where; of arms that share a generator the first."""
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
    """The arms of one group whose fidelity is still to be measured, and where.

    Those are the ``fresh`` ones, and all whose file is missing or of another generator or scene.

    Raises:
        ValueError: if a file is no record of fidelity, naming it.
    """

    def known(arm: Arm, file: Path) -> bool:
        if arm.name in fresh or not file.exists():
            return False
        return read_json(file, 'the fidelity of an arm').get('key') == _fidelity_key(study, setting, seed, arm)

    return [(arm, file) for arm, file in fidelity_files(study, setting, seed, folder) if not known(arm, file)]


def _fidelity_key(study: Study, setting: Setting, seed: int, arm: Arm) -> str:
    decides = [study.scene_content(setting.scene), splitter_identity(setting), seed, arm.generator, arm.settings]
    return short_digest(decides)


def file_name(setting: Setting, name: str, suffix: str, prefix: str = '') -> str:
    """A file name for something of one setting, another for every name."""
    return f'{prefix}{file_stem(setting.scene, setting.budget, name)}.{suffix}'


_opened: tuple[Study, str, Scene] | None = None


def _open(study: Study, name: str) -> Scene:
    global _opened
    if _opened is None or _opened[0] is not study or _opened[1] != name:
        _opened = None  # one scene in memory at a time
        scene = study.scenes[name]()
        planned = study.scene_content(name)
        if scene.content != planned:
            raise ValueError(
                f'scene {name!r} has changed since the study was planned: '
                + '; '.join(differences(planned, scene.content))
            )
        _opened = study, name, scene
    return _opened[2]


_worker_study: Study | None = None


def _start_worker(study: Study) -> None:
    global _worker_study
    _worker_study = study


def _group_in_worker(setting: Setting, seed: int, folder: Path, device: str) -> int:
    assert _worker_study is not None
    return sum(run_group(_worker_study, setting, seed, folder, device))


Groups = list[tuple[Setting, int]]


def _in_process(study: Study, groups: Groups, folder: Path, device: str, workers: int) -> Iterator[int]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker: sums over threads differ in the last bits
    try:
        for setting, seed in groups:
            yield from run_group(study, setting, seed, folder, device)
    finally:
        torch.set_num_threads(threads)


def _in_pool(study: Study, groups: Groups, folder: Path, device: str, workers: int) -> Iterator[int]:
    tasks = [(setting, seed, folder, device) for setting, seed in groups]
    return run_in_processes(_group_in_worker, tasks, workers, _start_worker, (study,))


def _on_ray(study: Study, groups: Groups, folder: Path, device: str, workers: int) -> Iterator[int]:
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine 'ray' needs the extra: pip install 'hsiaug[ray]'") from error
    if not ray.is_initialized():
        ray.init(num_cpus=None if 'RAY_ADDRESS' in os.environ else workers, log_to_driver=False)

    @ray.remote(num_cpus=1, num_gpus=1 if device.startswith('cuda') else 0)  # type: ignore[untyped-decorator]
    def remote(shared: Study, setting: Setting, seed: int) -> int:
        torch.set_num_threads(1)
        return sum(run_group(shared, setting, seed, folder, device))

    shared = ray.put(study)
    waiting = [remote.remote(shared, setting, seed) for setting, seed in groups]
    while waiting:
        ready, waiting = ray.wait(waiting)
        yield from (int(n) for n in ray.get(ready))


def _engine(engine: Engine, workers: int) -> Any:
    if engine == 'ray':
        return _on_ray
    return _in_pool if workers > 1 else _in_process


def describe(study: Study, device: str, workers: int) -> dict[str, Any]:
    """The plan as the report needs it: what was asked for, on which machine, by which command."""
    return {
        'title': study.title,
        'quick': study.quick,
        'command': shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        'environment': environment(device),
        'workers': workers,
        'metrics': list(study.metrics),
        'baseline': 'real',
        'notes': [study.task.note] if study.task.note else [],
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


def environment(device: str = 'cpu') -> dict[str, Any]:
    """Hardware, versions and commit that a figure was measured with."""
    versions = {'hsiaug': __version__, 'python': platform.python_version()}
    for package in ('torch', 'torchgeo', 'numpy', 'scipy', 'scikit-learn', 'lightning'):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = 'not installed'
    return {'hardware': _hardware(device), 'device': device, 'versions': versions, 'commit': _commit()}


def _hardware(device: str) -> str:
    if device.startswith('cuda') and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(device))
    model = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next(line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        pass
    return f'{model}, {os.cpu_count()} cores'


def _commit() -> str:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ['git', 'describe', '--always', '--dirty'], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
    return done.stdout.strip() or 'unknown'
