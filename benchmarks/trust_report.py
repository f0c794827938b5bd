"""The tables and the figure of the study of trust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from trust_table import (
    ADVISED,
    EITHER,
    LEVEL,
    MARGIN,
    PRIMARY,
    VALIDATED,
    Block,
    advice,
    by_k,
    followed,
    lines,
    primary,
    read_blocks,
    rejections,
)

from hsiaug.ablation.experiment import markdown_table
from hsiaug.records import write_json
from hsiaug.report.ablation import interval, signed
from hsiaug.report.figures import COLOURS, GREYS, metric_name
from hsiaug.tasks.base import finite


def percent(value: float) -> str:
    """A share, in whole percent."""
    return f'{100 * value:.0f} %'


def compared(found: Mapping[str, Any] | None) -> str:
    """Mean and interval of a comparison."""
    return '–' if found is None else f'{signed(found["mean"])} {interval(tuple(found["interval"]))}'


def markdown(summary: Mapping[str, Any]) -> str:
    """All tables."""
    family = summary['primary']
    rows = []
    for row in family:
        other = row['regret of gated']
        rows.append(
            [
                row['scene'], row['generator'], str(row['seeds']), percent(row['mixes']), compared(row['gain']),
                interval(tuple(row['gain']['corrected'])),
                f'{row["p_non_inferior_holm"]:.3f}', row['conclusion'],
                '–' if other is None else f'{other["advised"][0]}, r = {other["advised"][1]:g}', compared(other),
                compared(row['regret of either']), f'{row["cost"]:.0f} ({row["trainings"]:.0f})',
            ]
        )  # fmt: skip
    header = [
        'scene', 'generator', 'seeds', 'mixes', 'gain', 'Nadeau–Bengio', 'p non-inferior, Holm', 'result',
        'advised by others', 'regret', 'regret, gate chosen too', 'cost (trainings)',
    ]  # fmt: skip
    parts = [
        f'# {summary["title"]}\n',
        '**QUICK RUN: no basis for claims.**\n' if summary['quick'] else '',
        f'Non-inferior to real only means: less than {MARGIN:g} points lost, one-sided paired t, Holm over the '
        f'{len(family)} comparisons of this table, {LEVEL:.1%}; gains and losses: sign flips, Holm, {2 * LEVEL:.0%}. '
        'Points of OA (spectra) or mIoU (masks), 95 % intervals over seeds; the splits of one scene overlap, so that '
        'they speak for these scenes, not for others. Regret: what the fixed ratio and gate that the other scenes '
        'advise would have brought more. Cost: CPU time of the race with all fits of generator and gates, in plain '
        'trainings.\n',
        f'## {PRIMARY[0].upper()}{PRIMARY[1:]}\n',
        markdown_table(header, rows),
        *of_other_scenes(summary['followed']),
        '## Gain of every policy\n\nExploratory but for the one above. Controls do not depend on the generator.\n',
    ]
    for kind, metrics in dict.fromkeys((row['kind'], tuple(row['metrics'])) for row in summary['lines']):
        mine = [row for row in summary['lines'] if row['kind'] == kind]
        scenes = list(dict.fromkeys(row['scene'] for row in mine))
        groups = {name: [row for row in mine if row['generator'] == name and not row['control']]
                  for name in dict.fromkeys(row['generator'] for row in mine)}  # fmt: skip
        groups['controls'] = [row for row in mine if row['control']]
        for which, metric in zip(('gain', 'second'), metrics, strict=True):
            parts.append(f'Δ{metric_name(metric)}:\n')
            for title, those in groups.items():
                at = {(row['policy'], row['scene']): compared(row[which]) for row in those}
                policies = dict.fromkeys(policy for policy, _ in at)
                table = [[policy, *(at.get((policy, scene), '–') for scene in scenes)] for policy in policies]
                parts.append(markdown_table([title, *scenes], table))
    gates = [*dict.fromkeys(name for row in summary['rejections'] for name in row['rejected'])]
    shares = [
        [
            row['scene'], row['generator'], percent(row['kept']),
            *(percent(row['rejected'][name]) if name in row['rejected'] else '–' for name in gates),
            percent(row['left_out']), percent(row['refused']),
        ]
        for row in summary['rejections']
    ]  # fmt: skip
    ks = [
        [
            row['generator'], row['policy'], f'{row["k"]:g}', percent(row['mixes']),
            f'{signed(row["gain"])} {interval(row["interval"])}',
        ]
        for row in summary['by_k']
    ]  # fmt: skip
    return '\n'.join(
        [
            *parts,
            '## What the gates reject\n',
            markdown_table(['scene', 'generator', 'kept', *gates, 'classes left out', 'gated cells refused'], shares),
            '## k, the standard errors that a ratio must be better by\n\nMean over scenes, of the same races.\n',
            markdown_table(['generator', 'policy', 'k', 'mixes', 'gain'], ks),
            '## How it was measured\n',
            *(measured(plan) for plan in summary['plans'].values()),
        ]
    )


def of_other_scenes(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section on other scenes' advice."""
    if not found:
        return []
    rows = [
        [
            row['scene'], row['generator'], f'{row["advised"][0]}, r = {row["advised"][1]:g}', percent(row['mixes']),
            compared(row['gain']), f'{row["p_non_inferior_holm"]:.3f}', row['conclusion'],
        ]
        for row in found
    ]  # fmt: skip
    text = (
        f'## {ADVISED[0].upper()}{ADVISED[1:]}\n\nExploratory, thought of after the first results: nothing is searched '
        'on the scene; the arm and ratio, real only among them, are those that test best on the mean of the other '
        f'scenes. Holm over these {len(found)}.\n'
    )
    return [
        text,
        markdown_table(['scene', 'generator', 'advised', 'mixes', 'gain', 'p non-inferior, Holm', 'conclusion'], rows),
    ]


def measured(plan: Mapping[str, Any]) -> str:
    """Command, hardware, commit and versions."""
    env = plan['environment']
    versions = ', '.join(f'{name} {version}' for name, version in env['versions'].items())
    return f'- `{plan["command"]}`, commit {env["commit"]}, {env["hardware"]}, {versions}\n'


def drawn(block: Block, blocks: Sequence[Block]) -> dict[str, Any]:
    """What the figure shows of a block: at fixed ratios only the highest, which does most good or harm."""
    policies, controls, option = block.policies(), block.controls(), advice(block, blocks)
    highest = max(ratio for _, ratio in block.fixed)
    advised = {} if option is None else {ADVISED: block.option(option)}
    fixed = [f'{name}, r = {highest:g}' for name in ('naive', 'gated')]
    names = [
        *fixed,
        VALIDATED,
        EITHER,
        PRIMARY,
        *advised,
        *(name for name in controls if name.endswith(f'r = {highest:g}')),
    ]
    return {name: {**policies, **advised, **controls}[name] for name in names}


def draw(blocks: Sequence[Block]) -> Figure:
    """Gain by scene with intervals, a row per generator; controls are grey."""
    panels = list(dict.fromkeys((block.kind, block.generator) for block in blocks))
    shown = {panel: [b for b in blocks if (b.kind, b.generator) == panel] for panel in panels}
    most = max(len(mine) for mine in shown.values())
    figure = Figure(figsize=(1.3 * most + 4, 2.9 * len(panels) + 0.3), layout='constrained')
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    greys: dict[str, str] = {}
    handles: dict[str, Any] = {}
    for panel, mine in zip(axes, shown.values(), strict=True):
        panel.axhline(0, color='#444444', lw=1)
        panel.axhline(-MARGIN, color='#444444', lw=0.8, ls=':')
        policies = list(drawn(mine[0], blocks))
        for number, policy in enumerate(policies):
            found = [block.compare(drawn(block, blocks)[policy], block.metrics[0]) for block in mine]
            y = np.array([comparison.mean for comparison in found])
            low, high = np.array([comparison.interval for comparison in found]).T
            x = np.arange(len(mine)) + (number - (len(policies) - 1) / 2) * 0.75 / len(policies)
            if policy in mine[0].controls():
                colour = greys.setdefault(policy, GREYS[len(greys) % len(GREYS)])
            else:
                colour = COLOURS[number]
            mark = {'fmt': 'D', 'ms': 5.5} if policy == PRIMARY else {'fmt': 'o', 'ms': 4}
            bar = panel.errorbar(x, y, np.nan_to_num([y - low, high - y]), color=colour, lw=1.2, **mark)
            handles.setdefault(policy, bar)
        panel.set_xticks(range(len(mine)), [block.scene for block in mine], fontsize=9)
        panel.set_xlim(-0.6, most - 0.4)
        panel.set_title(mine[0].generator, fontsize=10)
        panel.set_ylabel(f'{metric_name(mine[0].metrics[0])} less real only (points)', fontsize=9)
        panel.spines[['top', 'right']].set_visible(False)
        panel.grid(axis='y', color='#dddddd', lw=0.6)
        panel.set_axisbelow(True)
    figure.legend(handles.values(), handles, loc='outside right upper', frameon=False, fontsize=9)
    return figure


def write_tables(out: Path) -> str:
    """Write ``trust.md``, ``trust.json`` and ``trust.png`` into the run folder, and return the tables.

    Raises:
        ValueError: if no group is finished yet.
    """
    blocks, plans = read_blocks(out)
    if not blocks:
        raise ValueError(f'{out} holds no finished search yet')
    first = next(iter(plans.values()))
    summary = {
        'title': first['title'], 'quick': any(plan['quick'] for plan in plans.values()), 'margin': MARGIN,
        'plans': plans, 'primary': primary(blocks), 'followed': followed(blocks), 'lines': lines(blocks),
        'rejections': rejections(blocks), 'by_k': by_k(blocks),
    }  # fmt: skip
    write_json(out / 'trust.json', finite(summary))
    text = markdown(summary)
    (out / 'trust.md').write_text(text)
    draw(blocks).savefig(out / 'trust.png', dpi=130)
    return text
