"""Figures of an ablation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..ablation.statistics import CHOSEN, GroupKey, PairedComparison, Row, Summary, by_group, choose_ratios

# Okabe and Ito's palette, which colour-blind readers tell apart, then greys for controls.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
GREYS = ('#7f7f7f', '#a0a0a0', '#5f5f5f', '#bcbcbc')
MARKERS = 'osD^vP*X'


def arm_styles(table: Sequence[Summary]) -> dict[str, tuple[str, str, bool]]:
    """Colour, marker and whether it is a control, of each arm; controls are grey."""
    arms = dict.fromkeys((line.arm, line.control) for line in table if line.arm != 'real')
    styles: dict[str, tuple[str, str, bool]] = {}
    used = {True: 0, False: 0}
    for arm, control in arms:
        palette = GREYS if control else COLOURS
        styles[arm] = (palette[used[control] % len(palette)], MARKERS[len(styles) % len(MARKERS)], control)
        used[control] += 1
    return styles


def panel_title(key: GroupKey) -> str:
    """Scene and budget, and the classifier where it is not the default one."""
    return f'{key[0]}, {key[1]}' + ('' if key[2] == 'nn1d' else f' ({key[2]})')


def _panels(
    table: Sequence[Summary], width: float, height: float, sharey: bool = False
) -> tuple[Figure, Iterator[tuple[Axes, list[Summary]]]]:
    """A figure with one panel per scene, budget and classifier, and each panel's lines."""
    keys = list(dict.fromkeys(line.key for line in table))
    columns = 2 if len(keys) == 4 else min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(width * columns + 0.2, height * rows + 0.5), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).reshape(-1)
    for axes in grid[len(keys) :]:
        axes.set_visible(False)

    def each() -> Iterator[tuple[Axes, list[Summary]]]:
        for axes, key in zip(grid, keys, strict=False):
            axes.set_title(panel_title(key), fontsize=10)
            axes.spines[['top', 'right']].set_visible(False)
            axes.set_axisbelow(True)
            yield axes, [line for line in table if line.key == key]

    return figure, each()


def metric_name(metric: str) -> str:
    """A metric as tables and axes call it."""
    return {'oa': 'OA', 'aa': 'AA', 'miou': 'mIoU', 'f1': 'F1', 'iou': 'IoU', 'mf1': 'mF1'}.get(metric, metric)


def ratio_curves(table: Sequence[Summary], metric: str = 'oa') -> Figure:
    """Difference in the primary test metric to real only over the ratio, a panel per scene, budget and classifier.

    Every curve starts at ratio 0, which is real only. Intervals of controls are left to the tables, and the vertical
    axis shows all means; where one interval is far wider than others and runs out of the panel, a triangle says so.
    Rings mark default ratios.
    """
    styles = arm_styles(table)
    ratios = sorted({0.0} | {float(line.ratio) for line in table if not isinstance(line.ratio, str)})
    place = {ratio: i for i, ratio in enumerate(ratios)}  # ratios are chosen by hand: even steps read best
    figure, panels = _panels([line for line in table if line.arm != 'real'], 4.8, 3.6)
    for axes, lines in panels:
        axes.axhline(0, color='#444444', lw=1)
        means, ends = [-1.0, 1.0], [0.0]
        drawn: list[tuple[float, float, float, str]] = []
        for number, (arm, (colour, marker, control)) in enumerate(styles.items()):
            found: dict[float, PairedComparison] = {
                float(line.ratio): line.gain
                for line in lines
                if line.arm == arm and not isinstance(line.ratio, str) and line.gain is not None
            }
            if not found:
                continue
            shift = (number - (len(styles) - 1) / 2) * min(0.06, 0.5 / len(styles))
            x = [0.0] + [place[ratio] + shift for ratio in found]
            y = np.array([0.0] + [d.mean for d in found.values()])
            low, high = np.array([(0.0, 0.0)] + [d.interval for d in found.values()]).T
            half = np.nan_to_num([y - low, high - y])
            means += y.tolist()
            dash = '--' if control else '-'
            axes.plot(x, y, dash, color=colour, marker=marker, ms=4, lw=1.2, markevery=slice(1, None))
            for line in lines:
                if line.arm == arm and line.default and line.gain is not None:
                    at = (place[float(line.ratio)] + shift, line.gain.mean)
                    axes.plot(*at, 'o', ms=11, mfc='none', mec=colour, mew=1.4)
            if not control:
                drawn += [(at, y[i] - half[0][i], y[i] + half[1][i], colour) for i, at in enumerate(x) if i]
                ends += [*(y - half[0]), *(y + half[1])]
                axes.errorbar(x[1:], y[1:], half[:, 1:], fmt='none', ecolor=colour, elinewidth=0.9, alpha=0.6)
        widths = [most - least for _, least, most, _ in drawn]
        uneven = bool(widths) and max(widths) > 4 * min(widths)
        low, high = np.quantile(ends, [0.05, 0.95] if uneven else [0, 1])
        bottom, top = min(*means, low), max(*means, high)
        bottom, top = bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom)
        axes.set_ylim(bottom, top)
        for where, least, most, colour in drawn:
            for edge, cut, shape in ((bottom, least < bottom, 'v'), (top, most > top, '^')):
                if cut:
                    axes.plot(where, edge, shape, color=colour, ms=6, clip_on=False)
        axes.set_xlim(-0.3, len(ratios) - 0.6)
        axes.set_xticks(range(len(ratios)), [f'{ratio:g}' for ratio in ratios])
        axes.grid(axis='y', color='#dddddd', lw=0.6)
    figure.supxlabel('ratio: synthetic samples per real sample', fontsize=10)
    name = metric_name(metric)
    figure.supylabel(f'gain in {name} over real only (points)', fontsize=10)
    handles = [
        Line2D([], [], color=colour, marker=marker, ms=5, lw=1.2, ls='--' if control else '-', label=arm)
        for arm, (colour, marker, control) in styles.items()
    ]
    # Above, where it costs no width: the figure is read on phones too.
    figure.legend(handles=handles, loc='outside upper center', ncols=3, frameon=False, fontsize=10)
    return figure


