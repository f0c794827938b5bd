"""Gains over real only of the arms of studies, by scene and as the mean over scenes: a record and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsiaug.ablation.environment import measured_with
from hsiaug.ablation.experiment import Columns, records_table
from hsiaug.ablation.plan import REAL
from hsiaug.ablation.results import PLAN_FILE, RESULTS_FILE, read_results
from hsiaug.ablation.statistics import CHOSEN, PairedComparison, Row, mean_of_means, summarise
from hsiaug.records import read_json, write_json
from hsiaug.report.ablation import interval, signed
from hsiaug.report.figures import metric_name

MEAN = 'mean'
"""Replaces the scene in rows of the mean over scenes."""


def gains(rows: Sequence[Row], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Each arm at each ratio against real only, in points of two metrics; after the scenes of a budget, their mean.

    Scenes have equal weight; the intervals hold for these scenes only.
    """
    found, over = [], dict[tuple[str, str, float], dict[str, list[PairedComparison]]]()
    for line in summarise(rows, metrics):
        if line.ratio == CHOSEN:
            continue
        cell = {'scene': line.scene, 'budget': line.budget, 'arm': line.arm, 'ratio': line.ratio}
        falling = [row for row in rows if cell.items() <= row.items() and row.get('still_falls')]
        record: dict[str, Any] = {**cell, 'level': round(line.means[metrics[0]], 2), 'still_falls': len(falling)}
        for metric, gain in zip(metrics, (line.gain, line.second_gain), strict=False):
            if gain is not None:
                record[metric] = {**rounded(gain.mean, gain.interval), 'n': gain.n, 'wins': gain.wins, 'p': gain.p}
                of_arm = over.setdefault((line.budget, line.arm, float(line.ratio)), {})
                of_arm.setdefault(metric, []).append(gain)
        found.append(record)
    for (budget, arm, ratio), by_metric in over.items():
        means = {
            metric: {**rounded(*mean_of_means(each)), 'n': min(gain.n for gain in each)}
            for metric, each in by_metric.items()
        }
        found.append({'scene': MEAN, 'budget': budget, 'arm': arm, 'ratio': ratio, **means})
    return found


def rounded(mean: float, ends: tuple[float, float]) -> dict[str, Any]:
    """A mean and its interval, rounded for records."""
    return {'mean': round(mean, 2), 'interval': [round(end, 2) for end in ends]}


def write_gains(runs: Sequence[Path], out: Path, against: str = REAL, **about: Any) -> str:
    """Write the results so far of studies of one kind to ``out`` with .json and .md; returns the text of the latter.

    Gains are over real only, or ``against`` another arm.
    """
    plans = [read_json(run / PLAN_FILE, 'the plan of a study') for run in runs]
    rows = [row for run in runs for row in read_results(run / RESULTS_FILE)]
    if against != REAL:  # replaces real only
        rows = [{**row, 'arm': REAL if row['arm'] == against else row['arm']} for row in rows if row['arm'] != REAL]
    plan, metrics = plans[0], plans[0]['metrics'][:2]
    table = gains(rows, metrics)
    facts = {key: plan[key] for key in ('title', 'quick', 'command', 'environment', 'seeds', 'arms')}
    facts |= {key: plan['identity'][key] for key in ('kind', 'classifiers')}
    settings = [setting for one in plans for setting in one['settings']]
    record = {**facts, 'settings': settings, **about, 'trainings': len(rows), 'table': table}
    write_json(out.with_suffix('.json'), record)
    first = metric_name(metrics[0])
    base = 'real only' if against == REAL else against
    columns: Columns = {
        'budget': lambda row: row['budget'],
        'arm': lambda row: base if row['arm'] == REAL else f'{row["arm"]}, r = {row["ratio"]:g}',
        'scene': lambda row: row['scene'],
        first: lambda row: row.get('level'),
        **{f'Δ{metric_name(metric)} [95 %]': _gain(metric) for metric in metrics},
        'n': lambda row: row.get(metrics[0], {}).get('n'),
        'wins': lambda row: row.get(metrics[0], {}).get('wins'),
        'p, sign flips': lambda row: row.get(metrics[0], {}).get('p'),
        'still falling': lambda row: row.get('still_falls'),
    }
    text = f'# {plan["title"]}\n\n{measured_with(plan)}\n\nIn points, against {base}.\n\n'
    text += records_table(table, columns)
    out.with_suffix('.md').write_text(text)
    return text


def _gain(metric: str) -> Any:
    def shown(row: dict[str, Any]) -> str | None:
        gain = row.get(metric)
        return None if gain is None else f'{signed(gain["mean"])} {interval(gain["interval"])}'

    return shown
