"""Can synthetic samples be trusted? Naive mixing, gates, and a ratio that is chosen on folds, against real only.

    HSIAUG_DATA=folder python benchmarks/trust.py --quick                       # under 20 minutes on 2 cores, no claims
    HSIAUG_DATA=folder python benchmarks/trust.py --kinds spectrum              # the study of spectra
    HSIAUG_DATA=folder python benchmarks/trust.py --kinds segmentation          # that of pairs

For each scene, seed and generator: real only, mixing at fixed ratios with and without gates, and two races on folds of
the training area (generator and gates are fitted anew without each fold): one over ratios behind gates, one over ratios
and whether there is a gate. Beside them, at the highest ratio and without gates, other ways of mixing: synthetic
samples first and then real ones alone, a smaller loss weight, normalisation of their own. All arms, and the controls,
duplicates and classic augmentation, take the same number of optimiser steps. The test score at a chosen ratio is that
of the cell with this ratio, so that policies differ in nothing else. Classes of which hardly anything passes the gates
are left out; where these hold half of the labels or more, nothing is mixed in. Interrupt and repeat at will.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from real_scenes import DISJOINT, MASKED, READERS, patch_splitter
from specdm_segmentation import SEGFORMER
from spectra_sources import TUNED
from studies import available, data_root, options, parsed
from torch import Tensor
from trust_report import KS, MARGIN, NO_GATE, blocks_of, draw, gated_name, lines, markdown, primary, way_name

from hsiaug.ablation import Arm, Classifier, Downstream, Experiment, Segmenter, Setting, Study
from hsiaug.ablation.cells import Group
from hsiaug.ablation.plan import Cell
from hsiaug.ablation.runner import describe
from hsiaug.datasets import LabelPolicy, SyntheticDataset
from hsiaug.quality import (
    AgreementGate,
    FoldTrial,
    Gate,
    Gated,
    GateError,
    Gates,
    NoveltyGate,
    RangeGate,
    RatioSearch,
    Recorded,
    SmoothnessGate,
    SubspaceGate,
    fit_gates,
    gate_generator,
    label_regions,
)
from hsiaug.samples import Kind
from hsiaug.scenes import PatchSplitter, Scene, SimulatedScene
from hsiaug.systems import Generator, TrainingData

FALSE_ALARM = 0.05


# --- gates ------------------------------------------------------------------------------------------------------------


class GatedArm(Arm):
    """An arm whose samples pass gates first."""


def fitted(kinds: tuple[type[Gate], ...], data: TrainingData, regions: Tensor, seed: int) -> Gates:
    """Each at the same false alarm rate; one that cannot be fitted is an error."""
    gates, missing = fit_gates(data, regions, FALSE_ALARM, seed, kinds)
    if gates is None or missing:
        raise ValueError(f'gates that cannot be fitted: {missing}')
    return gates


class FoldGates:
    """Puts gates in front of a generator; they are fitted once for each fold, whatever the generator.

    Args:
        kinds: of the gates.
        seed: of their fit.
    """

    def __init__(self, kinds: tuple[type[Gate], ...], seed: int) -> None:
        self.kinds, self.seed = kinds, seed
        self.fitted: dict[str | None, Gates] = {}

    def __call__(self, generator: Generator, data: TrainingData, regions: Tensor, threshold: float) -> Any:
        """The generator itself where the false alarm rate is 0: a gate that never rejects is none."""
        if threshold == NO_GATE:
            return generator
        assert data.provenance is not None
        fold = data.provenance.split
        if fold not in self.fitted:
            self.fitted[fold] = fitted(self.kinds, data, regions, self.seed)
        return gate_generator(self.fitted[fold], generator, seed=self.seed)


class GatedGroup(Group):
    """A group with gated arms."""

    def __init__(self, kinds: tuple[type[Gate], ...], *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.kinds = kinds
        self.gated: dict[str, Gated] = {}  # generators behind gates, by arm

    @cached_property
    def fold_gates(self) -> FoldGates:
        """For the folds of a ratio search."""
        return FoldGates(self.kinds, self.seed)

    @cached_property
    def gates(self) -> Gates:
        """Fitted to the training part."""
        return fitted(self.kinds, self.data, label_regions(self.scene, self.split), self.seed)

    def generator(self, arm: Arm) -> Any:
        """The arm's generator, behind gates where it is a gated arm."""
        if not isinstance(arm, GatedArm):
            return super().generator(arm)
        if arm.name not in self.gated:
            self.gated[arm.name] = gate_generator(self.gates, super().generator(arm), seed=self.seed)
        return self.gated[arm.name]

    def run(self, cell: Cell, metrics: Any) -> dict[str, Any]:
        """Train and measure one cell; where gates let too little pass, nothing is mixed in."""
        if not isinstance(cell.arm, GatedArm):
            return super().run(cell, metrics)
        try:
            return {**super().run(cell, metrics), 'left_out': list(self.gated[cell.arm.name].left_out)}
        except GateError as error:
            row = super().run(replace(cell, arm=None, ratio=0.0), metrics)
            return {**row, 'arm': cell.arm.name, 'ratio': cell.ratio, 'refused': str(error)}


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The study of one kind of samples.

    Args:
        scenes: how each real scene is opened; the simulated one is another with each seed.
        splitters: how each scene is split.
        generators: settings and labels of each that is judged, by registered name.
        controls: name in tables, generator and settings of the controls.
        ratios: fixed ratios, which the search chooses among; the controls have the same but the first.
        downstream: the network.
        gates: that there are.
        search: without thresholds and seed.
        ways: other ways of mixing at the highest ratio, by name.
        fold: settings of the trial.
        size: side of the simulated scene.
        raced: number of seeds whose races are run, for generators whose races cost too much to run all.
        seeds: number of seeds of everything but naive mixing, if it costs too much to run all.
    """

    scenes: Mapping[str, Callable[[Path], Scene]]
    splitters: Mapping[str, Any]
    generators: Mapping[str, tuple[dict[str, Any], LabelPolicy]]
    controls: Mapping[str, tuple[str, dict[str, Any]]]
    ratios: tuple[float, ...]
    downstream: Downstream
    gates: tuple[type[Gate], ...]
    search: RatioSearch
    ways: Mapping[str, dict[str, Any]]
    fold: dict[str, Any] = field(default_factory=dict)
    size: int = 128
    raced: Mapping[str, int] = field(default_factory=dict)
    seeds: int | None = None


RATIOS = (0.5, 1.0, 2.0)
FIRST_SEED, FIXED_K = 4, 1.0  # k is the default of a search; other values are read off the same races
WAYS: dict[str, dict[str, Any]] = {
    'synthetic first': {'synthetic_first': 0.5},
    'weight 0.25': {'training': {'synthetic_weight': 0.25}},
}
FEW = {'per_class': 30, 'on_rare': 'drop', 'max_test': 3000}
PARTS: dict[Kind, Part] = {
    'spectrum': Part(
        READERS,
        {name: DISJOINT['houston18' if name == 'simulated' else name](**FEW) for name in (*READERS, 'simulated')},
        {
            'spectral_gan': ({}, 'real'),
            'gaussian': ({'components': 2, 'covariance': 'tied'}, 'real'),
            'variability': ({}, 'sqrt'),  # one that helps: does safety cost its gain?
        },
        {'duplicates': ('duplicate', {}), 'gain, offset': ('gain_offset', {})},
        RATIOS,
        # What real spectra alone are learnt best with (spectra_sources.py), trained until the loss is flat.
        Classifier('nn1d', TUNED, ('decorrelated', 'standard'), steps=(TUNED.steps,)),
        (RangeGate, SmoothnessGate, SubspaceGate, AgreementGate, NoveltyGate),
        RatioSearch(RATIOS, k=FIXED_K),
        WAYS,
        raced={'spectral_gan': 1},  # both races of one seed train it a dozen times: two thirds of all time
    ),
    'segmentation': Part(
        {'jasper_ridge': MASKED['jasper_ridge']},
        {
            'jasper_ridge': replace(patch_splitter('jasper_ridge', 16), stride=4),
            'simulated': PatchSplitter(size=16, stride=8),
        },
        {
            'two_stream_diffusion': (
                {'vae_iterations': 800, 'vae_batch_size': 8, 'diffusion_iterations': 2500, 'batch_size': 8}, 'real',
            ),
            'region_paste': ({}, 'real'),  # one that helps
        },
        {'duplicates': ('patch_augment', {'kind': 'duplicate'}), 'CutMix': ('patch_augment', {'kind': 'cutmix'})},
        (1.0, 2.0),
        # As region_paste.py trains it, until real only no longer gains.
        Segmenter('SegFormer, tiny', replace(SEGFORMER, batch_size=16, steps=300)),
        # Do masks fit, and are patches new? The physical gates reject nearly all that a short training makes.
        (AgreementGate, NoveltyGate),
        # Once over the folds: a trial costs a training of the diffusion model.
        RatioSearch((1.0, 2.0), trials=3, first=1, k=FIXED_K),
        {**WAYS, 'auxiliary BN': {'training': {'auxiliary_bn': True}}},
        {'block': 2},
        96,
        raced={'two_stream_diffusion': 1, 'region_paste': 5},
        seeds=5,
    ),
}  # fmt: skip
QUICK_SCENES: dict[Kind, list[str]] = {'spectrum': ['salinas_a', 'houston18'], 'segmentation': ['simulated']}


def open_scene(kind: Kind, name: str, root: Path, seed: int = 0) -> Scene:
    """A scene by name; the simulated one is another with each seed."""
    part = PARTS[kind]
    return SimulatedScene(part.size, part.size, seed=seed) if name == 'simulated' else part.scenes[name](root)


def study(root: Path, kind: Kind, seeds: int, scenes: list[str], quick: bool) -> Study:
    """The cells of one kind of samples, on the scenes that are there."""
    part = PARTS[kind]
    readers = {name: partial(open_scene, kind, name) for name in (*part.scenes, 'simulated') if name in scenes}
    found = available(readers, readers, root)
    arms: list[Arm] = []
    for name, (settings, labels) in part.generators.items():
        arms.append(Arm(name, name, settings, labels, part.ratios))
        arms.append(GatedArm(gated_name(name), name, settings, labels, part.ratios, seeds=part.seeds))
        for way, changed in part.ways.items():
            arms.append(Arm(way_name(name, way), name, settings, labels, part.ratios[-1:], seeds=part.seeds, **changed))
    for name, (generator, settings) in part.controls.items():
        arms.append(Arm(name, generator, settings, 'real', part.ratios[-2:], control=True, seeds=part.seeds))
    settings_of = tuple(Setting(name, 'disjoint', part.splitters[name]) for name in found)
    return Study(
        title='Synthetic samples that one can trust',
        scenes=found,
        settings=settings_of,
        arms=tuple(arms),
        ratios=part.ratios,
        seeds=tuple(range(FIRST_SEED, FIRST_SEED + seeds)),
        classifiers=(part.downstream,),
        quick=quick,
    )


# --- measuring ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A cell of the study, or, with the generator named, its races."""

    scene: str
    seed: int
    key: str
    generator: str | None = None


