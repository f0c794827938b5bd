"""Gain from regions pasted into other pairs: smooth fields against box CutMix and ClassMix, on the real scenes at hand.

    HSIAUG_DATA=folder python benchmarks/region_paste.py                      # the sets on which the design is chosen
    HSIAUG_DATA=folder python benchmarks/region_paste.py --part confirm       # others, to be looked at once

Few labelled windows, ratio 1, flips and turns in every arm, the same number of optimiser steps, which is one at which
validation with real data alone no longer rises. Samples are drawn anew in each epoch. Interrupt and repeat at will.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from real_scenes import CHANGE, MASKED, patch_splitter
from specdm_change import CHANGEFORMER
from specdm_change import splitter as change_crops
from specdm_segmentation import SEGFORMER
from studies import available, data_root

from hsiaug.ablation import Arm, Detector, Segmenter, Setting, Study, run_study
from hsiaug.ablation.plan import REAL
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.ablation.runner import environment
from hsiaug.ablation.statistics import PairedComparison, mean_of_means, summarise
from hsiaug.records import write_json
from hsiaug.report.ablation import interval, signed
from hsiaug.report.figures import metric_name
from hsiaug.tasks.base import Network

# Side of the 30 windows to train on: no more than 6 of 32 pixels fit in the training part of the small scenes.
SIZES = {
    'choose': {'jasper_ridge': 16, 'barkbeetle': 32},
    'confirm': {'water12': 32, 'houston18': 16, 'clouds_sentinel2': 32, 'samson': 16},
}
WINDOWS, CROPS, UNLABELLED = 30, 100, 200
SEGMENTER = Segmenter('SegFormer, tiny', replace(SEGFORMER, upsampling=1, batch_size=8, steps=400))
DETECTOR = Detector('ChangeFormer, tiny', replace(CHANGEFORMER, batch_size=8, steps=300))
PASTED = {
    'box CutMix': ({'regions': 'box'}, 'real', True),
    'ClassMix': ({'regions': 'class'}, 'real', True),
    'smooth fields': ({'regions': 'smooth'}, 'real', False),
    'smooth fields, donors by class': ({'regions': 'smooth'}, 'uniform', False),
}  # settings, labels, and whether it is a control
PSEUDO = 'smooth fields of pseudo-labelled windows'


def arms(network: Network, wanted: list[str]) -> tuple[Arm, ...]:
    """The arms of one downstream network, which teaches pseudo-labels too."""
    every = [
        Arm(name, 'region_paste', settings, labels, control=control, live=True)
        for name, (settings, labels, control) in PASTED.items()
    ]
    pseudo = {'teacher': asdict(network.config), 'paste': 'donor'}
    every.append(Arm(PSEUDO, 'pseudo_label', pseudo, 'real', live=True))
    return tuple(arm for arm in every if arm.name in wanted)


def studies(root: Path, part: str, seeds: range, wanted: list[str], scenes: list[str] | None) -> dict[str, Study]:
    """The study of masks and, of the sets to choose on, that of changes, on the scenes that are there."""
    found: dict[str, Study] = {}
    for kind, readers, sizes, network in (
        ('segmentation', MASKED, SIZES[part], SEGMENTER),
        ('change', CHANGE, dict.fromkeys(CHANGE, 32) if part == 'choose' else {}, DETECTOR),
    ):
        names = [name for name in sizes if scenes is None or name in scenes]
        if not names:
            continue
        opened: dict[str, Any] = available(names, readers, root)  # type: ignore[arg-type]
        found[kind] = Study(
            title=f'Regions pasted into other pairs: {kind}, {part}',
            scenes=opened,
            settings=tuple(setting(kind, name, sizes[name]) for name in opened),
            arms=arms(network, wanted),
            ratios=(1.0,),
            seeds=tuple(seeds),
            classifiers=(network,),
            fidelity_seeds=0,
        )
    return found


def setting(kind: str, name: str, size: int) -> Setting:
    """A scene with few labelled windows, and others without their labels."""
    if kind == 'change':
        splitter, few = change_crops(name, size, CROPS, 0.5), CROPS
    else:
        splitter, few = replace(patch_splitter(name, size), stride=size // 4, max_train=WINDOWS), WINDOWS
    return Setting(name, f'{few} windows of {size} px', replace(splitter, max_unlabelled=UNLABELLED))


def table(plan: Study, out: Path) -> str:
    """Mean of each arm and its paired differences to real only, with t intervals, of whole seeds."""
    primary, second = plan.metrics[:2]
    head = [
        'scene', 'budget', 'arm', metric_name(primary), f'Δ{metric_name(primary)} [95 %]',
        f'Δ{metric_name(second)} [95 %]', 'n', 'wins', 'p, sign flips',
    ]  # fmt: skip
    lines = ['| ' + ' | '.join(head) + ' |', '|---' * len(head) + '|']
    gains: dict[str, list[PairedComparison]] = {}
    for row in summarise(read_results(out / RESULTS_FILE), plan.metrics):
        if row.arm == REAL:
            lines.append(f'| {row.scene} | {row.budget} | real only | {row.means[primary]:.1f} | | | | | |')
        elif row.ratio == 1 and row.gain is not None and row.second_gain is not None:
            gains.setdefault(row.arm, []).append(row.gain)
            told = [f'{signed(gain.mean)} {interval(gain.interval)}' for gain in (row.gain, row.second_gain)]
            beside = f'{row.gain.n} | {row.gain.wins} | {row.gain.p:.3f}'
            lines.append(
                f'| {row.scene} | {row.budget} | {row.arm} | {row.means[primary]:.1f} | {" | ".join(told)} | {beside} |'
            )
    for arm, each in gains.items():
        if len(each) > 1:
            mean, around = mean_of_means(each)
            lines.append(f'| mean of {len(each)} | | {arm} | | {signed(mean)} {interval(around)} | | | | |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Measure what is missing, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--part', choices=list(SIZES), default='choose')
    parser.add_argument('--arms', nargs='+', choices=[*PASTED, PSEUDO], default=[*PASTED, PSEUDO])
    parser.add_argument('--scenes', nargs='+', default=None)
    parser.add_argument('--kinds', nargs='+', choices=['segmentation', 'change'], default=['segmentation', 'change'])
    parser.add_argument('--seeds', type=int, default=10)
    parser.add_argument('--out', type=Path, default=Path('runs/region-paste'), help='run folder')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    plans = studies(data_root(), args.part, range(args.seeds), args.arms, args.scenes)
    for kind in (kind for kind in args.kinds if kind in plans):
        plan, folder = plans[kind], args.out / f'{kind}-{args.part}'
        run_study(plan, folder, args.workers, device=args.device)
        text = table(plan, folder)
        (folder / 'table.md').write_text(text)
        write_json(folder / 'environment.json', environment(args.device))
        print(text)


if __name__ == '__main__':
    main()
