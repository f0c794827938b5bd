"""Gain, cost and risk of choosing the ratio on validation folds, on the spectra of every real scene at hand.

    HSIAUG_DATA=folder python benchmarks/ratio_search.py --quick          # minutes, no basis for claims
    HSIAUG_DATA=folder python benchmarks/ratio_search.py --workers 2      # the study; repeat to resume

For each scene, seed and generator all candidate ratios are trained and tested, and all trials on folds of the training
area are run once. The race, the race with a quarter of the steps, the race pooled over scenes, and values of k are then
evaluated on the same scores, so that they differ in nothing else. They are compared with the ratio that tests best on
the other scenes, which needs no search, and with one that adapts within one training. NN-1D at one setting, not tuned;
equal optimiser steps everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from real_scenes import DISJOINT, READERS
from studies import data_root, options, parsed

from hsiaug.ablation import Experiment
from hsiaug.ablation.experiment import Columns, records_table
from hsiaug.ablation.safety import advised_by_others
from hsiaug.ablation.statistics import mean_of_means, paired_comparison
from hsiaug.datasets import MixedDataset, SpectraDataset
from hsiaug.metrics import accuracies
from hsiaug.models import NN1D
from hsiaug.quality import AdaptiveRatio, Candidate, FoldTrial, RatioChoice, RatioSearch
from hsiaug.ratio import Constant, Schedule
from hsiaug.report.ablation import interval, signed
from hsiaug.scenes import Scene, Split
from hsiaug.trainers import ClassifierConfig, fit_generator, predict, train_nn1d, training_data

RATIOS = (0.5, 1.0, 2.0, 5.0)
KS = (0.0, 0.5, 1.0, 2.0)
FOLDS, TRIALS, SHORT = 3, 6, 0.25
GENERATORS: dict[str, tuple[dict[str, Any], str]] = {
    'variability': ({}, 'sqrt'),
    'gaussian': ({'covariance': 'tied'}, 'sqrt'),
    'duplicate': ({}, 'sqrt'),
    'spectral_gan': ({'iterations': 300}, 'real'),
}
SEARCHES = {'race': 1.0, 'race, quarter of the steps': SHORT}
"""Share of the steps of a plain training that a trial takes."""
Scores = dict[tuple[float, int, int], float]


@dataclass(frozen=True)
class Cell:
    """One generator on one split of one scene."""

    scene: str
    seed: int
    generator: str


@dataclass(frozen=True)
class Setting:
    """Settings shared by all cells."""

    root: Path
    per_class: int
    config: ClassifierConfig
    max_test: int = 3000


@dataclass
class Memory:
    """A trial that trains once: scores of ratio 0 are shared by generators, and all scores by searches."""

    trial: FoldTrial | None
    scores: Scores
    cost: float

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        """Score of a candidate."""
        key = (candidate.ratio, fold, seed)
        if key not in self.scores:
            assert self.trial is not None
            self.scores[key] = self.trial(candidate, fold, seed)
        return self.scores[key]


# --- measuring ------------------------------------------------------------------------------------------------------


class Group:
    """One split of one scene, with the accuracy and trials on folds with real data only, shared by generators."""

    def __init__(self, setting: Setting, name: str, seed: int) -> None:
        self.scene = READERS[name](setting.root)
        splitter = DISJOINT[name](per_class=setting.per_class, on_rare='drop', max_test=setting.max_test)
        self.split = splitter(self.scene, seed)
        self.real = SpectraDataset(self.scene, self.split, 'train')
        self.base = measured_accuracy(setting, self.scene, self.split, self.real, seed)
        self.plain: dict[float, Scores] = {1.0: {}, SHORT: {}}


group = lru_cache(maxsize=1)(Group)


def measure(cell: Cell, setting: Setting) -> dict[str, Any]:
    """Test accuracy at every ratio, the scores of all trials, and the adaptive ratio."""
    of, seed = group(setting, cell.scene, cell.seed), cell.seed
    scene, split, real = of.scene, of.split, of.real
    settings, labels = GENERATORS[cell.generator]
    source = fit_generator(cell.generator, training_data(scene, split), settings, seed)
    tested = {0.0: of.base}
    for ratio in RATIOS:
        mixed = MixedDataset(real, source, ratio, seed, labels=labels)  # type: ignore[arg-type]
        tested[ratio] = measured_accuracy(setting, scene, split, mixed, seed)
    trials = {}
    for share, shared in of.plain.items():
        trial = FoldTrial(scene, split, cell.generator, setting.config, settings, labels, share=share)  # type: ignore[arg-type]
        memory = Memory(trial, dict(shared), share)
        RatioSearch(RATIOS, (), FOLDS, TRIALS, TRIALS, seed=seed)(memory)
        shared.update({key: score for key, score in memory.scores.items() if key[0] == 0})
        trials[str(share)] = [[*key, score] for key, score in memory.scores.items()]
    return {
        'split': split.fingerprint, 'train': len(split.train), 'val': len(split.val), 'test_count': len(split.test),
        'test': {str(ratio): score for ratio, score in tested.items()}, 'trials': trials,
        'adaptive': adaptive(setting, scene, split, real, source, labels, seed),
    }  # fmt: skip


def measured_accuracy(
    setting: Setting, scene: Scene, split: Split, dataset: Any, seed: int, after: Any = None
) -> float:
    """Overall accuracy on the test part."""
    image, label = SpectraDataset(scene, split, 'test').tensors()
    network = train_nn1d(dataset, setting.config, seed, after_epoch=after)
    return accuracies(predict(network, image), label, dataset.spec.num_classes).oa


def adaptive(
    setting: Setting, scene: Scene, split: Split, real: SpectraDataset, source: Any, labels: Any, seed: int
) -> dict[str, Any]:
    """Test accuracy of the adaptive ratio, without and with the curve of a real-only training."""
    image, label = SpectraDataset(scene, split, 'val').tensors()
    curve: list[float] = []

    def train(ratio: Schedule, adapt: AdaptiveRatio | None) -> float:
        def score(epoch: int, network: NN1D) -> None:
            value = accuracies(predict(network, image), label, real.spec.num_classes).oa
            if adapt is None:
                curve.append(value)
            else:
                adapt.observe(epoch, value)

        mixed = MixedDataset(real, source, ratio, seed, 'replace', labels=labels)
        return measured_accuracy(setting, scene, split, mixed, seed, score)

    train(Constant(0.0), None)
    found: dict[str, Any] = {}
    for name, reference in (('adaptive', None), ('adaptive, with reference', curve)):
        schedule = AdaptiveRatio((0.0, *RATIOS), every=2, reference=reference, seed=seed)
        found[name] = {
            'test': train(schedule, schedule), 'mean_ratio': float(np.mean(schedule.history)),
            'given_up': schedule.given_up,
        }  # fmt: skip
    return found


# --- evaluation -----------------------------------------------------------------------------------------------------

Cells = dict[tuple[str, int], dict[str, Any]]


def replay(row: dict[str, Any], share: float = 1.0) -> Memory:
    """The recorded trials of a cell."""
    recorded = row['trials'][str(share)]
    return Memory(None, {(ratio, fold, seed): score for ratio, fold, seed, score in recorded}, share)


def choices(cells: Cells) -> dict[str, dict[tuple[str, int], RatioChoice]]:
    """The choices of each search for each scene and seed, at k = 0."""
    race = partial(RatioSearch, RATIOS, (), FOLDS, TRIALS, 2, 0.0)
    found = {
        name: {key: race(key[1])(replay(row, share)) for key, row in cells.items()} for name, share in SEARCHES.items()
    }
    for seed in sorted({seed for _, seed in cells}):
        mine = {scene: row for (scene, s), row in cells.items() if s == seed}
        if len(mine) > 1:
            shared = race(seed).pooled({scene: replay(row) for scene, row in mine.items()})
            per_scene = RatioChoice(shared.chosen, shared.standings, 0.0, 0, shared.cost / len(mine))
            found.setdefault('race, pooled over scenes', {}).update({(scene, seed): per_scene for scene in mine})
    return found


def line(cells: Cells, tested: dict[tuple[str, int], float]) -> dict[str, Any]:
    """Gain over real only of test accuracies with some ratio or schedule, in points."""
    gains, comparisons = [], []
    for scene in sorted({scene for scene, _ in cells}):
        keys = [key for key in cells if key[0] == scene]
        a, b = [100 * tested[key] for key in keys], [100 * cells[key]['test']['0.0'] for key in keys]
        sizes = float(np.mean([cells[key]['test_count'] / cells[key]['train'] for key in keys]))
        comparisons.append(paired_comparison(a, b, sizes))
        gains += np.subtract(a, b).tolist()
    mean, interval = mean_of_means(comparisons)
    return {
        'gain': mean, 'interval': [None if bound != bound else bound for bound in interval],
        'scenes': [c.mean for c in comparisons], 'harmed': float(np.mean(np.array(gains) < -0.5)),
    }  # fmt: skip


def lines(generator: str, cells: Cells) -> Iterator[dict[str, Any]]:
    """All lines of a generator: fixed ratios, what other scenes advise, searches at each k, and the adaptive ratio."""

    def of(how: str, tested: dict[tuple[str, int], float], k: float | None = None, **more: float) -> dict[str, Any]:
        return {'generator': generator, 'how': how, 'k': k, **line(cells, tested), **more}

    for ratio in RATIOS:
        yield of(f'ratio {ratio:g}', {key: row['test'][str(ratio)] for key, row in cells.items()}, cost=0)
    scores: dict[str, dict[str, list[float]]] = {}
    for (scene, _), row in cells.items():
        for name, score in row['test'].items():
            scores.setdefault(scene, {}).setdefault(name, []).append(score)
    if len(scores) > 1:
        advised = advised_by_others(scores)
        tested = {key: row['test'][advised[key[0]]] for key, row in cells.items()}
        yield of('what tests best on the other scenes', tested, cost=0)
    for name, found in choices(cells).items():
        for k in KS:
            at = {key: choice.decided(k) for key, choice in found.items()}
            tested = {key: cells[key]['test'][str(choice.ratio)] for key, choice in at.items()}
            mixed = float(np.mean([choice.ratio > 0 for choice in at.values()]))
            yield of(name, tested, k, cost=float(np.mean([choice.cost for choice in at.values()])), mixed=mixed)
    for name, cost in (('adaptive', 0), ('adaptive, with reference', 1)):
        yield of(name, {key: row['adaptive'][name]['test'] for key, row in cells.items()}, cost=cost)


def markdown(table: list[dict[str, Any]]) -> str:
    """The table in Markdown; gains in points of overall accuracy."""
    columns: Columns = {
        'generator': lambda row: row['generator'],
        'ratio': lambda row: row['how'],
        'k': lambda row: '' if row['k'] is None else f'{row["k"]:g}',
        'gain': lambda row: signed(row['gain']),
        '95 % interval': lambda row: interval(tuple(row['interval'])),
        'worst scene': lambda row: signed(min(row['scenes'])),
        'harmed > 0.5': lambda row: f'{row["harmed"]:.0%}',
        'mixes': lambda row: f'{row["mixed"]:.0%}' if 'mixed' in row else '',
        'cost': lambda row: f'{row["cost"]:.1f}',
    }
    return records_table(table, columns)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = options(__doc__, 'ratio_search', quick='3 seeds, two scenes, two generators, a small network')
    parser.add_argument('--first-seed', type=int, default=0, help='4 leaves out those that k was found on')
    parser.add_argument('--scenes', nargs='+', choices=list(READERS), default=None)
    parser.add_argument('--generators', nargs='+', choices=list(GENERATORS), default=None)
    parser.add_argument('--per-class', type=int, default=30, help='labels per class, validation included')
    args = parsed(parser)
    config = ClassifierConfig(hidden=64, layers=2, steps=100) if args.quick else ClassifierConfig(hidden=128, steps=200)
    setting = Setting(data_root(), args.per_class, config)
    scenes = args.scenes or (['salinas_a', 'houston18'] if args.quick else list(READERS))
    generators = args.generators or (['variability', 'gaussian'] if args.quick else list(GENERATORS)[:3])
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    experiment = Experiment(
        'A ratio chosen on validation folds',
        [Cell(name, seed, generator) for seed in seeds for name in scenes for generator in generators],
        partial(measure, setting=setting),
        {'per_class': args.per_class, 'config': config},
        lambda cell: (cell.scene, cell.seed),
        {'quick': args.quick, 'seeds': args.seeds, 'scenes': scenes},
    )
    rows = experiment.run(args.out, args.workers)
    by_generator = {
        name: {(row['scene'], row['seed']): row for row in rows if row['generator'] == name} for name in generators
    }
    table = [line for name, cells in by_generator.items() for line in lines(name, cells)]
    print(experiment.write(args.out, markdown(table), table))


if __name__ == '__main__':
    main()