@dataclass
class Measure:
    """Measures what there is of one kind of samples; what shares a split shares a group."""

    plan: Study
    root: Path
    folder: Path
    group: GatedGroup | None = None

    def __call__(self, one: Trained) -> dict[str, Any]:
        """A cell, or the races of a generator."""
        (setting,) = (setting for setting in self.plan.settings if setting.scene == one.scene)
        cells = {cell.key: cell for cell in self.plan.cells(setting, one.seed)}
        part, group = PARTS[self.plan.kind], self.group
        if group is None or (group.setting.scene, group.seed) != (one.scene, one.seed):
            scene = open_scene(self.plan.kind, one.scene, self.root, one.seed)
            group = self.group = GatedGroup(part.gates, scene, setting, one.seed, self.folder)
        if one.generator is None:
            return group.run(cells[one.key], self.plan.metrics)
        return search(part, self.plan, group, next(arm for arm in self.plan.arms if arm.name == one.generator))


def experiment(kind: Kind, plan: Study, root: Path, folder: Path) -> Experiment:
    """All cells of a study, and the races, which follow the cells of their scene and seed."""
    part, found = PARTS[kind], []
    for setting, seed in plan.groups():
        cells = plan.cells(setting, seed)
        found += [Trained(setting.scene, seed, cell.key) for cell in cells]
        first: dict[str, str] = {}
        for cell in cells:
            if cell.arm is not None and cell.arm.name in part.generators:
                first.setdefault(cell.arm.name, cell.key)  # the same split, network and generator
        raced = (name for name in first if seed < FIRST_SEED + part.raced.get(name, len(plan.seeds)))
        found += [Trained(setting.scene, seed, first[name], name) for name in raced]
    return Experiment(
        f'{plan.title}: {kind}',
        found,
        Measure(plan, root, folder),
        {'search': part.search, 'fold': part.fold, 'false_alarm': FALSE_ALARM},
        lambda one: (one.scene, one.seed),
        describe(plan, 'cpu', 1),
    )


def search(part: Part, plan: Study, group: GatedGroup, arm: Arm) -> dict[str, Any]:
    """What both races choose, what they cost, and what the gates say of the generator."""
    tuned = group.tuned(part.downstream, plan.metrics[0])
    name = f'{group.setting.scene}-{group.seed}-{arm.name}.jsonl'
    trial = FoldTrial(
        group.scene, group.split, arm.generator, tuned.config, arm.settings, arm.labels, plan.metrics[0],
        gate=group.fold_gates, **part.fold,
    )  # fmt: skip
    recorded = Recorded(trial, group.folder / 'trials' / name)
    found: dict[str, Any] = {'scene': group.setting.scene, 'seed': group.seed, 'generator': arm.name}
    start = time.process_time()
    for policy, thresholds in (('gated', (FALSE_ALARM,)), ('either', (NO_GATE, FALSE_ALARM))):
        choice = replace(part.search, thresholds=thresholds, seed=group.seed)(recorded)
        at = {str(k): choice.decided(k).chosen for k in KS}
        found[policy] = {
            'ratio': choice.ratio, 'threshold': choice.threshold, 'trainings': choice.trainings,
            'by_k': {k: [candidate.ratio, candidate.threshold] for k, candidate in at.items()},
            'standings': choice.to_dict()['standings'], 'cpu_seconds': round(time.process_time() - start, 1),
        }  # fmt: skip
    start = time.process_time()
    group.task.train(tuned, group.real, group.seed, group.device)
    found['plain_cpu_seconds'] = round(time.process_time() - start, 2)
    samples = SyntheticDataset(group.generator(arm), 500 if plan.kind == 'spectrum' else 60, group.seed, arm.labels)
    found['rejected'] = group.gates.review(samples)[1]
    return found


def write(of: Experiment, plan: Study, found: Sequence[dict[str, Any]], folder: Path) -> str:
    """Write tables, their data and a figure, and return the tables."""
    blocks = blocks_of(found, plan.metrics)
    summary = {'margin': MARGIN, 'primary': primary(blocks), 'lines': lines(blocks)}
    draw(summary['lines'], plan.metrics[0]).savefig(folder / 'figure.png', dpi=130)
    return of.write(folder, markdown(summary, plan.metrics[:2], plan.quick), summary)


def main() -> None:
    """Measure what is missing and write the tables."""
    parser = options(__doc__, 'trust', quick='3 seeds: spectra of two scenes, pairs of the simulated')
    parser.add_argument('--kinds', nargs='+', choices=list(PARTS), default=list(PARTS))
    parser.add_argument('--scenes', nargs='+', choices=[*READERS, 'jasper_ridge', 'simulated'], default=None)
    args = parsed(parser)
    root, out = data_root(), args.out
    for kind in args.kinds:
        scenes = args.scenes or (QUICK_SCENES[kind] if args.quick else list(PARTS[kind].splitters))
        if set(scenes) & set(PARTS[kind].splitters):
            plan = study(root, kind, args.seeds, scenes, args.quick)
            planned, folder = experiment(kind, plan, root, out / kind), out / kind
            print(write(planned, plan, planned.run(folder, args.workers), folder))
            print(f'results: {folder}')


if __name__ == '__main__':
    main()
