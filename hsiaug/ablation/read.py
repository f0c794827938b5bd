"""The folder of a study, read: its plan, its cells and their statistics."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import read_json
from ..tasks import METRICS
from .results import PLAN_FILE, RESULTS_FILE, read_results, require_fields
from .statistics import Summary, summarise

_RESULT: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(('scene', 'budget', 'classifier', 'arm'), str),
    **dict.fromkeys(('val', 'test'), dict), 'ratio': (int, float), 'seed': int,
}  # fmt: skip
_PLAN: dict[str, type | tuple[type, ...]] = {'title': str, 'arms': list, 'settings': list}


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    plan: dict[str, Any]
    rows: list[dict[str, Any]]
    fidelity: list[dict[str, Any]]
    table: list[Summary]
    metrics: tuple[str, ...] = METRICS


def read_run(run: str | os.PathLike[str]) -> Run:
    """Read a run folder."""
    folder = Path(run).expanduser()
    if not (folder / PLAN_FILE).is_file():
        raise FileNotFoundError(f'{folder} holds no {PLAN_FILE}; give the run folder of hsiaug ablate or hsiaug demo')
    rows = read_results(folder / RESULTS_FILE)
    if not rows:
        raise ValueError(f'{folder} holds no finished cell yet; run hsiaug ablate first')
    for row in rows:
        require_fields(row, _RESULT, f'{folder / RESULTS_FILE}: cell {row["cell"]}')
    plan = read_json(folder / PLAN_FILE, 'the plan of a study')
    require_fields(plan, _PLAN, str(folder / PLAN_FILE))
    try:
        return _read(folder, plan, rows)
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError, ValueError) as error:
        raise ValueError(
            f'{folder}: {PLAN_FILE}, {RESULTS_FILE} and fidelity do not hold what a study writes '
            f'({type(error).__name__}: {str(error)[:200]}); were '
            'they changed, or written by a newer hsiaug?'
        ) from error


def _read(folder: Path, plan: dict[str, Any], rows: list[dict[str, Any]]) -> Run:
    arms = {arm['name']: arm for arm in plan['arms']}
    order = {name: i for i, name in enumerate(arms)}
    settings = {(s[0], s[1]): i for i, s in enumerate(plan['settings'])}

    def place(row: dict[str, Any]) -> tuple[Any, ...]:  # in the file it depends on workers and interruptions
        setting = settings.get((row['scene'], row['budget']), len(settings))
        return setting, row['classifier'], order.get(row['arm'], -1), row['seed'], row['cell']

    def labelled(row: dict[str, Any], arm: dict[str, Any]) -> dict[str, Any]:
        # Whether an arm is a control may be decided after its cells were measured.
        control = arm.get('control', row.get('control', False))
        return {**row, 'control': control, 'default': row['ratio'] == arm.get('default')}

    rows = sorted((labelled(row, arms.get(row['arm'], {})) for row in rows), key=place)
    fidelity = []
    for file in sorted((folder / 'fidelity').glob('*.json')):
        fidelity.append(read_json(file, 'the fidelity of an arm'))
        require_fields(fidelity[-1], dict.fromkeys(('scene', 'budget', 'arm'), str), str(file))
    metrics = tuple(plan.get('metrics', METRICS))
    return Run(plan, rows, fidelity, summarise(rows, metrics), metrics)
