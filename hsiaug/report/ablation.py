"""The report of a study: Markdown, figures and one self-contained page."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ..ablation.results import PLAN_FILE, RESULTS_FILE, read_results
from ..ablation.statistics import CHOSEN, MIN_SEEDS, PairedComparison, Summary, pooled, summarise
from .figures import chosen_ratios, class_gains, ratio_curves


@dataclass(frozen=True)
class ReportPaths:
    """Files of a report."""

    markdown: Path
    html: Path
    figures: tuple[Path, ...]


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    plan: dict[str, Any]
    rows: list[dict[str, Any]]
    fidelity: list[dict[str, Any]]
    table: list[Summary]


def read_run(run: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Raises:
        FileNotFoundError: if there is no such folder, or it holds no study.
        ValueError: if no cell is finished yet.
    """
    folder = Path(run)
    if not (folder / PLAN_FILE).is_file():
        raise FileNotFoundError(f'{folder} holds no {PLAN_FILE}; give the run folder of hsiaug ablate or hsiaug demo')
    rows = read_results(folder / RESULTS_FILE)
    if not rows:
        raise ValueError(f'{folder} holds no finished cell yet; run hsiaug ablate first')
    # File order depends on workers and interruptions; the report must not.
    rows.sort(key=lambda row: row['cell'])
    plan = json.loads((folder / PLAN_FILE).read_text())
    order = {arm['name']: i for i, arm in enumerate(plan['arms'])}
    settings = {(s[0], s[1]): i for i, s in enumerate(plan['settings'])}

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        setting = settings.get((row['scene'], row['budget']), len(settings))
        return setting, row['classifier'], order.get(row['arm'], -1), row['seed']

    rows.sort(key=place)
    fidelity = [json.loads(file.read_text()) for file in sorted((folder / 'fidelity').glob('*.json'))]
    return Run(plan, rows, fidelity, summarise(rows))


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign, or a dash."""
    return '–' if value is None or value != value else f'{value:+.{digits}f}'


def interval(pair: tuple[float, float] | None) -> str:
    """An interval, or a dash."""
    return '–' if pair is None or pair[0] != pair[0] else f'[{signed(pair[0])}, {signed(pair[1])}]'


def _ratio(line: Summary) -> str:
    return CHOSEN if line.ratio == CHOSEN else f'{line.ratio:g}'


def _cells(line: Summary) -> list[str]:
    d_oa, d_aa = line.d_oa, line.d_aa
    return [
        line.arm + (' (control)' if line.control else ''),
        _ratio(line),
        f'{line.oa:.2f}',
        signed(d_oa.mean) if d_oa else '–',
        interval(d_oa.interval) if d_oa else '–',
        interval(d_oa.bca) if d_oa else '–',
        interval(d_oa.corrected) if d_oa else '–',
        f'{d_oa.p:.4f}' if d_oa else '–',
        f'{line.p_holm:.4f}' if line.p_holm is not None else '–',
        f'{line.aa:.2f}',
        signed(d_aa.mean) if d_aa else '–',
        interval(d_aa.interval) if d_aa else '–',
        f'{100 * line.kappa / 100:.2f}',
        str(d_oa.n if d_oa else len(line.ratios)),
    ]


HEADER = (
    'arm', 'ratio', 'OA %', 'ΔOA', '95 % t', '95 % BCa', '95 % Nadeau–Bengio', 'p sign-flip', 'p Holm', 'AA %', 'ΔAA',
    '95 % t (AA)', 'kappa %', 'seeds',
)  # fmt: skip


def _verdict(table: Sequence[Summary]) -> str:
    """What the primary family says, in a sentence or two."""
    primary = [line for line in table if line.primary and line.d_oa is not None]
    enough = [line for line in primary if line.d_oa is not None and line.d_oa.basis_for_claims]
    if not enough:
        return f'No arm has {MIN_SEEDS} paired seeds: nothing here is a basis for claims.'

    def named(lines: list[Summary]) -> str:
        return '; '.join(f'{x.arm} on {x.scene}, {x.budget} ({signed(x.d_oa.mean)})' for x in lines if x.d_oa)

    significant = [x for x in enough if x.p_holm is not None and x.p_holm <= 0.05]
    better = [x for x in significant if x.d_oa and x.d_oa.mean > 0]
    worse = [x for x in significant if x.d_oa and x.d_oa.mean < 0]
    gain = f'Significantly above real only (Holm, 5 %): {named(better)}.' if better else (
        'No arm is significantly above real only: no gain was found.'
    )  # fmt: skip
    return gain + (f' Significantly below: {named(worse)}.' if worse else ' None is significantly below.')


def _fidelity_rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for r in records:
        svm = [f'{100 * r["svm"][k]:.1f}' for k in ('real_real', 'real_fake', 'fake_fake', 'fake_real')]
        share = f'{100 * r["authenticity_share_closer"]:.0f} %'
        ratios = [f'{r["std_ratio"]:.2f}', f'{r["roughness_ratio"]:.2f}']
        rows.append([r['scene'], r['budget'], r['arm'], f'{r["msad"]:.4f}', *ratios, *svm, share])
    return rows


def _context(run: Run) -> dict[str, Any]:
    sections = []
    for key in dict.fromkeys((line.scene, line.budget, line.classifier) for line in run.table):
        lines = [line for line in run.table if (line.scene, line.budget, line.classifier) == key]
        here = [row for row in run.rows if (row['scene'], row['budget'], row['classifier']) == key]
        dropped = sorted({note for row in here for note in row.get('dropped', ())})
        chosen = [json.dumps(r['setting'], sort_keys=True) for r in here if r['arm'] == 'real' and 'setting' in r]
        sections.append(
            {
                'title': f'{key[0]}, {key[1]}, {key[2]}',
                'rows': [_cells(line) for line in lines],
                'dropped': dropped[:6] + ([f'and {len(dropped) - 6} more'] if len(dropped) > 6 else []),
                'settings': [f'{s} ({chosen.count(s)} seeds)' for s in dict.fromkeys(sorted(chosen))],
            }
        )
    means = []
    for (budget, arm), mean in pooled(run.table, CHOSEN).items():
        each = ', '.join(f'{name} {signed(d_oa)}' for name, (d_oa, _) in mean['scenes'].items())
        means.append([budget, arm, signed(mean['oa']), signed(mean['aa']), each])
    seeds = min((line.d_oa.n for line in run.table if line.d_oa), default=0)
    return {
        'plan': run.plan,
        'environment': run.plan.get('environment', {}),
        'quick': bool(run.plan.get('quick')) or seeds < MIN_SEEDS,
        'seeds': seeds,
        'finished': len(run.rows),
        'verdict': _verdict(run.table),
        'header': list(HEADER),
        'sections': sections,
        'means': means,
        'fidelity': _fidelity_rows(run.fidelity),
        'min_seeds': MIN_SEEDS,
    }


def _markdown_cell(value: object) -> str:
    return str(value).replace('|', '\\|').replace('<', '&lt;').replace('\n', ' ')


def _figures(run: Run) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    if any(line.d_oa is not None for line in run.table):
        figures['ratio_curves'] = ratio_curves(run.table)
        arms = list(dict.fromkeys(line.arm for line in run.table if line.ratio == CHOSEN and not line.control))
        if arms:
            figures['class_gains'] = class_gains(run.rows, arms)
            figures['chosen_ratios'] = chosen_ratios(run.table)
    return figures


CAPTIONS = {
    'ratio_curves': 'Difference in overall accuracy to real only, with paired-t 95 % intervals.',
    'class_gains': 'Mean difference in recall per class, in points, at the ratio chosen on validation data.',
    'chosen_ratios': 'Ratios that validation chose; 0 is real only.',
}


def write_report(run: str | os.PathLike[str]) -> ReportPaths:
    """Write ``report.md``, ``report.html`` and ``figures/`` into a run folder.

    The page holds its figures itself and asks nothing of the network.

    Raises:
        FileNotFoundError: if the folder holds no study.
        ValueError: if no cell is finished yet.
    """
    folder, content = Path(run), read_run(run)
    context = _context(content)
    images, paths = [], []
    (folder / 'figures').mkdir(exist_ok=True)
    for name, figure in _figures(content).items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format='png', dpi=130, metadata={'Software': None})
        path = folder / 'figures' / f'{name}.png'
        _replace(path, buffer.getvalue())
        paths.append(path)
        encoded = base64.b64encode(buffer.getvalue()).decode('ascii')
        images.append({'name': name, 'caption': CAPTIONS[name], 'data': Markup(f'data:image/png;base64,{encoded}')})
    loader = PackageLoader('hsiaug.report', 'templates')
    for suffix, autoescape in (('md', False), ('html', True)):
        environment = Environment(
            loader=loader, autoescape=autoescape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters['cell'] = _markdown_cell
        text = environment.get_template(f'ablation.{suffix}.j2').render(images=images, **context)
        _replace(folder / f'report.{suffix}', text.encode())
    return ReportPaths(folder / 'report.md', folder / 'report.html', tuple(paths))


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f'.{path.name}')
    temporary.write_bytes(content)
    os.replace(temporary, path)


def text_table(run: str | os.PathLike[str]) -> str:
    """Arm, ratio, mean OA and difference to real only with its interval, for a terminal."""
    content = read_run(run)
    out = []
    for key in dict.fromkeys((line.scene, line.budget, line.classifier) for line in content.table):
        lines = [line for line in content.table if (line.scene, line.budget, line.classifier) == key]
        width = max(len(line.arm) for line in lines)
        out.append(f'\n{key[0]}, {key[1]}, {key[2]}')
        out.append(f'{"arm":<{width}}  {"ratio":>6}  {"mean OA":>7}  difference to real only (95 % interval)')
        for line in lines:
            difference = '' if line.d_oa is None else f'{signed(line.d_oa.mean)} {interval(line.d_oa.interval)}'
            out.append(f'{line.arm:<{width}}  {_ratio(line):>6}  {line.oa:>7.2f}  {difference}')
    context = _context(content)
    out.append('\n' + context['verdict'])
    if context['quick']:
        out.append(f'{context["seeds"]} paired seeds: a demonstration, no basis for claims.')
    return '\n'.join(out)


__all__ = ['PairedComparison', 'ReportPaths', 'read_run', 'text_table', 'write_report']
