"""What the study of trust says, read off its results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsiaug.ablation.plan import REAL
from hsiaug.ablation.results import PLAN_FILE, RESULTS_FILE, read_results
from hsiaug.ablation.safety import LEVEL, NonInferiority, advised_by_others, non_inferiority
from hsiaug.ablation.statistics import PairedComparison, Row, choose_ratios, holm, mean_of_means, paired_comparison

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
    """One scene and generator, the seeds of which everything is measured.

    Args:
        kind: of the samples.
        scene: name of the scene.
        generator: name of the generator.
        metrics: the primary one and a second one.
        rows: all cells of the scene.
        searches: what was chosen, by seed.
    """

    kind: str
    scene: str
    generator: str
    metrics: tuple[str, str]
    rows: list[Row]
    searches: dict[int, dict[str, Any]]

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
        """Cells against real only, or others, in points of a test metric."""
        base = self.option((REAL, 0.0)) if base is None else base
        seeds = sorted(set(cells) & set(base) & set(self.searches))
        a, b = ([100 * side[seed]['test'][metric] for seed in seeds] for side in (cells, base))
        sizes = np.mean([base[seed]['test_count'] / base[seed]['train_real'] for seed in seeds])
        return paired_comparison(a, b, float(sizes))


def read_blocks(out: Path) -> tuple[list[Block], dict[str, dict[str, Any]]]:
    """What is measured, and the plan of each kind of samples."""
    blocks, plans = [], {}
    for path in sorted(out.glob(f'*/{PLAN_FILE}'), reverse=True):  # spectra first
        plan, kind = json.loads(path.read_text()), path.parent.name
        found = read_results(path.parent / RESULTS_FILE)
        rows, searches = ([row for row in found if ('gated' in row) == search] for search in (False, True))
        plans[kind] = plan
        for scene, *_ in plan['settings']:
            for generator in dict.fromkeys(row['generator'] for row in searches):
                mine = {r['seed']: r for r in searches if (r['scene'], r['generator']) == (scene, generator)}
                if mine:
                    here = [row for row in rows if row['scene'] == scene and row['seed'] in mine]
                    first, second = plan['metrics'][:2]
                    blocks.append(Block(kind, scene, generator, (first, second), here, dict(sorted(mine.items()))))
    return blocks, plans


# --- reading off ----------------------------------------------------------------------------------------------------


def lines(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Every policy and control of every block against real only, JSON-ready."""
    found = []
    for block in blocks:
        controls = block.controls()
        option = advice(block, blocks)
        advised = {} if option is None else {ADVISED: block.option(option)}
        for policy, cells in {**block.policies(), **advised, **controls}.items():
            cells = {seed: row for seed, row in cells.items() if seed in block.searches}
            gain, second = (block.compare(cells, metric) for metric in block.metrics)
            found.append(
                {
                    'kind': block.kind, 'scene': block.scene, 'generator': block.generator, 'policy': policy,
                    'metrics': block.metrics, 'gain': asdict(gain), 'second': asdict(second),
                    'mixes': mixes(cells), 'control': policy in controls,
                }
            )  # fmt: skip
    return found


def primary(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """The ratio chosen behind gates: non-inferiority and gain, each corrected within the family; regret; cost."""
    comparisons = [block.compare(block.searched('gated'), block.metrics[0]) for block in blocks]
    tests, gains = non_inferiority(comparisons, MARGIN), holm([comparison.p for comparison in comparisons])
    return [
        {
            'kind': block.kind, 'scene': block.scene, 'generator': block.generator, 'metric': block.metrics[0],
            'seeds': test.comparison.n, 'gain': asdict(test.comparison), 'p_gain_holm': p_gain,
            'p_non_inferior': test.p, 'p_non_inferior_holm': test.p_holm, 'conclusion': conclusion(test, p_gain),
            'mixes': mixes(block.searched('gated')),
            **{f'regret of {race}': regret(block, blocks, race) for race in SEARCHED.values()},
            **cost(block),
        }
        for block, test, p_gain in zip(blocks, tests, gains, strict=True)
    ]  # fmt: skip


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
    peers = [b for b in blocks if (b.kind, b.generator) == (block.kind, block.generator)]
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


def followed(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """What following the other scenes' advice brings, a family of its own; blocks without other scenes are left out."""
    options = {block: option for block in blocks if (option := advice(block, blocks)) is not None}
    comparisons = [block.compare(block.option(option), block.metrics[0]) for block, option in options.items()]
    tests, gains = non_inferiority(comparisons, MARGIN), holm([comparison.p for comparison in comparisons])
    return [
        {
            'kind': block.kind, 'scene': block.scene, 'generator': block.generator, 'advised': list(option),
            'mixes': mixes({seed: block.option(option)[seed] for seed in block.searches}),
            'gain': asdict(test.comparison), 'p_gain_holm': p_gain, 'p_non_inferior_holm': test.p_holm,
            'conclusion': conclusion(test, p_gain),
        }
        for (block, option), test, p_gain in zip(options.items(), tests, gains, strict=True)
    ]  # fmt: skip


def by_k(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Mean gain over scenes, and share of seeds with anything mixed in, for each k of the same races."""
    found = []
    for kind, generator in dict.fromkeys((b.kind, b.generator) for b in blocks):
        mine = [b for b in blocks if (b.kind, b.generator) == (kind, generator)]
        for policy, race in SEARCHED.items():
            for k in KS:
                chosen = [block.searched(race, k) for block in mine]
                each = [block.compare(cells, block.metrics[0]) for block, cells in zip(mine, chosen, strict=True)]
                mean, bounds = mean_of_means(each)
                found.append(
                    {
                        'generator': generator, 'policy': policy, 'k': k, 'gain': mean, 'interval': bounds,
                        'mixes': float(np.mean([mixes(cells) for cells in chosen])),
                    }
                )  # fmt: skip
    return found


def rejections(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Share of samples that each gate rejects, of gated cells refused as a whole, and of classes left out elsewhere."""
    found = []
    for block in blocks:
        reports = [row['rejected'] for row in block.searches.values()]
        total = sum(report['samples'] for report in reports)
        gated = [row for row in block.rows if row['arm'] == gated_name(block.generator)]
        found.append(
            {
                'scene': block.scene, 'generator': block.generator,
                'kept': sum(report['kept'] for report in reports) / total,
                'rejected': {
                    name: sum(report['rejected'][name] for report in reports) / total for name in reports[0]['rejected']
                },
                'refused': float(np.mean(['refused' in row for row in gated])),
                'left_out': mean_left_out(gated),
            }
        )  # fmt: skip
    return found


def mean_left_out(gated: Sequence[Row]) -> float:
    """Share of classes that gated cells do without, of those in which anything is mixed in."""
    shares = [len(row['left_out']) / len(row['classes']) for row in gated if 'refused' not in row]
    return float(np.mean(shares)) if shares else 0.0
