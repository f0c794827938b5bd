"""What the study of trust says: every policy against real only, in tables and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hsiaug.ablation.experiment import Columns, markdown_table, records_table
from hsiaug.ablation.plan import REAL
from hsiaug.ablation.safety import LEVEL, NonInferiority, advised_by_others, non_inferiority
from hsiaug.ablation.statistics import PairedComparison, Row, choose_ratios, compare_cells, holm, mean_of_means
from hsiaug.report.ablation import interval, signed
from hsiaug.report.figures import COLOURS, GREYS, metric_name

NO_GATE = 0.0  # a false alarm rate at which nothing is ever rejected
MARGIN = 0.5  # points that may be lost
KS = (0.0, 0.5, 1.0, 2.0)
PRIMARY, EITHER, VALIDATED = 'gated, ratio chosen on folds', 'gate and ratio chosen on folds', 'gated, ratio validated'
ADVISED = 'as other scenes advise'
CONTROLS, MEAN = 'controls', 'mean'  # replace the generator of a line, and its scene
Option = tuple[str, float]  # arm and ratio
Cells = Mapping[int, Row]  # by seed
Record = dict[str, Any]


def gated_name(generator: str) -> str:
    """Name of a generator's arm with gates."""
    return f'{generator}, gated'


def way_name(generator: str, way: str) -> str:
    """Name of a generator's arm that is mixed in another way."""
    return f'{generator}, way: {way}'


@dataclass(frozen=True, eq=False)
class Block:
    """One scene and generator.

    Args:
        scene: name of the scene.
        generator: name of the generator.
        metrics: the primary one and a second one.
        rows: all cells of the scene.
        searches: what the races chose, by seed; a costly generator may have fewer of them than cells.
    """

    scene: str
    generator: str
    metrics: tuple[str, str]
    rows: list[Row]
    searches: dict[int, Record]

    def option(self, arm: str, ratio: float) -> dict[int, Row]:
        """The cells of an arm at a ratio, by seed."""
        return {row['seed']: row for row in self.rows if (row['arm'], row['ratio']) == (arm, ratio)}

    @property
    def fixed(self) -> dict[Option, str]:
        """Names of the generator at each ratio without and with gates."""
        arms = {self.generator: 'naive', gated_name(self.generator): 'gated'}
        ratios = sorted({row['ratio'] for row in self.rows if row['arm'] == self.generator})
        return {(arm, ratio): f'{name}, r = {ratio:g}' for arm, name in arms.items() for ratio in ratios}

    def searched(self, race: str, k: float | None = None) -> dict[int, Row]:
        """The cells that a race chose, by seed; with its own ``k`` if None."""
        found = {}
        for seed, row in self.searches.items():
            chosen = row[race]
            ratio, threshold = (chosen['ratio'], chosen['threshold']) if k is None else chosen['by_k'][str(k)]
            arm = self.generator if threshold == NO_GATE else gated_name(self.generator)
            found[seed] = self.option(REAL if ratio == 0 else arm, ratio)[seed]
        return found

    def policies(self, advised: Option | None) -> dict[str, Cells]:
        """The cells of each policy; ``advised`` is the option that does best on other scenes."""
        start, options = way_name(self.generator, ''), sorted({(row['arm'], row['ratio']) for row in self.rows})
        ways = {option: f'{option[0][len(start) :]}, r = {option[1]:g}' for option in options if start in option[0]}
        return {
            **{name: self.option(*option) for option, name in {**self.fixed, **ways}.items()},
            VALIDATED: choose_ratios(self.rows, gated_name(self.generator), self.metrics[0]),
            PRIMARY: self.searched('gated'),
            **{f'{PRIMARY}, k = {k:g}': self.searched('gated', k) for k in KS},
            EITHER: self.searched('either'),
            **({} if advised is None else {ADVISED: self.option(*advised)}),
        }

    def controls(self) -> dict[str, Cells]:
        """The cells of each control."""
        found = sorted({(row['arm'], row['ratio']) for row in self.rows if row.get('control')})
        return {f'{arm}, r = {ratio:g}': self.option(arm, ratio) for arm, ratio in found}

    def compare(self, cells: Cells, metric: str) -> PairedComparison:
        """Cells against real only, in points of a test metric."""
        found = compare_cells(cells, self.option(REAL, 0.0), metric)
        assert found is not None  # every seed has its real-only cell
        return found


