"""Can synthetic samples be trusted? Naive mixing, gates, and a ratio that is chosen on folds, against real only.

    HSIAUG_DATA=folder python benchmarks/trust.py --quick                       # under 20 minutes on 2 cores, no claims
    HSIAUG_DATA=folder python benchmarks/trust.py --kinds spectrum              # the study of spectra
    HSIAUG_DATA=folder python benchmarks/trust.py --kinds segmentation          # the pairs, into the same folder

For each scene, seed and generator: real only, mixing at fixed ratios with and without gates, and two races on folds of
the training area (generator and gates are fitted anew without each fold): one over ratios behind gates, one over ratios
and whether there is a gate. Beside them, at the highest ratio and without gates, other ways of mixing: synthetic
samples first and then real ones alone, a smaller loss weight, normalisation of their own. All arms, and the controls,
duplicates and classic augmentation, take the same number of optimiser steps. The test score at a chosen ratio is that
of the cell with this ratio, so that policies differ in nothing else. Classes of which hardly anything passes the gates
are left out; where these hold half of the labels or more, nothing is mixed in. Interrupt and repeat at will.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch
from real_scenes import DISJOINT, MASKED, READERS, patch_splitter
from specdm_segmentation import SEGFORMER
from studies import data_root
from trust_groups import FALSE_ALARM, FoldGates, GatedArm, GatedGroup, GatedPatches, GatedSpectra
from trust_report import write_tables
from trust_table import KS, NO_GATE, SEARCHES_FILE, gated_name, way_name
from workers import run_in_workers

from hsiaug.ablation import Arm, Classifier, Downstream, Segmenter, Setting, Study
from hsiaug.ablation.results import PLAN_FILE, RESULTS_FILE, append_result, read_results
from hsiaug.ablation.runner import describe
from hsiaug.datasets import LabelPolicy, SyntheticDataset
from hsiaug.quality import PatchTrial, RatioSearch, Recorded, SpectraTrial
from hsiaug.records import write_json
from hsiaug.samples import Kind
from hsiaug.scenes import PatchSplitter, Scene, SimulatedScene
from hsiaug.trainers import ClassifierConfig


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
        group: how its cells are measured, and which gates there are.
        search: without thresholds and seed.
        trial: how a candidate is scored on a fold.
        ways: other ways of mixing at the highest ratio, by name.
        fold: settings of the trial.
        size: side of the simulated scene.
    """

    scenes: Mapping[str, Callable[[Path], Scene]]
    splitters: Mapping[str, Any]
    generators: Mapping[str, tuple[dict[str, Any], LabelPolicy]]
    controls: Mapping[str, tuple[str, dict[str, Any]]]
    ratios: tuple[float, ...]
    downstream: Downstream
    group: type[GatedGroup]
    search: RatioSearch
    trial: type[SpectraTrial] | type[PatchTrial]
    ways: Mapping[str, dict[str, Any]]
    fold: dict[str, Any] = field(default_factory=dict)
    size: int = 128


