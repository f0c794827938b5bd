"""The ratio on a bank's page: the curve of a study, or what a search for the ratio has found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..ablation.read import read_run
from ..ablation.statistics import MIN_SEEDS
from ..quality import Standing
from ..quality.ratio_records import read_search
from .ablation import conclusion
from .figures import COLOURS, MARKERS, metric_name, ratio_curves
from .html import Part, Picture, Section, Table


def ratio_section(study: Path) -> Section:
    """The ratio curve of a study, the run folder of ``hsiaug ablate``, or of a search.

    The file of a search is what :meth:`~hsiaug.quality.RatioChoice.to_dict` says as JSON, or the scores that
    :class:`~hsiaug.quality.Recorded` has kept.
    """
    if study.is_dir():
        return _of_run(study)
    if not study.is_file():
        raise FileNotFoundError(f'{study} is neither the run folder of a study nor the file of a ratio search')
    found = read_search(study)
    said = 'These are the scores of a search; its file does not say what it chose.'
    if found.chosen is not None:
        said = f'Chosen: ratio {found.chosen.ratio:g}; any but 0 must lead by {found.k:g} times its standard error.'
    note = (
        'Difference of the validation score to that with real data only, by ratio (synthetic samples per real sample), '
        'with one standard error on each side. ' + said
    )
    gates = {one.candidate.threshold for one in found.standings} != {None}
    rows = []
    for one in found.standings:
        gate = '–' if one.candidate.threshold is None else f'{one.candidate.threshold:g}'
        error = f'{one.standard_error:.4f}' if math.isfinite(one.standard_error) else '–'
        ratio = f'{one.candidate.ratio:g}'
        rows.append((ratio, *([gate] if gates else []), str(one.trials), f'{one.mean:+.4f}', error))
    header = ('ratio', *(['gate'] if gates else []), 'trials', 'difference', 'standard error')
    figure = Picture.of_figure(_curve(found.standings), 'difference to real data only over the ratio')
    return Section('The ratio', [note, Table(header, rows), figure])


def _of_run(study: Path) -> Section:
    run = read_run(study)
    name = metric_name(run.metrics[0])
    shown: list[Part] = [
        f'From the study “{run.plan["title"]}”: gain in {name} on test data over real data only, by ratio (synthetic '
        'samples per real sample), with paired-t 95 % intervals; controls are dashed.',
        conclusion(run.table, bool(run.plan.get('quick'))),
    ]
    if all(line.gain is None for line in run.table):
        return Section('The ratio', [*shown, 'No cell with synthetic samples is finished yet.'])
    if max(line.gain.n for line in run.table if line.gain) < MIN_SEEDS:
        shown.append(f'Fewer than {MIN_SEEDS} paired seeds: no basis for claims.')
    figure = Picture.of_figure(ratio_curves(run.table, run.metrics[0]), 'gain over the ratio')
    return Section('The ratio', [*shown, figure])


def _curve(standings: list[Standing]) -> Figure:
    figure = Figure(figsize=(6, 3.4), layout='constrained')
    axes = figure.subplots()
    axes.axhline(0, color='#444444', lw=1)
    ratios = sorted({one.candidate.ratio for one in standings})
    gates = list(dict.fromkeys(one.candidate.threshold for one in standings))
    for number, gate in enumerate(gates):
        mine = [one for one in standings if one.candidate.threshold == gate]
        x = [ratios.index(one.candidate.ratio) + 0.06 * (number - (len(gates) - 1) / 2) for one in mine]
        errors = [one.standard_error if math.isfinite(one.standard_error) else 0.0 for one in mine]
        means, label = [one.mean for one in mine], 'no gate' if gate is None else f'gate {gate:g}'
        style: dict[str, Any] = {'color': COLOURS[number % len(COLOURS)], 'marker': MARKERS[number % len(MARKERS)]}
        axes.errorbar(x, means, errors, lw=1.2, ms=5, elinewidth=0.9, label=label, **style)
    axes.set_xticks(range(len(ratios)), [f'{ratio:g}' for ratio in ratios])
    axes.set_xlabel('ratio: synthetic samples per real sample')
    axes.set_ylabel('score less that of real data only')
    axes.spines[['top', 'right']].set_visible(False)
    if len(gates) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure
