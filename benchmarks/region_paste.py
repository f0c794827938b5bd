"""Gain from regions pasted into other pairs: smooth regions, box CutMix and ClassMix, on the real scenes at hand.

    HSIAUG_DATA=folder python benchmarks/region_paste.py                      # the sets on which the design is chosen
    HSIAUG_DATA=folder python benchmarks/region_paste.py --part confirm       # others, to be looked at once
    HSIAUG_DATA=folder python benchmarks/region_paste.py --part again --kinds change --steps 450

Few labelled windows, flips and rotations in every arm, new samples in each epoch, equal numbers of optimiser steps.
``--arms`` without a name and other ``--steps`` measure whether real data alone is at its best with these settings. For
changes, this determined them, on bark beetles: at a learning rate of 3e-3, real data alone is overfitted and loses
about 4 points of F1. An interrupted run resumes when repeated.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gains import write_gains
from real_scenes import CHANGE, MASKED, patch_splitter
from specdm_change import CHANGEFORMER
from specdm_change import splitter as change_crops
from specdm_segmentation import SEGFORMER
from studies import available, data_root

from hsiaug.ablation import Arm, Detector, Segmenter, Setting, Study, run_study
from hsiaug.tasks import Network

# Side of training windows: in the small scenes, at most 6 windows of 32 pixels fit in the training part.
SIZES: dict[tuple[str, str], dict[str, int]] = {
    ('choose', 'segmentation'): {'jasper_ridge': 16, 'barkbeetle': 32},
    ('confirm', 'segmentation'): {'water12': 32, 'houston18': 16, 'clouds_sentinel2': 32, 'samson': 16},
    ('choose', 'change'): {'barkbeetle_change': 32},  # cities cannot be learnt from ten windows: an F1 of 2 to 6
    ('confirm', 'change'): {
        'water_change': 32, 'slovenia_change': 16, 'houston18_change': 16, 'simulated_change': 32,
    },
    ('again', 'change'): {
        'jasper_change': 16, 'samson_change': 16, 'clouds_change': 32, 'simulated_change_2': 32,
    },
}  # fmt: skip
UNLABELLED = 200
SEGMENTER = Segmenter('SegFormer, tiny', replace(SEGFORMER, batch_size=16, steps=300))
DETECTOR = Detector('ChangeFormer, tiny', replace(CHANGEFORMER, batch_size=16, steps=150, learning_rate=1e-3))
NETWORKS: dict[str, Network] = {'segmentation': SEGMENTER, 'change': DETECTOR}
PASTED = {
    'box CutMix': ({'regions': 'box'}, 'real', True),
    'ClassMix': ({'regions': 'class'}, 'real', True),
    'smooth fields': ({'regions': 'smooth'}, 'real', False),
    'smooth fields, donors by class': ({'regions': 'smooth'}, 'uniform', False),
}  # settings, labels, and whether it is a control
RATIO = 3.0
PSEUDO = 'smooth fields of pseudo-labelled windows'


def arms(network: Network, wanted: list[str]) -> tuple[Arm, ...]:
    """The arms of one downstream network, which is also the teacher of pseudo-labels."""
    every = [
        Arm(name, 'region_paste', settings, labels, control=control, live=True)
        for name, (settings, labels, control) in PASTED.items()
    ]
    pseudo = {'teacher': asdict(network.config), 'paste': 'donor'}
    every.append(Arm(PSEUDO, 'pseudo_label', pseudo, 'real', live=True))
    return tuple(arm for arm in every if arm.name in wanted)


def studies(part: str, args: argparse.Namespace) -> dict[str, Study]:
    """Studies of masks and of changes, one for each size of windows."""
    root, found = data_root(), dict[str, Study]()
    sizes = {kind: SIZES[part, kind] for kind in args.kinds}
    for kind, size in [(k, size) for k in args.kinds for size in sorted(set(sizes[k].values()))]:
        names = [n for n, side in sizes[kind].items() if side == size and n in (args.scenes or sizes[kind])]
        if not names:
            continue
        opened: dict[str, Any] = available(names, MASKED if kind == 'segmentation' else CHANGE, root)  # type: ignore[arg-type]
        # The encoder needs sides of 32: smaller windows are enlarged rather than padded.
        network = NETWORKS[kind]
        config = replace(network.config, upsampling=32 // size, steps=args.steps or network.config.steps)
        network = replace(network, config=config)
        found[f'{kind}-{size}px'] = Study(
            title=f'Regions pasted into other pairs: {kind}, {part}',
            scenes=opened,
            settings=tuple(setting(kind, name, size, args.windows) for name in opened),
            arms=arms(network, args.arms),
            ratios=tuple(args.ratios),
            seeds=tuple(range(args.seeds)),
            classifiers=(network,),
            fidelity_seeds=0,
        )
    return found


def setting(kind: str, name: str, size: int, windows: int) -> Setting:
    """A scene with few labelled windows and further unlabelled ones."""
    if kind == 'change':
        splitter: Any = change_crops(name, size, windows, 0.5)
    else:
        splitter = replace(patch_splitter(name, size), stride=size // 4, max_train=windows)
    return Setting(name, f'{windows} windows', replace(splitter, max_unlabelled=UNLABELLED))


def main() -> None:
    """Measure what is missing, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--part', choices=['choose', 'confirm', 'again'], default='choose')
    parser.add_argument('--arms', nargs='*', choices=[*PASTED, PSEUDO], default=['smooth fields'])
    parser.add_argument('--scenes', nargs='+', default=None)
    parser.add_argument('--kinds', nargs='+', choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument('--windows', type=int, default=10, help='labelled ones to train on')
    parser.add_argument('--ratios', type=float, nargs='+', default=[RATIO])
    parser.add_argument('--steps', type=int, default=None, help='default: 300, of changes 150')
    parser.add_argument('--seeds', type=int, default=10)
    parser.add_argument('--out', type=Path, default=Path('runs/region-paste'), help='run folder')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    runs: dict[str, list[Path]] = {}
    for name, plan in studies(args.part, args).items():
        run = run_study(plan, args.out / f'{args.part}-{name}', args.workers, device=args.device)
        runs.setdefault(plan.kind, []).append(run)
    for kind, of_kind in runs.items():
        stem = args.part if kind == 'segmentation' else f'{args.part}_{kind}'
        print(write_gains(of_kind, args.out / stem, windows=args.windows))


if __name__ == '__main__':
    main()
