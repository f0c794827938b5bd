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
    # File order depends on workers and interruptions; the report must not.
    rows.sort(key=lambda row: row['cell'])
    # Whether an arm is a control is a matter of the report, which may be decided after its cells were measured.
    controls = {arm['name']: arm['control'] for arm in plan['arms'] if 'control' in arm}
    defaults = {arm['name']: arm.get('default') for arm in plan['arms']}
    rows = [
        {**row, 'control': controls.get(row['arm'], row.get('control', False)),
         'default': row['ratio'] == defaults.get(row['arm'])}
        for row in rows
    ]  # fmt: skip
    order = {arm['name']: i for i, arm in enumerate(plan['arms'])}
    settings = {(s[0], s[1]): i for i, s in enumerate(plan['settings'])}

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        setting = settings.get((row['scene'], row['budget']), len(settings))
        return setting, row['classifier'], order.get(row['arm'], -1), row['seed']

    rows.sort(key=place)
    fidelity = []
    for file in sorted((folder / 'fidelity').glob('*.json')):
        fidelity.append(read_json(file, 'the fidelity of an arm'))
        require_fields(fidelity[-1], dict.fromkeys(('scene', 'budget', 'arm'), str), str(file))
    metrics = tuple(plan.get('metrics', METRICS))
    return Run(plan, rows, fidelity, summarise(rows, metrics), metrics)
