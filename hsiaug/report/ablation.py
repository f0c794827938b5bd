"""The report of a study: Markdown, figures and one self-contained page."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..ablation.read import Run, read_run
from ..ablation.shown import ShownPredictions, ShownSamples
from ..ablation.statistics import CHOSEN, MIN_SEEDS, Summary, pooled
from .change_maps import plot_change_maps
from .fidelity_text import study_fidelity
from .figures import chosen_ratios, class_gains, metric_name, panel_title, ratio_curves
from .html import Picture, Section, Table, figure_png, replace_file, template
from .samples import plot_samples


@dataclass(frozen=True)
class ReportPaths:
    """Files of a report."""

    markdown: Path
    html: Path
    figures: tuple[Path, ...]


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign, or a dash."""
    return '–' if value is None or value != value else f'{value:+.{digits}f}'


def interval(pair: tuple[float, float] | None, digits: int = 2) -> str:
    """An interval, or a dash."""
    return '–' if pair is None or pair[0] != pair[0] else f'[{signed(pair[0], digits)}, {signed(pair[1], digits)}]'


def _ratio(line: Summary) -> str:
    return CHOSEN if line.ratio == CHOSEN else f'{line.ratio:g}'


def _cells(line: Summary, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """A row of the table of a scene, budget and classifier, by the titles of its columns."""
    mine = [row for row in rows if (row['arm'], row['ratio']) == (line.arm, line.ratio)]
    falling = sum(bool(row.get('still_falls')) for row in mine)
    gain, second = line.gain, line.second_gain
    name, other, *further = map(metric_name, line.means)
    mean, other_mean, *means = (f'{value:.2f}' for value in line.means.values())
    return {
        'arm': line.arm + (' (control)' if line.control else '')
        + (FALLING.format(falling, len(mine)) if falling else ''),
        'ratio': _ratio(line) + (' (default)' if line.default else ''),
        f'{name} %': mean,
        f'Δ{name}': signed(gain.mean if gain else None),
        '95 % t': interval(gain.interval if gain else None),
        '95 % BCa': interval(gain.bca if gain else None),
        '95 % Nadeau–Bengio': interval(gain.corrected if gain else None),
        'p sign-flip': f'{gain.p:.4f}' if gain else '–',
        'p Holm': '–' if gain is None else 'exploratory' if line.p_holm is None else f'{line.p_holm:.4f}',
        f'{other} %': other_mean,
        f'Δ{other}': signed(second.mean if second else None),
        f'95 % t ({other})': interval(second.interval if second else None),
        **{f'{metric} %': value for metric, value in zip(further, means, strict=True)},
        'seeds': f'{gain.n}{"" if gain.basis_for_claims else FEW}' if gain else str(len(line.ratios)),
    }  # fmt: skip


LEVEL = 0.05
FALLING = ' (not converged: the loss still falls in {} of {})'
"""Marks cells whose training was too short."""
FEW = ' °'
"""Marks a comparison with too few seeds for a claim."""


def conclusion(table: Sequence[Summary], quick: bool) -> str:
    """The outcome of the primary family, in a sentence or two."""
    if quick:
        return 'A quick run: nothing here is a basis for claims.'
    family = [line for line in table if line.p_holm is not None]
    if not family:
        return f'No arm has {MIN_SEEDS} paired seeds: nothing here is a basis for claims.'

    def named(lines: list[Summary]) -> str:
        return '; '.join(f'{x.arm} on {panel_title(x.key)} ({signed(x.gain.mean)})' for x in lines if x.gain)

    significant = [x for x in family if x.p_holm is not None and x.p_holm <= LEVEL]
    better = [x for x in significant if x.gain and x.gain.mean > 0]
    worse = [x for x in significant if x.gain and x.gain.mean < 0]
    said = [
        f'Significantly above real only (Holm in a family of {len(family)}, {LEVEL:.0%}): {named(better)}.'
        if better
        else f'No arm is significantly above real only (Holm in a family of {len(family)}, {LEVEL:.0%}): no gain '
        'was found.',
        f'Significantly below: {named(worse)}.' if worse else 'None is significantly below.',
    ]
    # n seeds allow 2^n sign patterns; the smallest p there is may not survive the correction for the whole family
    powerless = [x for x in family if x.gain and 2.0 ** (1 - x.gain.n) * len(family) > LEVEL]
    if powerless:
        said.append(
            f'{len(powerless)} of the comparisons have so few seeds that they can reach this level only if others '
            'reach it first; rely on their intervals rather than their p values.'
        )
    return ' '.join(said)


def answer(table: Sequence[Summary], metric: str, quick: bool) -> str:
    """Whether synthetic samples should be mixed in, a sentence for each scene, budget and classifier."""
    said = []
    what = 'accuracy' if metric == 'oa' else metric_name(metric)
    keys = list(dict.fromkeys(line.key for line in table))
    for key in keys:
        tested = [x for x in table if x.key == key and x.gain and not x.control and (x.default or x.ratio == CHOSEN)]
        tested = [x for x in tested if x.default] or tested
        if not tested:
            continue
        best = max(tested, key=lambda x: (x.primary, x.gain.interval[0] if x.gain and x.gain.n > 1 else 0))
        gain = best.gain
        assert gain is not None  # as picked above
        if best.default:
            samples = 'synthetic sample' if best.ratio == 1 else 'synthetic samples'
            way = f'{_ratio(best)} {samples} per real one ({best.arm})'
        else:
            way = f'synthetic samples ({best.arm}) at a ratio chosen on validation data'
        where = f'On {panel_title(key)}, mixing in' if len(keys) > 1 else 'Mixing in'
        size = f'{signed(gain.mean, 1)} points {interval(gain.interval, 1)} ({gain.n} seeds)'
        if quick or not gain.basis_for_claims:
            end = f'changes {what} by {size}: too few seeds, or too short training, for an answer.'
        elif gain.interval[0] > 0 and (best.p_holm or 0) <= LEVEL:
            end = f'raises {what} by {size}. Recommended: mix it in.'
        elif gain.interval[1] < 0:
            end = f'lowers {what}: {size}. Recommended: do not mix.'
        else:
            end = f'changes {what} by {size}, which may be chance. Recommended: do not mix, or measure more seeds.'
        said.append(f'{where} {way} {end}')
    return ' '.join(said)


def _sections(run: Run) -> Iterator[Section]:
    """Means over scenes, a section for each scene, budget and classifier, and fidelity, as far as they are there."""
    first, second = map(metric_name, run.metrics[:2])
    means = []
    for (budget, classifier, arm), mean in pooled(run.table).items():
        each = ', '.join(f'{name} {signed(gain)}' for name, (gain, _) in mean.scenes.items())
        gains = [signed(mean.gain), interval(mean.interval), signed(mean.second_gain), interval(mean.second_interval)]
        means.append([budget, classifier, arm, *gains, each])
    if means:
        header = ['budget', 'classifier', 'arm', f'Δ{first}', '95 %', f'Δ{second}', f'95 % ({second})']
        note = 'All scenes have the same weight. The intervals are valid for these scenes, not for others.'
        yield Section('Mean over scenes, at the chosen ratio', [note, Table([*header, f'Δ{first} per scene'], means)])
    for key in dict.fromkeys(line.key for line in run.table):
        here = [row for row in run.rows if (row['scene'], row['budget'], row['classifier']) == key]
        chosen = [
            ', '.join(f'{name.replace("_", " ")} {value}' for name, value in sorted(r['setting'].items()))
            for r in here if r['arm'] == 'real' and isinstance(r.get('setting'), dict)
        ]  # fmt: skip
        settings = [f'{s} ({chosen.count(s)} seeds)' for s in dict.fromkeys(sorted(chosen))]
        dropped = sorted({note for row in here for note in row.get('dropped', ())})
        dropped = dropped[:6] + ([f'and {len(dropped) - 6} more'] if len(dropped) > 6 else [])
        said = {'Chosen by validation for real only': settings, 'Left out': dropped}
        below = [f'{what}: {"; ".join(found)}.' for what, found in said.items() if found]
        lines = [_cells(line, here) for line in run.table if line.key == key]
        yield Section(', '.join(key), [Table(list(lines[0]), [list(line.values()) for line in lines]), *below])
    note, header, rows = study_fidelity(run.fidelity)
    if rows:
        yield Section('Fidelity of the samples', [note, Table(header, rows)])


def _context(run: Run) -> dict[str, Any]:
    quick = bool(run.plan.get('quick'))
    seeds = max((line.gain.n for line in run.table if line.gain), default=0)
    return {
        'plan': run.plan,
        'title': run.plan['title'],
        'kind': run.plan.get('identity', {}).get('kind', 'spectrum'),
        'environment': run.plan.get('environment', {}),
        'no_basis': quick or seeds < MIN_SEEDS,
        'seeds': seeds,
        'finished': len(run.rows),
        'answer': answer(run.table, run.metrics[0], quick),
        'conclusion': conclusion(run.table, quick),
        'sections': list(_sections(run)),
        'min_seeds': MIN_SEEDS,
        'few': FEW.strip(),
    }


def _figures(run: Run) -> dict[str, Figure]:
    compared = [line for line in run.table if line.gain is not None]
    if not compared:
        return {}
    figures = {'ratio_curves': ratio_curves(run.table, run.metrics[0])}
    if any(line.ratio == CHOSEN and not line.control for line in compared):
        arms = list(dict.fromkeys(line.arm for line in compared if not line.control))
        if gains := class_gains(run.rows, arms, run.metrics[0]):
            figures['class_gains'] = gains
        figures['chosen_ratios'] = chosen_ratios(run.table)
    return figures


CAPTIONS = {
    'ratio_curves': (
        'Gain over real only, with paired-t 95 % intervals. Controls are dashed, default ratios circled; triangles '
        'mark intervals that continue.'
    ),
    'class_gains': 'Mean difference to real only in recall (of masks: IoU) by class, in points, at the chosen ratio.',
    'chosen_ratios': 'Ratios r chosen on validation data, by share of seeds; 0 is real only.',
}


DRAWN = {
    'pairs-': 'Real pairs above, synthetic below',
    'changes-': 'Changes detected on test windows, by training data',
}
"""Figures by the beginning of their names that :func:`draw_shown` draws."""


def draw_shown(shown: Iterable[ShownSamples | ShownPredictions], run: Path) -> None:
    """Draw samples and predictions of a study into its run folder, where :func:`write_report` finds the figures."""
    (run / 'figures').mkdir(parents=True, exist_ok=True)
    for one in shown:
        if isinstance(one, ShownSamples):
            figure = plot_samples(one.real, one.fake, one.spec)
        else:
            figure = plot_change_maps(one.test, one.predicted, one.tile_rows)
        figure.savefig(run / 'figures' / one.file, dpi=110)


def write_report(run: str | os.PathLike[str]) -> ReportPaths:
    """Write ``report.md``, ``report.html`` and ``figures/`` into a run folder.

    The page has its figures inside and loads nothing from the network.

    Raises:
        FileNotFoundError: if the folder holds no study.
        ValueError: if no cell is finished yet.
    """
    folder, content = Path(run).expanduser(), read_run(run)
    context = _context(content)
    figures = []
    (folder / 'figures').mkdir(exist_ok=True)
    # A dollar sign in a name is not a formula.
    with matplotlib.rc_context({'text.parse_math': False}):
        drawn = {name: figure_png(figure) for name, figure in _figures(content).items()}
    for name, png in drawn.items():
        figures.append(Picture(png, CAPTIONS[name], file=f'figures/{name}.png'))
        replace_file(folder / figures[-1].file, png)
    for prefix, caption in DRAWN.items():
        for path in sorted((folder / 'figures').glob(f'{prefix}*.png')):
            shown = re.sub('-[0-9a-f]{8}$', '', path.stem.removeprefix(prefix))  # that keeps similar names apart
            said = f'{caption}: {shown.replace("_", " ")}'
            figures.append(Picture(path.read_bytes(), said, file=f'figures/{path.name}'))
    for suffix in ('md', 'html'):
        page = template(f'ablation.{suffix}.j2').render(figures=figures, **context)
        replace_file(folder / f'report.{suffix}', page.encode())
    return ReportPaths(folder / 'report.md', folder / 'report.html', tuple(folder / figure.file for figure in figures))


def text_table(run: str | os.PathLike[str]) -> str:
    """Arm, ratio, mean OA and difference to real only with its interval, for a terminal."""
    content = read_run(run)
    primary, out = content.metrics[0], []
    title = f'mean {metric_name(primary)} %'
    for key in dict.fromkeys(line.key for line in content.table):
        lines = [line for line in content.table if line.key == key]
        width = max(len(line.arm) for line in lines)
        out.append('\n' + ', '.join(key))
        out.append(f'{"arm":<{width}}  {"ratio":>6}  {title}  difference to real only, points [95 % interval]')
        for line in lines:
            difference = '' if line.gain is None else f'{signed(line.gain.mean)} {interval(line.gain.interval)}'
            out.append(
                f'{line.arm:<{width}}  {_ratio(line):>6}  {line.means[primary]:>{len(title)}.2f}  {difference}'.rstrip()
            )
    context = _context(content)
    few = f'QUICK RUN, {context["seeds"]} paired seeds: no basis for claims.'
    out.append('\n' + (few if context['no_basis'] else context['conclusion']))
    if context['answer']:
        out.append(context['answer'])
    return '\n'.join(out)
