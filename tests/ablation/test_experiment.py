"""Experiments: every cell once, resumable, refused in another's folder; their tables."""

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest

from hsiaug.ablation import Experiment
from hsiaug.ablation.experiment import markdown_table, means, means_table
from hsiaug.ablation.results import read_results
from hsiaug.json_lines import append_line


@dataclass(frozen=True)
class Cell:
    scene: str
    seed: int
    method: str = 'square'


@lru_cache(maxsize=1)
def opened(log: Path, scene: str, seed: int) -> int:
    """What cells of one scene and seed share."""
    append_line(log / 'opened.jsonl', {'cell': f'{scene}{seed}'})
    return 10 * seed


def measure(cell: Cell, log: Path) -> dict[str, Any]:
    if cell.method == 'fails':
        raise ValueError('no value')
    append_line(log / 'measured.jsonl', {'cell': f'{cell}'})
    return {'value': opened(log, cell.scene, cell.seed) + len(cell.method)}


def experiment(log: Path, seeds: int = 2, **changes: Any) -> Experiment:
    cells = [Cell(scene, seed, method) for seed in range(seeds) for scene in 'ab' for method in ('square', 'cube')]
    made = Experiment('test', cells, partial(measure, log=log), {'steps': 3}, lambda cell: (cell.scene, cell.seed))
    return replace(made, **changes)


def measured(log: Path) -> int:
    return len((log / 'measured.jsonl').read_text().splitlines())


@pytest.mark.usefixtures('forked')
@pytest.mark.parametrize('workers', [1, 2])
def test_every_cell_is_measured_once_and_groups_share(tmp_path: Path, workers: int) -> None:
    opened.cache_clear()
    rows = experiment(tmp_path).run(tmp_path / 'run', workers, progress=False)
    assert [(row['scene'], row['seed'], row['method'], row['value']) for row in rows] == [
        (scene, seed, method, 10 * seed + len(method))
        for seed in (0, 1)
        for scene in 'ab'
        for method in ('square', 'cube')
    ]
    assert len({row['cell'] for row in rows}) == 8
    assert len((tmp_path / 'opened.jsonl').read_text().splitlines()) == 4


def test_a_failure_names_its_cell_and_keeps_what_is_done(tmp_path: Path) -> None:
    some = experiment(tmp_path)
    broken = replace(some, cells=[*some.cells[:3], Cell('c', 7, 'fails'), *some.cells[3:]])
    with pytest.raises(ValueError, match=r"Cell\(scene='c', seed=7, method='fails'\): no value"):
        broken.run(tmp_path / 'run', progress=False)
    kept = len(read_results(tmp_path / 'run' / 'results.jsonl'))
    assert 3 <= kept < 8
    assert len(some.run(tmp_path / 'run', progress=False)) == measured(tmp_path) == 8


def test_a_run_is_resumed_and_extended(tmp_path: Path) -> None:
    experiment(tmp_path).run(tmp_path / 'run', progress=False)
    file = tmp_path / 'run' / 'results.jsonl'
    file.write_bytes(file.read_bytes()[:-20])  # a kill tears the last line off
    assert len(experiment(tmp_path).run(tmp_path / 'run', progress=False)) == 8
    assert measured(tmp_path) == 9
    assert len(experiment(tmp_path, 3).run(tmp_path / 'run', progress=False)) == 12
    assert measured(tmp_path) == 13
    assert len(experiment(tmp_path, 1).records(tmp_path / 'run')) == 4  # of these cells alone


def test_a_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    experiment(tmp_path).run(tmp_path / 'run', progress=False)
    with pytest.raises(ValueError, match=r'8 results of another experiment.*\n  settings.steps: there 3, here 4'):
        experiment(tmp_path, settings={'steps': 4}).run(tmp_path / 'run', progress=False)
    with pytest.raises(ValueError, match="title: there 'test', here 'other'"):
        experiment(tmp_path, title='other').run(tmp_path / 'run', progress=False)
    (tmp_path / 'run' / 'plan.json').unlink()
    with pytest.raises(ValueError, match=r'no plan\.json that says of which experiment'):
        experiment(tmp_path).run(tmp_path / 'run', progress=False)
    with pytest.raises(ValueError, match="unknown engine 'threads'"):
        experiment(tmp_path).run(tmp_path / 'run', engine='threads')  # type: ignore[arg-type]


def test_the_summary_says_how_it_was_measured(tmp_path: Path) -> None:
    some = experiment(tmp_path, about={'budget': 30})
    table = means(some.run(tmp_path, progress=False), ('method',), ('value',))
    text = some.write(
        tmp_path, markdown_table(['method', 'value'], [(row['method'], row['value']) for row in table]), table
    )
    assert (tmp_path / 'table.md').read_text() == text
    assert text.startswith('# test\n\n`')
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['budget'] == 30
    assert summary['identity']['settings'] == {'steps': 3}
    assert {'hardware', 'commit', 'versions'} <= set(summary['environment'])
    assert summary['table'] == table


def test_means_are_over_what_is_not_kept() -> None:
    rows = [{'scene': 'a', 'x': value, 'y': None} for value in (1.0, 2.0, 3.0)] + [{'scene': 'b', 'x': 5.0, 'y': 1}]
    first, second = means(rows, ['scene'], ['x', 'y'])
    assert (first['scene'], first['n'], first['x']['mean'], 'y' in first) == ('a', 3, 2.0, False)
    half = 4.302652729911275 / math.sqrt(3)  # of Student's t with two degrees of freedom
    assert (first['x']['low'], first['x']['high']) == pytest.approx((2 - half, 2 + half))
    assert math.isnan(second['x']['low'])
    assert means_table((first, second), ['scene'], {'x': 'X', 'y': 'Y'}) == (
        '| scene | seeds | X | Y |\n| --- | --- | --- | --- |\n| a | 3 | 2 ± 2.5 | – |\n| b | 1 | 5 | 1 |\n'
    )
