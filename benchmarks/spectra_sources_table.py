"""Tables of ``spectra_sources.py``: paired differences to real only, per scene and over scenes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from hsiaug.ablation.results import PLAN_FILE, RESULTS_FILE, read_results
from hsiaug.ablation.statistics import paired_comparison
from hsiaug.records import read_json

METRICS = ('oa', 'aa')


def differences(rows: list[dict[str, Any]]) -> dict[tuple[str, str, float], dict[str, np.ndarray]]:
    """(n, 2) differences in points of OA and AA by budget, arm and ratio, and then by scene."""
    real = {(r['scene'], r['budget'], r['seed']): r for r in rows if r['arm'] == 'real'}
    found: dict[tuple[str, str, float], dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda row: row['seed']):
        base = real.get((row['scene'], row['budget'], row['seed']))
        if row['arm'] != 'real' and base is not None:
            gain = [100 * (row['test'][m] - base['test'][m]) for m in METRICS]
            found[row['budget'], row['arm'], row['ratio']][row['scene']].append(gain)
    return {key: {scene: np.array(gains) for scene, gains in of.items()} for key, of in found.items()}


def gain(differences: np.ndarray) -> dict[str, Any]:
    """Mean paired difference, paired-t 95 % interval and n."""
    found = paired_comparison(differences, np.zeros(len(differences)))
    low, high = found.interval
    return {'mean': round(found.mean, 2), 'interval': [round(low, 2), round(high, 2)], 'n': found.n}


def over_scenes(of: dict[str, np.ndarray]) -> dict[str, Any]:
    """The mean over scenes, seed by seed, of the seeds that all scenes have: the interval is of these scenes alone."""
    count = min(len(gains) for gains in of.values())
    return gain(np.mean([gains[:count] for gains in of.values()], axis=0))


def write_tables(out: Path) -> str:
    """Write ``table.json`` and ``table.md`` of a run folder, and return the latter."""
    rows, plan = read_results(out / RESULTS_FILE), read_json(out / PLAN_FILE, 'the plan of a study')
    scenes = list(dict.fromkeys(row['scene'] for row in rows))
    environment = plan['environment']
    table: list[dict[str, Any]] = []
    versions = ', '.join(f'{k} {v}' for k, v in environment['versions'].items())
    lines = [f'# {plan["title"]}', '',
             f'`{plan["command"]}`; {environment["hardware"]}; commit {environment["commit"]}; {versions}.', '',
             'Difference to real only in points, OA and AA, with paired-t 95 % intervals.']  # fmt: skip
    for budget in dict.fromkeys(row['budget'] for row in rows):
        lines += ['', f'## {budget} labels a class', '', '| | ' + ' | '.join([*scenes, 'mean of the scenes']) + ' |']
        lines.append('|---' * (len(scenes) + 2) + '|')
        tests = {
            s: [r['test'] for r in rows if (r['scene'], r['budget'], r['arm']) == (s, budget, 'real')] for s in scenes
        }
        means = ['{:.1f}, {:.1f}'.format(*(100 * np.mean([t[m] for t in tests[s]]) for m in METRICS)) for s in scenes]
        for k, scene in enumerate(scenes):
            alone = {'scene': scene, 'budget': budget, 'arm': 'real'}
            if fell := _falling([row for row in rows if alone.items() <= row.items()]):
                means[k] += f' ▼{fell}'
        lines.append('| real only: OA, AA | ' + ' | '.join(means) + ' | |')
        for (of_budget, arm, ratio), of in differences(rows).items():
            if of_budget != budget:
                continue
            cells = []
            for scene in scenes:
                found = of.get(scene)
                entry: dict[str, Any] = {}
                if found is not None:
                    entry = {m: gain(found[:, k]) for k, m in enumerate(METRICS)}
                    wanted = {'scene': scene, 'budget': budget, 'arm': arm, 'ratio': ratio}
                    entry['still_falls'] = _falling([row for row in rows if wanted.items() <= row.items()])
                cells.append(_cell(entry) if entry else '')
                table.append({'budget': budget, 'arm': arm, 'ratio': ratio, 'scene': scene, **entry})
            mean = {m: over_scenes({s: d[:, k] for s, d in of.items()}) for k, m in enumerate(METRICS)}
            table.append({'budget': budget, 'arm': arm, 'ratio': ratio, 'scene': 'mean', **mean})
            lines.append(f'| {arm}, r = {ratio:g} | ' + ' | '.join([*cells, _cell(mean)]) + ' |')
    lines += ['', '▼: in so many of the trainings the loss still fell at the end.']
    keys = ('title', 'command', 'environment', 'seeds', 'arms', 'settings')
    record = {**{key: plan[key] for key in keys}, 'trainings': len(rows), 'table': table}
    (out / 'table.json').write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n')
    text = '\n'.join(lines) + '\n'
    (out / 'table.md').write_text(text)
    return text


def _cell(entry: dict[str, Any]) -> str:
    def one(found: dict[str, Any]) -> str:
        low, high = found['interval']
        return f'{found["mean"]:+.1f} [{low:+.1f}, {high:+.1f}]'

    fell = f' ▼{entry["still_falls"]}' if entry.get('still_falls') else ''
    return ', '.join(one(entry[m]) for m in METRICS) + f' ({entry["oa"]["n"]}){fell}'


def _falling(rows: list[dict[str, Any]]) -> int:
    return sum(bool(row.get('still_falls')) for row in rows)
