"""Which sources of synthetic spectra help, with 10 and 30 labels per class and with all labels?

    HSIAUG_DATA=folder python benchmarks/spectra_sources.py --part choose      # variants of the sources, on two scenes
    HSIAUG_DATA=folder python benchmarks/spectra_sources.py --part confirm     # the chosen one, once, on five others
    HSIAUG_DATA=folder python benchmarks/spectra_sources.py --part confirm-all # the same with all labels
    HSIAUG_DATA=folder python benchmarks/spectra_sources.py --part confirm-tuned   # on a better network
    HSIAUG_DATA=folder python benchmarks/spectra_sources.py --quick

NN-1D with 400 steps in all arms, on standardised bands or, in tuned parts, decorrelated bands with dropout. Splits are
by blocks, tiles or polygons; label budgets include validation. An interrupted run resumes when repeated; tables show
the results so far.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from gains import write_gains
from real_scenes import READERS, jasper_ridge, samson
from studies import available, data_root

from hsiaug.ablation import Arm, Classifier, Setting, Study, run_study
from hsiaug.ablation.plan import REAL
from hsiaug.scenes import BlockSplit, GroupSplit, Scene, SimulatedScene, Splitter
from hsiaug.trainers import ClassifierConfig


def berlin(root: Path) -> Scene:
    """EnMAP image of Berlin, simulated from airborne HyMap; the label is the dominant class of a pixel."""
    with np.load(root / 'berlin_enmap_sim' / 'berlin_enmap_sim.npz', allow_pickle=False) as file:
        data = {key: file[key] for key in ('cube', 'gt_majority', 'class_names', 'wavelength_nm', 'scale')}
    names = {i: str(name) for i, name in enumerate(data['class_names'])}
    cube, labels, centres = data['cube'], data['gt_majority'], data['wavelength_nm']
    return Scene('berlin', cube, labels, names, centres, scale=float(data['scale']), unit='reflectance').checked('drop')


def simulated(root: Path) -> Scene:
    """A simulated scene, which is in no folder."""
    return SimulatedScene(128, 128)


SCENES: dict[str, Callable[[Path], Scene]] = {
    **READERS, 'jasper_ridge': jasper_ridge, 'samson': samson, 'berlin': berlin,
    'simulated': simulated,
}  # fmt: skip
GROUPED = ('enmap_potsdam', 'santa_barbara')
BUDGETS: dict[str, int | None] = {'10': 10, '30': 30, 'all': None}
CONVERGED = ClassifierConfig(hidden=128, scaling='standard', steps=400)
TUNED = replace(CONVERGED, scaling='decorrelated', dropout=0.3)
"""Better settings for real spectra alone, chosen on Salinas-A, Potsdam, Jasper Ridge and a simulated scene."""
V, FIRST = 'variability', 'variability, synthetic first'
PLAIN = ('variability', 'direct', 'diffuse', 'mixing')
CHOICES = (
    Arm(V, V, ratios=(1, 2, 3, 5)),
    Arm(FIRST, V, ratios=(2,), synthetic_first=0.5),
    Arm(f'{V}, mixing off', V, {'mixing': 0.0}, ratios=(2,)),
    Arm(f'{V}, mixing within', V, {'partners': 'within'}, ratios=(2,)),
    Arm(f'{V}, mixing 0.4', V, {'mixing': 0.4}, ratios=(2,)),
    Arm(f'{V}, light off', V, {'direct': 0.0, 'diffuse': 0.0}, ratios=(2,)),
    Arm(f'{V}, strength 1', V, {'variability': 1.0}, ratios=(2,)),
    Arm(f'{V}, strength 0', V, {'variability': 0.0}, ratios=(2,)),
    Arm(f'{V}, 30 neighbours', V, {'neighbours': 30}, ratios=(2,)),
    Arm(f'{V}, real labels', V, labels='real', ratios=(2,)),
    Arm('mixup', 'mixup', {'partners': 'across', 'alpha': 1.0}, ratios=(2,)),
    Arm('duplicates', 'duplicate', ratios=(2,), control=True),
    Arm('label smoothing', 'duplicate', ratios=(2,), control=True, training={'label_smoothing': 0.1}),
)
USES = (Arm(V, V, ratios=(2,)), Arm(FIRST, V, ratios=(2,), synthetic_first=0.5))
BALANCED = (Arm(V, V, labels='sqrt', ratios=(1,)), Arm(FIRST, V, labels='sqrt', ratios=(1,), synthetic_first=0.5))
ONLY_BALANCE = (Arm('duplicate, synthetic first', 'duplicate', labels='sqrt', ratios=(1,), synthetic_first=0.5),)
SEGMENTS = (
    Arm(V, V, ratios=(2,)),
    Arm(FIRST, V, ratios=(2,), synthetic_first=0.5),
    Arm(f'{V}, light off', V, {'direct': 0.0, 'diffuse': 0.0}, ratios=(2,)),
    Arm(f'{V}, mixing off', V, {'mixing': 0.0}, ratios=(2,)),
    Arm(f'{V} of segments', V, {'segment': 2.0}, ratios=(2,)),
    Arm(f'{FIRST}, of segments', V, {'segment': 2.0}, ratios=(2,), synthetic_first=0.5),
    Arm('segments alone', V, {'segment': 4.0, **dict.fromkeys(PLAIN, 0.0)}, ratios=(2,)),
)
TWO = ('salinas_a', 'enmap_potsdam')
OTHERS = ('santa_barbara', 'houston18', 'samson', 'berlin', 'simulated')
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[Arm, ...], range]] = {
    'choose': (TWO, ('10', '30', 'all'), CHOICES, range(200, 205)),
    'choose-balance': (
        TWO,
        ('all',),
        (
            Arm(V, V, ratios=(0.25, 0.5)),
            Arm(f'{V}, sqrt', V, labels='sqrt', ratios=(0.5, 1)),
            Arm(FIRST, V, ratios=(1,), synthetic_first=0.5),
            Arm(f'{FIRST}, sqrt', V, labels='sqrt', ratios=(1,), synthetic_first=0.5),
        ),
        range(200, 205),
    ),
    'choose-segments': (('jasper_ridge', *TWO), ('10',), SEGMENTS, range(600, 606)),
    'confirm': (OTHERS, ('10', '30'), USES, range(500, 516)),
    'confirm-all': (OTHERS, ('all',), BALANCED, range(500, 516)),
    'confirm-tuned': (OTHERS, ('10', '30'), USES, range(2000, 2020)),
    'confirm-tuned-all': (OTHERS, ('all',), BALANCED[1:], range(2000, 2020)),
    'control-tuned-all': (OTHERS, ('all',), ONLY_BALANCE, range(2000, 2020)),
}
"""Scenes, budgets, arms and seeds of each part; nothing was chosen on scenes that confirm."""


def splitter(name: str, per_class: int | None) -> Splitter:
    """The spatially disjoint split of a scene."""
    kind: type[Splitter] = GroupSplit if name in GROUPED else BlockSplit
    return kind(per_class=per_class, on_rare='drop', max_test=3000)


def study(part: str, root: Path, count: int | None, quick: bool) -> Study:
    """A part, on the scenes found."""
    names, budgets, arms, seeds = PARTS[part]
    scenes = available(names, SCENES, root)
    settings = tuple(Setting(name, b, splitter(name, BUDGETS[b])) for name in scenes for b in budgets)
    config = TUNED if 'tuned' in part else CONVERGED
    network = Classifier('nn1d', config, scalings=(config.scaling,), steps=(config.steps,))
    chosen = tuple(seeds)[: count or (3 if quick else None)]
    return Study(f'Sources of spectra: {part}', scenes, settings, arms, (2.0,), chosen, (network,), quick, 0)


def main() -> None:
    """Measure what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--part', choices=list(PARTS), default='confirm')
    parser.add_argument('--quick', action='store_true', help='3 seeds, no basis for claims')
    parser.add_argument('--seeds', type=int, default=None, help='how many of the seeds of the part; default: all')
    parser.add_argument('--out', type=Path, default=None, help='run folder (default: runs/spectra_sources/<part>)')
    parser.add_argument('--against', default=REAL, help='arm that the others are compared with (default: real)')
    parser.add_argument('--workers', type=int, default=1)
    args = parser.parse_args()
    out = args.out or Path('runs/spectra_sources') / (f'{args.part}-quick' if args.quick else args.part)
    run_study(study(args.part, data_root(), args.seeds, args.quick), out, args.workers)
    print(write_gains([out], out / ('table' if args.against == REAL else 'against'), args.against))


if __name__ == '__main__':
    main()