def blocks_of(found: Sequence[Row], metrics: Sequence[str]) -> list[Block]:
    """All scenes and generators of the records of the study, which are cells and races."""
    races = [row for row in found if 'gated' in row]
    rows = [row for row in found if 'gated' not in row]
    return [
        Block(
            scene, generator, (metrics[0], metrics[1]), [row for row in rows if row['scene'] == scene],
            {r['seed']: r for r in races if (r['scene'], r['generator']) == (scene, generator)},
        )
        for scene, generator in dict.fromkeys((row['scene'], row['generator']) for row in races)
    ]  # fmt: skip


# --- records ----------------------------------------------------------------------------------------------------------


def lines(blocks: Sequence[Block]) -> list[Record]:
    """Every policy and control against real only, on each scene and as the mean over scenes."""
    policies: dict[tuple[str, str], list[tuple[Block, Cells]]] = {}
    for generator in dict.fromkeys(block.generator for block in blocks):
        mine = [block for block in blocks if block.generator == generator]
        options = advice(mine)
        for block in mine:
            for policy, cells in block.policies(options.get(block.scene)).items():
                policies.setdefault((generator, policy), []).append((block, cells))
    for block in {block.scene: block for block in blocks}.values():
        for control, cells in block.controls().items():
            policies.setdefault((CONTROLS, control), []).append((block, cells))
    return [line for names, of in policies.items() for line in _against_real(*names, of)]


def _against_real(generator: str, policy: str, of: Sequence[tuple[Block, Cells]]) -> Iterator[Record]:
    """The lines of a policy."""
    named = {'generator': generator, 'policy': policy}
    metrics = of[0][0].metrics
    gains = [{metric: block.compare(cells, metric) for metric in metrics} for block, cells in of]
    mixed = [mixes(cells) for _, cells in of]
    for (block, _), gain, share in zip(of, gains, mixed, strict=True):
        yield {'scene': block.scene, **named, 'mixes': share, **{name: as_record(one) for name, one in gain.items()}}
    means = {metric: mean_of_means([gain[metric] for gain in gains]) for metric in metrics}
    found = {name: {'mean': round(mean, 4), 'interval': rounded(ends)} for name, (mean, ends) in means.items()}
    yield {'scene': MEAN, **named, 'mixes': round(float(np.mean(mixed)), 4), **found}


def as_record(gain: PairedComparison) -> Record:
    """A comparison, in points."""
    return {
        'n': gain.n, 'mean': round(gain.mean, 4), 'sd': round(gain.sd, 4), 'interval': rounded(gain.interval),
        'p': round(gain.p, 4), 'wins': gain.wins,
    }  # fmt: skip


def rounded(ends: Sequence[float]) -> list[float]:
    """The ends of an interval."""
    return [round(end, 4) for end in ends]


def advice(blocks: Sequence[Block]) -> dict[str, Option]:
    """For each scene of a generator the fixed option, real only among them, that tests best on the other scenes."""
    if len(blocks) < 2:
        return {}
    metric = blocks[0].metrics[0]
    return advised_by_others(
        {
            block.scene: {
                option: [row['test'][metric] for row in block.option(*option).values()]
                for option in ((REAL, 0.0), *block.fixed)
            }
            for block in blocks
        }
    )


def mixes(cells: Cells) -> float:
    """Share of seeds in which anything synthetic is mixed in."""
    return round(float(np.mean([row['ratio'] > 0 and 'refused' not in row for row in cells.values()])), 4)


def primary(blocks: Sequence[Block]) -> list[Record]:
    """The ratio chosen behind gates against real only: non-inferiority and gain, each by Holm, cost and rejections."""
    chosen = [block.searched('gated') for block in blocks]
    comparisons = [block.compare(cells, block.metrics[0]) for block, cells in zip(blocks, chosen, strict=True)]
    tests, gains = non_inferiority(comparisons, MARGIN), holm([comparison.p for comparison in comparisons])
    return [
        {
            'scene': block.scene, 'generator': block.generator, 'mixes': mixes(cells),
            'gain': as_record(test.comparison), 'corrected': rounded(test.comparison.corrected),
            'p_gain_holm': round(p_gain, 4), 'p_non_inferior_holm': round(test.p_holm, 4),
            'conclusion': conclusion(test, p_gain), **cost(block), **rejections(block),
        }
        for block, cells, test, p_gain in zip(blocks, chosen, tests, gains, strict=True)
    ]  # fmt: skip


def conclusion(test: NonInferiority, p_gain: float) -> str:
    """What a comparison shows, in words."""
    comparison, found = test.comparison, test.conclusion
    if not comparison.basis_for_claims:
        return found
    if comparison.wins == comparison.losses == 0:
        return f'{found}: never mixes'
    if p_gain <= 2 * LEVEL:
        found += ', gains' if comparison.mean > 0 else ', loses'
    return found


def cost(block: Block) -> Record:
    """Of the race behind gates: trainings of networks, and CPU time with all fits in plain trainings."""
    races = [(row['gated'], row['plain_cpu_seconds']) for row in block.searches.values()]
    return {
        'trainings': float(np.mean([race['trainings'] for race, _ in races])),
        # The median: an interrupted race tells only what its last stretch took.
        'cost': round(float(np.median([race['cpu_seconds'] / plain for race, plain in races])), 1),
    }


def rejections(block: Block) -> Record:
    """Share of samples that gates reject, of gated cells refused as a whole, and of classes left out elsewhere."""
    reports = [row['rejected'] for row in block.searches.values()]
    total = sum(report['samples'] for report in reports)
    gated = [row for row in block.rows if row['arm'] == gated_name(block.generator)]
    left_out = [len(row['left_out']) / len(row['classes']) for row in gated if 'refused' not in row]
    return {
        'kept': round(sum(report['kept'] for report in reports) / total, 4),
        'rejected': {
            name: round(sum(report['rejected'][name] for report in reports) / total, 4)
            for name in reports[0]['rejected']
        },
        'refused': round(float(np.mean(['refused' in row for row in gated])), 4),
        'left_out': round(float(np.mean(left_out)), 4) if left_out else 0.0,
    }


# --- tables and figure ------------------------------------------------------------------------------------------------


def shown(gain: Mapping[str, Any]) -> str:
    """Mean and interval of a gain."""
    return f'{signed(gain["mean"])} {interval(tuple(gain["interval"]))}'


CHOSEN: Columns = {
    'scene': lambda row: row['scene'],
    'generator': lambda row: row['generator'],
    'seeds': lambda row: row['gain']['n'],
    'mixes': lambda row: f'{row["mixes"]:.0%}',
    'gain': lambda row: shown(row['gain']),
    'Nadeau–Bengio': lambda row: interval(tuple(row['corrected'])),
    'p non-inferior, Holm': lambda row: f'{row["p_non_inferior_holm"]:.3f}',
    'result': lambda row: row['conclusion'],
    'cost (trainings)': lambda row: f'{row["cost"]:.0f} ({row["trainings"]:.0f})',
}
REJECTED: Columns = {
    'scene': CHOSEN['scene'],
    'generator': CHOSEN['generator'],
    'kept': lambda row: f'{row["kept"]:.0%}',
    'rejected by': lambda row: ', '.join(f'{gate} {share:.0%}' for gate, share in row['rejected'].items()),
    'classes left out': lambda row: f'{row["left_out"]:.0%}',
    'gated cells refused': lambda row: f'{row["refused"]:.0%}',
}


def markdown(summary: Mapping[str, Any], metrics: Sequence[str], quick: bool = False) -> str:
    """All tables."""
    every, of_primary = summary['lines'], summary['primary']
    parts = [
        '**QUICK RUN: no basis for claims.**\n' if quick else '',
        f'Non-inferior to real only means: less than {MARGIN:g} points lost, one-sided paired t, Holm over the '
        f'{len(of_primary)} comparisons of the first table, {LEVEL:.1%}; gains and losses: sign flips, Holm, '
        f'{2 * LEVEL:.0%}. Points of OA (spectra) or mIoU (masks), 95 % intervals over seeds; the splits of one scene '
        'overlap, so that they speak for these scenes, not for others. Cost: CPU time of the race with all fits of '
        'generator and gates, in plain trainings.\n',
        f'## {PRIMARY[0].upper()}{PRIMARY[1:]}\n',
        records_table(of_primary, CHOSEN),
        '## What the gates reject\n',
        records_table(of_primary, REJECTED),
        '## Gain of every policy\n\nExploratory but for the one above; k: standard errors that a ratio must be better '
        f'by on folds; {ADVISED}: the fixed arm and ratio, real only among them, that test best on their mean.\n',
    ]
    for metric in metrics:
        parts.append(f'Δ{metric_name(metric)}:\n')
        for generator in dict.fromkeys(row['generator'] for row in every):
            mine = [row for row in every if row['generator'] == generator]
            at = {(row['policy'], row['scene']): row for row in mine}
            scenes = [*(scene for scene in dict.fromkeys(row['scene'] for row in every) if scene != MEAN), MEAN]
            table = [
                [
                    policy,
                    *(shown(at[policy, scene][metric]) if (policy, scene) in at else None for scene in scenes),
                    f'{at[policy, MEAN]["mixes"]:.0%}',
                ]
                for policy in dict.fromkeys(row['policy'] for row in mine)
            ]
            parts.append(markdown_table([generator, *scenes, 'mixes'], table))
    return '\n'.join(parts)


def draw(every: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Gain by scene with intervals, a row per generator; controls are grey.

    At fixed ratios only the highest is shown, which does most good or harm.
    """
    lines = [line for line in every if line['scene'] != MEAN]
    generators = list(dict.fromkeys(line['generator'] for line in lines if line['generator'] != CONTROLS))
    highest = max(line['policy'] for line in lines if line['policy'].startswith('naive, '))[len('naive, ') :]
    wanted = (f'naive, {highest}', f'gated, {highest}', VALIDATED, EITHER, PRIMARY, ADVISED)
    scenes = list(dict.fromkeys(line['scene'] for line in lines))
    figure = Figure(figsize=(1.3 * len(scenes) + 4, 2.9 * len(generators) + 0.3), layout='constrained')
    handles: dict[str, Any] = {}
    for panel, generator in zip(figure.subplots(len(generators), 1, squeeze=False)[:, 0], generators, strict=True):
        panel.axhline(0, color='#444444', lw=1)
        panel.axhline(-MARGIN, color='#444444', lw=0.8, ls=':')
        controls = {x['policy'] for x in lines if x['generator'] == CONTROLS and x['policy'].endswith(highest)}
        found = {x['policy'] for x in lines if x['generator'] == generator}
        colours = dict(zip((p for p in wanted if p in found), COLOURS, strict=False))
        colours |= dict(zip(sorted(controls), GREYS, strict=False))
        for number, (policy, colour) in enumerate(colours.items()):
            mine = [x for x in lines if x['policy'] == policy and x['generator'] in (generator, CONTROLS)]
            y = np.array([x[metric]['mean'] for x in mine], dtype=float)
            low, high = np.array([x[metric]['interval'] for x in mine], dtype=float).T
            x = np.array([scenes.index(line['scene']) for line in mine])
            x = x + (number - (len(colours) - 1) / 2) * 0.75 / len(colours)
            mark = {'fmt': 'D', 'ms': 5.5} if policy == PRIMARY else {'fmt': 'o', 'ms': 4}
            bar = panel.errorbar(x, y, np.nan_to_num([y - low, high - y]), color=colour, lw=1.2, **mark)
            handles.setdefault(policy, bar)
        panel.set_xticks(range(len(scenes)), scenes, fontsize=9)
        panel.set_xlim(-0.6, len(scenes) - 0.4)
        panel.set_title(generator, fontsize=10)
        panel.set_ylabel(f'{metric_name(metric)} less real only (points)', fontsize=9)
        panel.spines[['top', 'right']].set_visible(False)
        panel.grid(axis='y', color='#dddddd', lw=0.6)
        panel.set_axisbelow(True)
    figure.legend(handles.values(), handles, loc='outside right upper', frameon=False, fontsize=9)
    return figure