RATIOS = (0.5, 1.0, 2.0)
FIRST_SEED, FIXED_K = 4, 0.5  # k was fixed on the seeds before these; other values are read off the same races
WAYS: dict[str, dict[str, Any]] = {
    'synthetic first': {'synthetic_first': 0.5},
    'weight 0.25': {'training': {'synthetic_weight': 0.25}},
}
FEW = {'per_class': 30, 'on_rare': 'drop', 'max_test': 3000}
PARTS: dict[Kind, Part] = {
    'spectrum': Part(
        READERS,
        {name: DISJOINT['houston18' if name == 'simulated' else name](**FEW) for name in (*READERS, 'simulated')},
        # A short training of small networks: the question is what is done about a generator, not how good it can be.
        {
            'spectral_gan': ({'iterations': 150, 'hidden': 128}, 'real'),
            'gaussian': ({'components': 2, 'covariance': 'tied'}, 'real'),
            'variability': ({}, 'sqrt'),  # one that helps: does safety cost its gain?
        },
        {'duplicates': ('duplicate', {}), 'gain, offset': ('gain_offset', {})},
        RATIOS,
        Classifier('nn1d', ClassifierConfig(hidden=128, steps=200), steps=(200,)),
        GatedSpectra,
        RatioSearch(RATIOS, k=FIXED_K),
        SpectraTrial,
        WAYS,
    ),
    'segmentation': Part(
        {'jasper_ridge': MASKED['jasper_ridge']},
        {
            'jasper_ridge': replace(patch_splitter('jasper_ridge', 16), stride=4),
            'simulated': PatchSplitter(size=16, stride=8),
        },
        {
            'two_stream_diffusion': (
                {'vae_iterations': 400, 'vae_batch_size': 8, 'diffusion_iterations': 300, 'batch_size': 8}, 'real',
            ),
        },
        {'duplicates': ('patch_augment', {'kind': 'duplicate'}), 'CutMix': ('patch_augment', {'kind': 'cutmix'})},
        (1.0, 2.0),
        Segmenter('SegFormer, tiny', replace(SEGFORMER, steps=100)),
        GatedPatches,
        # Once over the folds: a trial costs a training of the diffusion model.
        RatioSearch((1.0, 2.0), trials=3, first=1, k=FIXED_K),
        PatchTrial,
        {**WAYS, 'auxiliary BN': {'training': {'auxiliary_bn': True}}},
        {'block': 2},
        96,
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
    found: dict[str, Callable[[], Scene]] = {}
    for name in (*part.scenes, 'simulated'):
        if name not in scenes:
            continue
        if name != 'simulated':
            try:
                part.scenes[name](root)
            except FileNotFoundError as error:
                print(f'{name}: not there, left out ({error})')
                continue
        found[name] = partial(open_scene, kind, name, root)
    arms: list[Arm] = []
    for name, (settings, labels) in part.generators.items():
        for arm, title in ((Arm, name), (GatedArm, gated_name(name))):
            arms.append(arm(title, name, settings, labels, part.ratios))
        for way, changed in part.ways.items():
            arms.append(Arm(way_name(name, way), name, settings, labels, part.ratios[-1:], **changed))
    for name, (generator, settings) in part.controls.items():
        arms.append(Arm(name, generator, settings, 'real', part.ratios[-2:], control=True))
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


def measure(root: Path, out: Path, plan: Study, setting: Setting, seed: int) -> None:
    """Measure what is missing of one scene and seed."""
    torch.set_num_threads(1)
    part, results, searches = PARTS[plan.kind], out / RESULTS_FILE, out / SEARCHES_FILE
    known = {row['cell']: row for row in read_results(results)}
    searched = {row['cell'] for row in read_results(searches)}
    cells = [cell for cell in plan.cells(setting, seed) if cell.key not in known]
    races: dict[str, str] = {}
    for cell in plan.cells(setting, seed):
        if cell.arm is not None and cell.arm.name in part.generators:
            races.setdefault(cell.arm.name, f'races of {cell.key}')  # the same split, network and generator
    if not cells and searched.issuperset(races.values()):
        return
    group = part.group(open_scene(plan.kind, setting.scene, root, seed), setting, seed, out)
    real = plan.cells(setting, seed)[0]
    if real.key in known:
        group.plain[real.classifier.name] = known[real.key]
    for cell in cells:
        _stop_if_orphaned()
        append_result(results, group.run(cell, plan.metrics))
    gates = FoldGates(part.group.kinds, seed)
    for name, key in races.items():
        if key not in searched:
            _stop_if_orphaned()
            arm = next(arm for arm in plan.arms if arm.name == name)
            append_result(searches, {'cell': key, **search(part, plan, group, arm, gates)})


def _stop_if_orphaned() -> None:
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit('the study was killed')  # an orphan must not race with the restarted study


def search(part: Part, plan: Study, group: GatedGroup, arm: Arm, gates: FoldGates) -> dict[str, Any]:
    """What both races choose, what they cost, and what the gates say of the generator."""
    tuned = group.tuned(part.downstream, plan.metrics[0])
    name = f'{group.setting.scene}-{group.seed}-{arm.name}.jsonl'
    settings = {'settings': arm.settings, 'labels': arm.labels, 'metric': plan.metrics[0], 'gate': gates, **part.fold}
    trial: Any = part.trial(group.scene, group.split, arm.generator, tuned.config, **settings)  # type: ignore[arg-type]
    recorded = Recorded(trial, group.folder / 'trials' / name)
    found: dict[str, Any] = {
        'kind': plan.kind, 'scene': group.setting.scene, 'seed': group.seed, 'generator': arm.name,
    }  # fmt: skip
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


def main() -> None:
    """Measure what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='3 seeds: spectra of two scenes, pairs of the simulated')
    parser.add_argument('--kinds', nargs='+', choices=list(PARTS), default=list(PARTS))
    parser.add_argument('--scenes', nargs='+', choices=[*READERS, 'jasper_ridge', 'simulated'], default=None)
    parser.add_argument('--seeds', type=int, default=None, help='default: 10, quick 3')
    parser.add_argument('--out', type=Path, default=None, help='run folder (default: runs/trust[-quick])')
    parser.add_argument('--workers', type=int, default=2)
    args = parser.parse_args()
    root = data_root()
    out = (args.out or Path('runs/trust-quick' if args.quick else 'runs/trust')).absolute()
    tasks = []
    for kind in args.kinds:
        scenes = args.scenes or (QUICK_SCENES[kind] if args.quick else list(PARTS[kind].splitters))
        if not set(scenes) & set(PARTS[kind].splitters):
            continue
        plan = study(root, kind, args.seeds or (3 if args.quick else 10), scenes, args.quick)
        write_json(out / kind / PLAN_FILE, describe(plan, 'cpu', args.workers))
        tasks += [(root, out / kind, plan, setting, seed) for setting, seed in plan.groups()]
    run_in_workers(measure, tasks, args.workers, 'scenes and seeds', 'group')
    print(write_tables(out))
    print(f'results: {out}')


if __name__ == '__main__':
    main()
