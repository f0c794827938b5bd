"""Figures of an ablation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ..ablation.statistics import CHOSEN, Row, Summary, by_group, choose_ratios

# Okabe and Ito's palette, which colour-blind readers tell apart, then greys for controls.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
GREYS = ('#7f7f7f', '#a0a0a0', '#5f5f5f', '#bcbcbc')
MARKERS = 'osD^vP*X'


def arm_styles(table: Sequence[Summary]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each arm; controls are grey."""
    arms = dict.fromkeys((line.arm, line.control) for line in table if line.arm != 'real')
    styles: dict[str, tuple[str, str]] = {}
    used = {True: 0, False: 0}
    for arm, control in arms:
        palette = GREYS if control else COLOURS
        styles[arm] = (palette[used[control] % len(palette)], MARKERS[len(styles) % len(MARKERS)])
        used[control] += 1
    return styles


def ratio_curves(table: Sequence[Summary]) -> Figure:
    """Difference in test OA to real only over the ratio, a panel per scene, budget and classifier."""
    panels = list(dict.fromkeys((line.scene, line.budget, line.classifier) for line in table))
    styles = arm_styles(table)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns + 1.8, 3.3 * rows + 0.4), layout='constrained')
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).reshape(-1)
    ratios = sorted({line.ratio for line in table if isinstance(line.ratio, float | int)})
    place = {ratio: i for i, ratio in enumerate(ratios)}  # ratios are chosen by hand: even steps read best
    for axes, panel in zip(grid, panels, strict=False):
        axes.axhline(0, color='#444444', lw=1)
        for number, (arm, (colour, marker)) in enumerate(styles.items()):
            lines = [
                line
                for line in table
                if (line.scene, line.budget, line.classifier) == panel
                and line.arm == arm
                and line.ratio != CHOSEN
                and line.d_oa is not None
            ]
            if not lines:
                continue
            shift = (number - (len(styles) - 1) / 2) * 0.5 / max(len(styles), 1)
            x = [place[line.ratio] + shift for line in lines]  # type: ignore[index]
            y = np.array([line.d_oa.mean for line in lines])  # type: ignore[union-attr]
            low, high = np.array([line.d_oa.interval for line in lines]).T  # type: ignore[union-attr]
            axes.errorbar(
                x, y, np.nan_to_num([y - low, high - y]), color=colour, marker=marker, ms=4, lw=1.2, elinewidth=0.8,
                alpha=0.9, label=arm,
            )  # fmt: skip
        axes.set_xticks(range(len(ratios)), [f'{ratio:g}' for ratio in ratios])
        axes.set_title(f'{panel[0]}, {panel[1]}' + ('' if panel[2] == 'nn1d' else f' ({panel[2]})'), fontsize=10)
        axes.grid(axis='y', color='#dddddd', lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel('ratio: synthetic samples per real sample')
    figure.supylabel('OA less OA of real only (points)')
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right upper', frameon=False, fontsize=9)
    return figure


def class_gains(rows: Sequence[Row], arms: Sequence[str]) -> Figure:
    """Mean difference in each class's recall to real only, at the ratio chosen on validation data."""
    groups = [(key, cells) for key, cells in by_group(rows).items() if any(r['arm'] in arms for r in cells)]
    figure = Figure(figsize=(11, max(2.2, 2.6 * len(groups))), layout='constrained')
    grid = np.atleast_1d(figure.subplots(max(len(groups), 1), 1)).reshape(-1)
    for axes, ((scene, budget, classifier), cells) in zip(grid, groups, strict=False):
        names = list(dict.fromkeys(name for cell in cells for name in cell['classes']))
        real = {cell['seed']: cell for cell in cells if cell['arm'] == 'real'}
        values, present = [], []
        for arm in arms:
            gains: dict[str, list[float]] = {name: [] for name in names}
            for seed, cell in choose_ratios(cells, arm).items():
                pairs = zip(cell['classes'], cell['test']['per_class'], real[seed]['test']['per_class'], strict=True)
                for name, treated, plain in pairs:
                    if treated is not None and plain is not None:
                        gains[name].append(100 * (treated - plain))
            if any(gains.values()):
                values.append([float(np.mean(g)) if g else np.nan for g in gains.values()])
                present.append(arm)
        image = np.array(values)
        limit = max(1.0, float(np.nanmax(np.abs(image)))) if image.size else 1.0
        shown = axes.imshow(image, cmap='RdBu', vmin=-limit, vmax=limit, aspect='auto')
        for (i, j), value in np.ndenumerate(image):
            if np.isfinite(value):
                colour = 'white' if abs(value) > 0.6 * limit else 'black'
                axes.text(j, i, f'{value:+.1f}', ha='center', va='center', fontsize=8, color=colour)
        axes.set_xticks(range(len(names)), names, fontsize=8, rotation=20, ha='right')
        axes.set_yticks(range(len(present)), present, fontsize=8)
        axes.set_title(f'{scene}, {budget}' + ('' if classifier == 'nn1d' else f' ({classifier})'), fontsize=10)
        figure.colorbar(shown, ax=axes, label='points', fraction=0.03)
    return figure


def chosen_ratios(table: Sequence[Summary]) -> Figure:
    """How often validation chose each ratio, 0 meaning real only."""
    lines = [line for line in table if line.ratio == CHOSEN and not line.control]
    ratios = sorted({ratio for line in lines for ratio in line.ratios} | {0.0})
    counts = np.array([[line.ratios.count(ratio) / len(line.ratios) for ratio in ratios] for line in lines])
    figure = Figure(figsize=(6.5, max(2.0, 0.28 * len(lines) + 1)), layout='constrained')
    axes = figure.subplots()
    left = np.zeros(len(lines))
    shades = [str(v) for v in np.linspace(0.85, 0.15, len(ratios))]
    for j, ratio in enumerate(ratios):
        axes.barh(range(len(lines)), counts[:, j], left=left, color=shades[j], label=f'r = {ratio:g}')
        left += counts[:, j]
    axes.set_yticks(range(len(lines)), [f'{line.scene}, {line.budget}: {line.arm}' for line in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel('share of seeds')
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside upper center', ncols=min(6, len(ratios)), frameon=False, fontsize=9)
    return figure
