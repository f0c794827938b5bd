"""Collect what the results say of sources into the evidence that ``ratio='auto'`` rests on.

    python benchmarks/collect_evidence.py

Reads ``benchmarks/results`` and writes ``hsiaug/evidence.json``. Only studies with claims are read: of sources
at their defaults on scenes that these were not chosen on, and of learned generators, which nobody tuned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy import stats

from hsiaug.ablation.statistics import MIN_SEEDS
from hsiaug.records import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS, FILE = ROOT / 'benchmarks' / 'results', ROOT / 'hsiaug' / 'evidence.json'
NETWORKS = ('NN-1D on standardised bands', 'NN-1D on decorrelated bands with dropout')
TRUSTED = ('spectral_gan', 'gaussian', 'two_stream_diffusion')


def collect(results: Path) -> list[dict[str, Any]]:
    """All entries."""
    confirmed = sorted(file.parent.name for file in results.glob('spectra_sources/confirm*/table.json'))
    sources = (entry for part in confirmed for entry in _sources(results, part))
    return [*sources, *_pasted(results), *_trust(results)]


def _sources(results: Path, part: str) -> list[dict[str, Any]]:
    file = results / 'spectra_sources' / part / 'table.json'
    record = read_json(file, 'a table of spectra_sources.py')
    arms = {arm['name']: arm for arm in record['arms']}
    entries = []
    for mean in record['table']:
        if mean['scene'] != 'mean':
            continue
        same = [r for r in record['table'] if all(r[k] == mean[k] for k in ('budget', 'arm', 'ratio'))]
        arm, oa = arms[mean['arm']], mean['oa']
        entries.append(
            {
                'generator': arm['generator'], 'kind': 'spectrum', 'settings': arm['settings'],
                'labels_per_class': None if mean['budget'] == 'all' else float(mean['budget']),
                'ratio': mean['ratio'], 'synthetic_first': arm['synthetic_first'], 'labels': arm['labels'],
                'metric': 'oa', 'gain': oa['mean'], 'interval': oa['interval'], 'seeds': oa['n'],
                'scenes': {r['scene']: [r['oa']['mean'], *r['oa']['interval']] for r in same if r['scene'] != 'mean'},
                'origin': f'benchmarks/results/spectra_sources/{part}/table.json', 'network': NETWORKS['tuned' in part],
            }
        )  # fmt: skip
    return entries


def _pasted(results: Path) -> list[dict[str, Any]]:
    """Of regions pasted into other images."""
    entries = []
    folder = results / 'region_paste'
    for file in [*sorted(folder.glob('confirm*.json')), *sorted(folder.glob('again*.json'))]:
        entries += _pasted_in(read_json(file, 'a table of region_paste.py'), file.name)
    return entries


def _pasted_in(record: dict[str, Any], name: str) -> list[dict[str, Any]]:
    arms = {arm['name']: arm for arm in record['arms']}
    entries = []
    for row in (row for row in record['table'] if row['scene'] == 'mean' and not arms[row['arm']]['control']):
        key = next(key for key in ('gain_miou', 'gain_f1') if key in row)  # the latter of changes
        arm, gain = arms[row['arm']], row[key]
        if gain['n'] < MIN_SEEDS:
            continue
        same = [r for r in record['table'] if all(r[k] == row[k] for k in ('kind', 'arm', 'ratio')) and r is not row]
        entries.append(
            {
                'generator': arm['generator'], 'kind': row['kind'], 'settings': arm['settings'],
                'labels_per_class': None, 'ratio': row['ratio'], 'synthetic_first': 0.0, 'labels': arm['labels'],
                'metric': key.removeprefix('gain_'), 'gain': gain['mean'], 'interval': gain['interval'],
                'seeds': gain['n'], 'scenes': {r['scene']: [r[key]['mean'], *r[key]['interval']] for r in same},
                'origin': f'benchmarks/results/region_paste/{name}', 'images': record['windows'],
            }
        )  # fmt: skip
    return entries


def _trust(results: Path) -> list[dict[str, Any]]:
    record = read_json(results / 'trust' / 'trust.json', 'the tables of trust.py')
    arms = {arm['name']: arm for plan in record['plans'].values() for arm in plan['arms']}
    entries = []
    for name in TRUSTED:
        for ratio in (1.0, 2.0):
            policy = f'naive, r = {ratio:g}'
            lines = [r for r in record['lines'] if r['generator'] == name and r['policy'] == policy]
            gains = [line['gain'] for line in lines]
            # Seeds of different scenes have nothing in common but their number.
            error = sum(g['sd'] ** 2 / g['n'] for g in gains) ** 0.5 / len(gains)
            mean, n = sum(g['mean'] for g in gains) / len(gains), min(g['n'] for g in gains)
            wide = float(stats.t.ppf(0.975, n - 1)) * error
            few = lines[0]['kind'] == 'spectrum'
            entries.append(
                {
                    'generator': name, 'kind': lines[0]['kind'], 'settings': arms[name]['settings'],
                    'labels_per_class': 30.0 if few else None, 'ratio': ratio, 'synthetic_first': 0.0,
                    'labels': arms[name]['labels'], 'metric': lines[0]['metrics'][0], 'gain': round(mean, 2),
                    'interval': [round(mean - wide, 2), round(mean + wide, 2)], 'seeds': n,
                    'scenes': {line['scene']: [round(x, 2) for x in (gain['mean'], *gain['interval'])]
                               for line, gain in zip(lines, gains, strict=True)},
                    'origin': 'benchmarks/results/trust/trust.json',
                }
            )  # fmt: skip
    return entries


def main() -> None:
    """Write the file."""
    write_json(FILE, {'evidence': collect(RESULTS)})
    print(f'{len(collect(RESULTS))} entries: {FILE}')


if __name__ == '__main__':
    main()
