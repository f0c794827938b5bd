"""The ratio on a bank's page: the curve of a study, or what a search for the ratio has found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ..ablation.statistics import MIN_SEEDS
from ..json_lines import read_lines
from ..records import read_json
from .ablation import conclusion, read_run
from .figures import COLOURS, MARKERS, metric_name, ratio_curves
from .html import Picture, Section, Table


class _Point(NamedTuple):
    """What mixing in at a ratio differs from real data only, in units of the score."""

    ratio: float
    threshold: float | None
    trials: int
    mean: float
    error: float


def ratio_section(study: Path) -> Section:
    """The ratio curve of a study, the run folder of ``hsiaug ablate``, or of a search.

    The file of a search is what :meth:`~hsiaug.quality.RatioChoice.to_dict` says as JSON, or the scores that
    :class:`~hsiaug.quality.Recorded` has kept.
    """
    if study.is_dir():
        return _of_run(study)
    if not study.is_file():
        raise FileNotFoundError(f'{study} is neither the run folder of a study nor the file of a ratio search')
    section = Section('The ratio')
    points, said = _read_search(study)
    section.notes.append(
        'Difference of the validation score to that with real data only, by ratio (synthetic samples per real sample), '
        'with one standard error on each side. ' + said
    )
    section.figures.append(Picture.of_figure(_curve(points), 'difference to real data only over the ratio'))
    gated = any(point.threshold is not None for point in points)
    header = ('ratio', *(['gate'] if gated else []), 'trials', 'difference', 'standard error')
    rows = [
        (f'{p.ratio:g}', *([f'{p.threshold:g}' if p.threshold is not None else '–'] if gated else []), str(p.trials),
         f'{p.mean:+.4f}', f'{p.error:.4f}' if math.isfinite(p.error) else '–')
        for p in points
    ]  # fmt: skip
    section.tables.append(Table(header, rows))
    return section


def _of_run(study: Path) -> Section:
    run = read_run(study)
    section = Section('The ratio')
    name = metric_name(run.metrics[0])
    section.notes += [
        f'From the study “{run.plan["title"]}”: gain in {name} on test data over real data only, by ratio (synthetic '
        'samples per real sample), with paired-t 95 % intervals; controls are dashed.',
        conclusion(run.table, bool(run.plan.get('quick'))),
    ]
    if all(line.gain is None for line in run.table):
        section.notes.append('No cell with synthetic samples is finished yet.')
        return section
    if max(line.gain.n for line in run.table if line.gain) < MIN_SEEDS:
        section.notes.append(f'Fewer than {MIN_SEEDS} paired seeds: no basis for claims.')
    section.figures.append(Picture.of_figure(ratio_curves(run.table, run.metrics[0]), 'gain over the ratio'))
    return section


def _read_search(path: Path) -> tuple[list[_Point], str]:
    """Differences by ratio, and what was chosen."""
    try:
        try:
            found = read_json(path, 'a record of a ratio search')
        except ValueError:
            return _of_scores(read_lines(path, 'ratio', 'a score of a ratio search'))
        return _of_choice(found) if 'standings' in found else _of_scores([found])
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError, ValueError) as error:
        raise ValueError(
            f'{path} is not a record of a ratio search ({error!r}); give the run folder of hsiaug ablate, what '
            'RatioChoice.to_dict says as JSON, or the file of Recorded'
        ) from error


def _point(ratio: Any, threshold: Any, trials: Any, mean: Any, error: Any) -> _Point:
    numbers = (ratio, mean) if threshold is None else (ratio, mean, threshold)
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise TypeError(f'ratio, gate and mean must be finite numbers, found {numbers}')
    if not isinstance(trials, int) or not isinstance(error, int | float) or math.isnan(error):
        raise TypeError(f'a number of trials and a standard error were expected, found {trials!r} and {error!r}')
    return _Point(float(ratio), threshold, trials, float(mean), float(error))


def _of_choice(found: dict[str, Any]) -> tuple[list[_Point], str]:
    points = [
        _point(
            one['candidate']['ratio'],
            one['candidate']['threshold'],
            one['trials'],
            one['mean'],
            math.inf if one['standard_error'] is None else one['standard_error'],
        )
        for one in found['standings']
    ]
    if not points:
        raise KeyError('no standing')
    chosen = f'Chosen: ratio {found["chosen"]["ratio"]:g}, where {found["k"]:g} standard errors above 0 are needed.'
    return sorted(points, key=lambda p: (p.ratio, p.threshold or 0.0)), chosen


def _of_scores(lines: list[dict[str, Any]]) -> tuple[list[_Point], str]:
    """Candidates paired with ratio 0 by trial, fold and seed; standard errors as RatioSearch has them."""
    scores = {(row['ratio'], row['threshold'], row['trial'], row['fold'], row['seed']): row['score'] for row in lines}
    real = {key[2:]: score for key, score in scores.items() if key[0] == 0}
    folds = len({row['fold'] for row in lines})
    points = []
    for candidate in sorted({key[:2] for key in scores if key[0] > 0}, key=lambda c: (c[0], c[1] or 0.0)):
        gains = [s - real[key[2:]] for key, s in scores.items() if key[:2] == candidate and key[2:] in real]
        error = math.inf
        if len(gains) > 1 and folds > 1:
            error = float(np.std(gains, ddof=1)) * math.sqrt(1 / len(gains) + 1 / (folds - 1))
        if gains:
            points.append(_point(*candidate, len(gains), float(np.mean(gains)), error))
    if not points:
        raise KeyError('no ratio above 0 that is paired with ratio 0')
    return points, 'These are the scores of a search; its file does not say what it chose.'


def _curve(points: list[_Point]) -> Figure:
    figure = Figure(figsize=(6, 3.4), layout='constrained')
    axes = figure.subplots()
    axes.axhline(0, color='#444444', lw=1)
    ratios = sorted({point.ratio for point in points})
    gates = list(dict.fromkeys(point.threshold for point in points))
    for number, gate in enumerate(gates):
        mine = [point for point in points if point.threshold == gate]
        x = [ratios.index(point.ratio) + 0.06 * (number - (len(gates) - 1) / 2) for point in mine]
        errors = [point.error if math.isfinite(point.error) else 0.0 for point in mine]
        means, label = [point.mean for point in mine], 'no gate' if gate is None else f'gate {gate:g}'
        style: dict[str, Any] = {'color': COLOURS[number % len(COLOURS)], 'marker': MARKERS[number % len(MARKERS)]}
        axes.errorbar(x, means, errors, lw=1.2, ms=5, elinewidth=0.9, label=label, **style)
    axes.set_xticks(range(len(ratios)), [f'{ratio:g}' for ratio in ratios])
    axes.set_xlabel('ratio: synthetic samples per real sample')
    axes.set_ylabel('score less that of real data only')
    axes.spines[['top', 'right']].set_visible(False)
    if len(gates) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure
