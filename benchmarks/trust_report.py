"""What the study of trust says, read off its results: tables and figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hsiaug.ablation.environment import measured_with
from hsiaug.ablation.experiment import Columns, markdown_table, records_table
from hsiaug.ablation.plan import REAL
from hsiaug.ablation.results import PLAN_FILE, RESULTS_FILE, read_results
from hsiaug.ablation.safety import LEVEL, NonInferiority, advised_by_others, non_inferiority
from hsiaug.ablation.statistics import PairedComparison, Row, choose_ratios, compare_cells, holm, mean_of_means
from hsiaug.records import read_json, write_json
from hsiaug.report.ablation import interval, signed
from hsiaug.report.figures import COLOURS, GREYS, metric_name
from hsiaug.tasks.base import finite

NO_GATE = 0.0  # a false alarm rate at which nothing is ever rejected
MARGIN = 0.5  # points that may be lost
KS = (0.0, 0.5, 1.0, 2.0)
PRIMARY, EITHER, VALIDATED = 'gated, ratio chosen on folds', 'gate and ratio chosen on folds', 'gated, ratio validated'
ADVISED = 'as other scenes advise'
SEARCHED = {PRIMARY: 'gated', EITHER: 'either'}  # policies and their races
Option = tuple[str, float]  # arm and ratio


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
    searches: dict[int, dict[str, Any]]

    @property
    def named(self) -> dict[str, str]:
        """What a record of it begins with."""
        return {'scene': self.scene, 'generator': self.generator}

    def option(self, option: Option) -> dict[int, Row]:
        """The cells of an arm at a ratio, by seed."""
        arm, ratio = option
        return {row['seed']: row for row in self.rows if (row['arm'], row['ratio']) == (arm, ratio)}

    @property
    def fixed(self) -> list[Option]:
        """Real only, and the generator at each ratio without and with gates."""
        arms = (self.generator, gated_name(self.generator))
        ratios = sorted({row['ratio'] for row in self.rows if row['arm'] == self.generator})
        return [(REAL, 0.0), *((arm, ratio) for arm in arms for ratio in ratios)]

    def searched(self, race: str, k: float | None = None) -> dict[int, Row]:
        """The cells that a race chose, by seed; with its own ``k`` if None."""
        found = {}
        for seed, row in self.searches.items():
            chosen = row[race]
            ratio, threshold = (chosen['ratio'], chosen['threshold']) if k is None else chosen['by_k'][str(k)]
            arm = self.generator if threshold == NO_GATE else gated_name(self.generator)
            found[seed] = self.option((REAL if ratio == 0 else arm, ratio))[seed]
        return found

    def policies(self) -> dict[str, dict[int, Row]]:
        """The cells of each policy, by seed."""
        named = {self.generator: 'naive', gated_name(self.generator): 'gated'}
        fixed = {f'{named[arm]}, r = {r:g}': self.option((arm, r)) for arm, r in self.fixed[1:] if r >= 1}
        start, options = way_name(self.generator, ''), {(row['arm'], row['ratio']) for row in self.rows}
        ways = {
            f'{arm.removeprefix(start)}, r = {ratio:g}': self.option((arm, ratio))
            for arm, ratio in sorted(options) if arm.startswith(start)
        }  # fmt: skip
        return {
            **fixed,
            **ways,
            VALIDATED: choose_ratios(self.rows, gated_name(self.generator), self.metrics[0]),
            **{policy: self.searched(race) for policy, race in SEARCHED.items()},
        }

    def controls(self) -> dict[str, dict[int, Row]]:
        """The cells of each control, by seed."""
        found = sorted({(row['arm'], row['ratio']) for row in self.rows if row.get('control')})
        return {f'{arm}, r = {ratio:g}': self.option((arm, ratio)) for arm, ratio in found}

    def compare(self, cells: Mapping[int, Row], metric: str, base: Mapping[int, Row] | None = None) -> PairedComparison:
        """Cells against real only, or others, in points of a test metric, over the seeds that both have."""
        found = compare_cells(cells, self.option((REAL, 0.0)) if base is None else base, metric)
        assert found is not None  # every seed has its real-only cell
        return found


def read_blocks(folder: Path) -> list[Block]:
    """What a run folder holds by now: the scenes and generators with at least one seed of which everything is there.

    Raises:
        ValueError: if there are none.
    """
    plan, found = read_json(folder / PLAN_FILE, 'the plan of a study'), read_results(folder / RESULTS_FILE)
    rows, searches = ([row for row in found if ('gated' in row) == search] for search in (False, True))
    first, second = plan['metrics'][:2]
    blocks = []
    for scene, *_ in plan['settings']:
        here = [row for row in rows if row['scene'] == scene]
        for generator in dict.fromkeys(row['generator'] for row in searches):
            mine = {r['seed']: r for r in searches if (r['scene'], r['generator']) == (scene, generator)}
            if mine:
                blocks.append(Block(scene, generator, (first, second), here, dict(sorted(mine.items()))))
    if not blocks:
        raise ValueError(f'{folder} holds no finished search yet')
    return blocks


# --- reading off ----------------------------------------------------------------------------------------------------


def all_policies(block: Block, blocks: Sequence[Block]) -> dict[str, dict[int, Row]]:
    """The cells of each policy, of what the other scenes advise, and of each control."""
    option = advice(block, blocks)
    advised = {} if option is None else {ADVISED: block.option(option)}
    return {**block.policies(), **advised, **block.controls()}


def lines(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Every policy and control of every block against real only, JSON-ready."""
    found = []
    for block in blocks:
        for policy, cells in all_policies(block, blocks).items():
            gain, second = (block.compare(cells, metric) for metric in block.metrics)
            record = {'policy': policy, 'metrics': block.metrics, 'gain': asdict(gain), 'second': asdict(second)}
            found.append({**block.named, **record, 'mixes': mixes(cells), 'control': policy in block.controls()})
    return found


def family(chosen: Mapping[Block, Mapping[int, Row]]) -> list[dict[str, Any]]:
    """Cells of blocks against real only: non-inferiority and gain, each corrected within these."""
    comparisons = [block.compare(cells, block.metrics[0]) for block, cells in chosen.items()]
    tests, gains = non_inferiority(comparisons, MARGIN), holm([comparison.p for comparison in comparisons])
    return [
        {
            **block.named,
            'metric': block.metrics[0],
            'seeds': test.comparison.n,
            'gain': asdict(test.comparison),
            'p_gain_holm': p_gain,
            'p_non_inferior': test.p,
            'p_non_inferior_holm': test.p_holm,
            'conclusion': conclusion(test, p_gain),
            'mixes': mixes(cells),
        }
        for (block, cells), test, p_gain in zip(chosen.items(), tests, gains, strict=True)
    ]


def primary(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """The ratio chosen behind gates against real only; its regret, and what it costs."""
    rows = family({block: block.searched('gated') for block in blocks})
    return [
        {**row, **{f'regret of {race}': regret(block, blocks, race) for race in SEARCHED.values()}, **cost(block)}
        for block, row in zip(blocks, rows, strict=True)
    ]


def followed(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """What following the other scenes' advice brings, a family of its own; blocks without other scenes are left out."""
    options = {block: option for block in blocks if (option := advice(block, blocks)) is not None}
    rows = family({block: block.option(option) for block, option in options.items()})
    return [{**row, 'advised': list(option)} for row, option in zip(rows, options.values(), strict=True)]


def mixes(cells: Mapping[int, Row]) -> float:
    """Share of seeds in which anything synthetic is mixed in."""
    return float(np.mean([row['ratio'] > 0 and 'refused' not in row for row in cells.values()]))


def cost(block: Block) -> dict[str, float]:
    """Of the race behind gates: trainings of networks, and CPU time with all fits in plain trainings."""
    races = [(row['gated'], row['plain_cpu_seconds']) for row in block.searches.values()]
    return {
        'trainings': float(np.mean([race['trainings'] for race, _ in races])),
        # The median: an interrupted race tells only what its last stretch took.
        'cost': float(np.median([race['cpu_seconds'] / plain for race, plain in races])),
    }


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


def advice(block: Block, blocks: Sequence[Block]) -> Option | None:
    """The fixed option, real only among them, that tests best on the other scenes; None without other scenes."""
    peers = [peer for peer in blocks if peer.generator == block.generator]
    if len(peers) < 2:
        return None
    scores = {
        peer.scene: {o: [peer.option(o)[seed]['test'][block.metrics[0]] for seed in peer.searches] for o in peer.fixed}
        for peer in peers
    }
    return advised_by_others(scores)[block.scene]


def regret(block: Block, blocks: Sequence[Block], race: str) -> dict[str, Any] | None:
    """Score of the option that the other scenes advise, less that of the choice; None without other scenes."""
    option = advice(block, blocks)
    if option is None:
        return None
    compared = block.compare(block.option(option), block.metrics[0], block.searched(race))
    return {'advised': list(option), **asdict(compared)}


def by_generator(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """The scenes of each generator."""
    return {name: [b for b in blocks if b.generator == name] for name in dict.fromkeys(b.generator for b in blocks)}


def by_k(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Mean gain over scenes, and share of seeds with anything mixed in, for each k of the same races."""
    found = []
    for generator, mine in by_generator(blocks).items():
        for policy, race in SEARCHED.items():
            for k in KS:
                chosen = [block.searched(race, k) for block in mine]
                each = [block.compare(cells, block.metrics[0]) for block, cells in zip(mine, chosen, strict=True)]
                mean, bounds = mean_of_means(each)
                mixed = float(np.mean([mixes(cells) for cells in chosen]))
                record = {'generator': generator, 'policy': policy, 'k': k, 'gain': mean, 'interval': bounds}
                found.append({**record, 'mixes': mixed})
    return found


def rejections(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Share of samples that each gate rejects, of gated cells refused as a whole, and of classes left out elsewhere."""
    found = []
    for block in blocks:
        reports = [row['rejected'] for row in block.searches.values()]
        total = sum(report['samples'] for report in reports)
        gated = [row for row in block.rows if row['arm'] == gated_name(block.generator)]
        left_out = [len(row['left_out']) / len(row['classes']) for row in gated if 'refused' not in row]
        found.append(
            {
                'scene': block.scene, 'generator': block.generator,
                'kept': sum(report['kept'] for report in reports) / total,
                'rejected': {
                    name: sum(report['rejected'][name] for report in reports) / total for name in reports[0]['rejected']
                },
                'refused': float(np.mean(['refused' in row for row in gated])),
                'left_out': float(np.mean(left_out)) if left_out else 0.0,
            }
        )  # fmt: skip
    return found


# --- tables and figure ------------------------------------------------------------------------------------------------


def percent(value: float) -> str:
    """A share, in whole percent."""
    return f'{100 * value:.0f} %'


def compared(found: Mapping[str, Any] | None) -> str:
    """Mean and interval of a comparison."""
    return '–' if found is None else f'{signed(found["mean"])} {interval(tuple(found["interval"]))}'


def _advised(found: Mapping[str, Any] | None) -> str:
    return '–' if found is None else f'{found["advised"][0]}, r = {found["advised"][1]:g}'


WHERE: Columns = {'scene': lambda row: row['scene'], 'generator': lambda row: row['generator']}
CHOSEN: Columns = {
    **WHERE,
    'seeds': lambda row: str(row['seeds']),
    'mixes': lambda row: percent(row['mixes']),
    'gain': lambda row: compared(row['gain']),
    'Nadeau–Bengio': lambda row: interval(tuple(row['gain']['corrected'])),
    'p non-inferior, Holm': lambda row: f'{row["p_non_inferior_holm"]:.3f}',
    'result': lambda row: row['conclusion'],
    'advised by others': lambda row: _advised(row['regret of gated']),
    'regret': lambda row: compared(row['regret of gated']),
    'regret, gate chosen too': lambda row: compared(row['regret of either']),
    'cost (trainings)': lambda row: f'{row["cost"]:.0f} ({row["trainings"]:.0f})',
}
FOLLOWED: Columns = {
    **WHERE,
    'advised': _advised,
    **{title: CHOSEN[title] for title in ('mixes', 'gain', 'p non-inferior, Holm')},
    'conclusion': CHOSEN['result'],
}
BY_K: Columns = {
    'generator': WHERE['generator'],
    'policy': lambda row: row['policy'],
    'k': lambda row: f'{row["k"]:g}',
    'mixes': CHOSEN['mixes'],
    'gain': lambda row: f'{signed(row["gain"])} {interval(row["interval"])}',
}


def _rejected(gate: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: percent(row['rejected'][gate]) if gate in row['rejected'] else '–'


def markdown(summary: Mapping[str, Any]) -> str:
    """All tables."""
    followed, gates = summary['followed'], dict.fromkeys(g for row in summary['rejections'] for g in row['rejected'])
    rejected: Columns = {
        **WHERE,
        'kept': lambda row: percent(row['kept']),
        **{gate: _rejected(gate) for gate in gates},
        'classes left out': lambda row: percent(row['left_out']),
        'gated cells refused': lambda row: percent(row['refused']),
    }
    parts = [
        f'# {summary["title"]}\n',
        '**QUICK RUN: no basis for claims.**\n' if summary['quick'] else '',
        f'Non-inferior to real only means: less than {MARGIN:g} points lost, one-sided paired t, Holm over the '
        f'{len(summary["primary"])} comparisons of this table, {LEVEL:.1%}; gains and losses: sign flips, Holm, '
        f'{2 * LEVEL:.0%}. Points of OA (spectra) or mIoU (masks), 95 % intervals over seeds; the splits of one scene '
        'overlap, so that they speak for these scenes, not for others. Regret: what the fixed ratio and gate that the '
        'other scenes advise would have brought more. Cost: CPU time of the race with all fits of generator and gates, '
        'in plain trainings.\n',
        f'## {PRIMARY[0].upper()}{PRIMARY[1:]}\n',
        records_table(summary['primary'], CHOSEN),
    ]
    if followed:
        parts += [
            f'## {ADVISED[0].upper()}{ADVISED[1:]}\n\nExploratory, thought of after the first results: nothing is '
            'searched on the scene; the arm and ratio, real only among them, are those that test best on the mean of '
            f'the other scenes. Holm over these {len(followed)}.\n',
            records_table(followed, FOLLOWED),
        ]
    parts.append(
        '## Gain of every policy\n\nExploratory but for the one above. Controls do not depend on the generator.\n'
    )
    every = summary['lines']
    scenes = list(dict.fromkeys(row['scene'] for row in every))
    groups = {name: [row for row in every if row['generator'] == name and not row['control']]
              for name in dict.fromkeys(row['generator'] for row in every)}  # fmt: skip
    groups['controls'] = [row for row in every if row['control']]
    for which, metric in zip(('gain', 'second'), every[0]['metrics'], strict=True):
        parts.append(f'Δ{metric_name(metric)}:\n')
        for title, those in groups.items():
            at = {(row['policy'], row['scene']): compared(row[which]) for row in those}
            policies = dict.fromkeys(policy for policy, _ in at)
            rows = [[policy, *(at.get((policy, scene), '–') for scene in scenes)] for policy in policies]
            parts.append(markdown_table([title, *scenes], rows))
    return '\n'.join(
        [
            *parts,
            '## What the gates reject\n',
            records_table(summary['rejections'], rejected),
            '## k, the standard errors that a ratio must be better by\n\nMean over scenes, of the same races.\n',
            records_table(summary['by_k'], BY_K),
            '## How it was measured\n',
            measured_with(summary['plan']) + '\n',
        ]
    )


def drawn(block: Block, blocks: Sequence[Block]) -> dict[str, dict[int, Row]]:
    """What the figure shows of a block: at fixed ratios only the highest, which does most good or harm."""
    highest, found = f'r = {max(ratio for _, ratio in block.fixed):g}', all_policies(block, blocks)
    controls = [name for name in block.controls() if name.endswith(highest)]
    names = (f'naive, {highest}', f'gated, {highest}', VALIDATED, EITHER, PRIMARY, ADVISED, *controls)
    return {name: found[name] for name in names if name in found}


def draw(blocks: Sequence[Block]) -> Figure:
    """Gain by scene with intervals, a row per generator; controls are grey."""
    shown = by_generator(blocks)
    most = max(len(mine) for mine in shown.values())
    figure = Figure(figsize=(1.3 * most + 4, 2.9 * len(shown) + 0.3), layout='constrained')
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
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


def write_tables(folder: Path) -> str:
    """Write ``trust.md``, ``trust.json`` and ``trust.png`` into the run folder of a kind, and return the tables.

    Raises:
        ValueError: if no search is finished yet.
    """
    blocks, plan = read_blocks(folder), read_json(folder / PLAN_FILE, 'the plan of a study')
    summary = {
        'title': plan['title'], 'quick': plan['quick'], 'margin': MARGIN, 'plan': plan, 'primary': primary(blocks),
        'followed': followed(blocks), 'lines': lines(blocks), 'rejections': rejections(blocks), 'by_k': by_k(blocks),
    }  # fmt: skip
    write_json(folder / 'trust.json', finite(summary))
    text = markdown(summary)
    (folder / 'trust.md').write_text(text)
    draw(blocks).savefig(folder / 'trust.png', dpi=130)
    return text
