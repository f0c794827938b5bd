"""Collect measured gains of sources into the evidence behind ``ratio='auto'``.

    python benchmarks/collect_evidence.py

Reads ``benchmarks/results`` and writes ``hsiaug/evidence.json``. Only studies with claims are read: of sources
at their defaults on scenes that these were not chosen on, and of learned generators, which were not tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gains import MEAN

from hsiaug.ablation.statistics import MIN_SEEDS
from hsiaug.records import read_json, write_json
from hsiaug.tasks import task_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS, FILE = ROOT / 'benchmarks' / 'results', ROOT / 'hsiaug' / 'evidence.json'
NETWORKS = ('NN-1D on standardised bands', 'NN-1D on decorrelated bands with dropout')
TRUSTED = ('spectral_gan', 'gaussian', 'two_stream_diffusion')


def collect(results: Path) -> list[dict[str, Any]]:
    """All entries."""
    found = []
    for file in sorted(results.glob('spectra_sources/confirm*/table.json')):
        tuned = 'tuned' in file.parent.name
        found += _gains(file, results, network=NETWORKS[tuned])
    for part in ('confirm', 'again'):
        for file in sorted(results.glob(f'region_paste/{part}*.json')):
            found += _gains(file, results, images=read_json(file, 'gains')['windows'])
    found += _trust(results / 'trust/spectrum/summary.json', results, labels_per_class=30.0, network=NETWORKS[True])
    found += _trust(results / 'trust/segmentation/summary.json', results, labels_per_class=None)
    return found


def _gains(file: Path, results: Path, **about: Any) -> Iterator[dict[str, Any]]:
    """Entries from a table of gains.py: each arm at each budget and ratio with enough seeds."""
    record = read_json(file, 'a table of gains')
    arms, kind = {arm['name']: arm for arm in record['arms']}, record.get('kind', 'spectrum')
    metric = task_of(kind).metrics[0]
    for mean in (row for row in record['table'] if row['scene'] == MEAN):
        arm, gain = arms[mean['arm']], mean[metric]
        if arm['control'] or gain['n'] < MIN_SEEDS:
            continue
        same = [
            r for r in record['table'] if all(r[k] == mean[k] for k in ('budget', 'arm', 'ratio')) and r is not mean
        ]
        yield {
            'generator': arm['generator'], 'kind': kind, 'settings': arm['settings'],
            'labels_per_class': float(mean['budget']) if mean['budget'].isdigit() else None,
            'ratio': mean['ratio'], 'synthetic_first': arm['synthetic_first'], 'labels': arm['labels'],
            'metric': metric, 'gain': gain['mean'], 'interval': gain['interval'], 'seeds': gain['n'],
            'scenes': {r['scene']: [r[metric]['mean'], *r[metric]['interval']] for r in same if r is not mean},
            'origin': f'benchmarks/results/{file.relative_to(results)}', **about,
        }  # fmt: skip


def _trust(file: Path, results: Path, **about: Any) -> Iterator[dict[str, Any]]:
    """Of what trust.py wrote, of each generator that nobody tuned."""
    record = read_json(file, 'the summary of trust.py')
    arms, kind = {arm['name']: arm for arm in record['arms']}, file.parent.name
    metric = task_of(kind).metrics[0]
    for name in (name for name in TRUSTED if name in arms):
        for ratio in (1.0, 2.0):
            mine = {'generator': name, 'policy': f'naive, r = {ratio:g}'}
            found = {line['scene']: line[metric] for line in record['table']['lines'] if mine.items() <= line.items()}
            mean = found.pop(MEAN)
            yield {
                'generator': name, 'kind': kind, 'settings': arms[name]['settings'],
                'ratio': ratio, 'synthetic_first': 0.0, 'labels': arms[name]['labels'],
                'metric': metric, 'gain': round(mean['mean'], 2),
                'interval': [round(end, 2) for end in mean['interval']], 'seeds': min(g['n'] for g in found.values()),
                'scenes': {
                    scene: [round(x, 2) for x in (gain['mean'], *gain['interval'])] for scene, gain in found.items()
                },
                'origin': f'benchmarks/results/{file.relative_to(results)}', **about,
            }  # fmt: skip


def main() -> None:
    """Write the file."""
    write_json(FILE, {'evidence': collect(RESULTS)})
    print(f'{len(collect(RESULTS))} entries: {FILE}')


if __name__ == '__main__':
    main()