def _class_gains(
    cells: Sequence[Row], arms: Sequence[str], names: Sequence[str], metric: str
) -> dict[str, list[float]]:
    """Mean gain in each class's figure in points, by arm; NaN for a class that no pair of test parts holds."""
    real = {cell['seed']: cell for cell in cells if cell['arm'] == 'real'}
    table: dict[str, list[float]] = {}
    for arm in arms:
        gains: dict[str, list[float]] = {name: [] for name in names}
        for seed, cell in choose_ratios(cells, arm, metric).items():
            pairs = zip(cell['classes'], cell['test']['per_class'], real[seed]['test']['per_class'], strict=True)
            for name, treated, plain in pairs:
                if treated is not None and plain is not None:
                    gains[name].append(100 * (treated - plain))
        if any(gains.values()):
            table[arm] = [float(np.mean(g)) if g else np.nan for g in gains.values()]
    return table


def _class_names(cells: Sequence[Row]) -> list[str]:
    """Names of all classes in the scene's order, although each split may lack some."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for names in dict.fromkeys(tuple(cell['classes']) for cell in cells):
        for i, name in enumerate(names):
            order.add(name, *names[max(i - 1, 0) : i])
    return list(order.static_order())


def class_gains(rows: Sequence[Row], arms: Sequence[str], metric: str = 'oa') -> Figure | None:
    """Mean difference in each class's recall (of masks: IoU) to real only at the chosen ratio; None without a pair."""
    panels = []
    for key, cells in by_group(rows).items():
        names = _class_names(cells)
        if table := _class_gains(cells, arms, names, metric):
            panels.append((panel_title(key), names, table))
    if not panels:
        return None
    heights = [0.32 * len(table) + 1.1 for _, _, table in panels]
    figure = Figure(figsize=(11, sum(heights)), layout='constrained')
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).reshape(-1)
    for axes, (title, names, table) in zip(grid, panels, strict=True):
        image = np.array(list(table.values()))
        limit = max(1.0, float(np.nanmax(np.abs(image))))
        shown = axes.imshow(image, cmap='RdBu', vmin=-limit, vmax=limit, aspect='auto')
        for (i, j), value in np.ndenumerate(image):
            colour = 'white' if abs(value) > 0.6 * limit else 'black'
            text = f'{round(value, 1) + 0.0:+.1f}' if np.isfinite(value) else '–'  # no -0.0
            axes.text(j, i, text, ha='center', va='center', fontsize=8, color=colour)
        axes.set_xticks(range(len(names)), names, fontsize=8, rotation=20, ha='right', rotation_mode='anchor')
        axes.set_yticks(range(len(table)), list(table), fontsize=8)
        axes.set_title(title, fontsize=10)
        figure.colorbar(shown, ax=axes, label='points', fraction=0.03)
    return figure


def chosen_ratios(table: Sequence[Summary]) -> Figure:
    """How often validation chose each ratio, 0 meaning real only, a panel per scene, budget and classifier."""
    lines = [line for line in table if line.ratio == CHOSEN and not line.control]
    arms = list(dict.fromkeys(line.arm for line in lines))
    ratios = sorted({ratio for line in lines for ratio in line.ratios} | {0.0})
    # Real only is pale, then darker with the ratio.
    shades = [(0.87, 0.87, 0.87)]  # and from light to dark blue: lightness alone distinguishes the ratios
    shades += [(0.65 - 0.63 * v, 0.80 - 0.65 * v, 0.93 - 0.57 * v) for v in np.linspace(0, 1, len(ratios) - 1).tolist()]
    figure, panels = _panels(lines, 4.8, 0.24 * len(arms) + 0.8, sharey=True)
    for axes, here in panels:
        share = {line.arm: [line.ratios.count(ratio) / len(line.ratios) for ratio in ratios] for line in here}
        edges = np.zeros(len(arms))
        for j, shade in enumerate(shades):
            widths = np.array([share[arm][j] if arm in share else 0.0 for arm in arms])
            axes.barh(range(len(arms)), widths, left=edges, color=shade, height=0.75)
            edges += widths
        axes.set_yticks(range(len(arms)), arms, fontsize=8)
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.tick_params(axis='x', labelsize=8)
    figure.supxlabel('share of seeds', fontsize=10)
    handles = [Line2D([], [], color=s, lw=7, label=f'r = {r:g}') for s, r in zip(shades, ratios, strict=True)]
    figure.legend(handles=handles, loc='outside upper center', ncols=6, frameon=False, fontsize=9)
    return figure
