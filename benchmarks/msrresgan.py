"""Super-resolution of real cubes, after the table of Huang et al. 2019, and its use as augmentation for SegFormer.

    HSIAUG_DATA=folder python benchmarks/msrresgan.py --quick      # under 20 minutes on 2 cores, no claims
    HSIAUG_DATA=folder python benchmarks/msrresgan.py --device cuda --workers 4 --scale full

The table: bicubic interpolation, SRCNN, SRGAN, MSRResNet and MSRResGAN on cubes that are degraded by a sensor's MTF, at
factors 2 and 4; whole scenes of ABU test, and a half of each other scene. Then SegFormer on image-mask pairs with and
without zoom and resolution jitter, at equal steps, beside interpolation in the network's place and classic
augmentation. Interrupt and repeat at will. Only the scale full has the networks at their published width and depth.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from measure import write_whole
from real_scenes import MASKED, patch_splitter
from specdm_segmentation import SEGFORMER
from super_resolution_figures import draw_table
from super_resolution_table import SCENES, Cell, cells, markdown, run_table

from hsiaug.ablation import Segmenter, Setting, Study, run_study
from hsiaug.ablation.arms import super_resolution_arms
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.ablation.runner import environment
from hsiaug.scenes import Scene
from hsiaug.trainers.super_resolution import SuperResolutionConfig

PAPER = SuperResolutionConfig.paper()
# What a machine can carry: the networks, and steps of the downstream network to choose from.
SCALES: dict[str, tuple[SuperResolutionConfig, tuple[int, ...]]] = {
    'quick': (
        SuperResolutionConfig(
            width=16, blocks=2, gradient_iterations=125, iterations=250, batch_size=4, discriminator_width=8
        ),
        (100,),
    ),
    'small': (SuperResolutionConfig(width=32, blocks=4, gradient_iterations=500, iterations=2000), (100, 200)),
    'full': (PAPER, (100, 200, 400)),
}
SETTINGS = ('width', 'blocks', 'gradient_iterations', 'iterations', 'batch_size', 'discriminator_width')
RATIOS = {'quick': (1.0,), 'small': (0.5, 1.0, 2.0), 'full': (0.5, 1.0, 2.0)}


def available(names: list[str], readers: Mapping[str, Callable[[Path], Scene]], root: Path) -> list[str]:
    """The scenes that are there."""
    found = []
    for name in names:
        try:
            readers[name](root)
        except FileNotFoundError as error:
            print(f'{name}: not there, left out ({error})')
            continue
        found.append(name)
    if not found:
        raise SystemExit(f'no scene found in {root}; HSIAUG_DATA names the folder that holds {", ".join(names)}')
    return found


def study(root: Path, scale: str, seeds: int, scenes: list[str], size: int) -> Study:
    """SegFormer with and without super-resolution as augmentation."""
    config, steps = SCALES[scale]
    arms = super_resolution_arms({name: getattr(config, name) for name in SETTINGS})
    if scale == 'quick':
        arms = tuple(arm for arm in arms if arm.name in ('zoom', 'jitter', 'zoom, bicubic', 'duplicate'))
    settings = [Setting(name, f'{size} px', replace(patch_splitter(name, size), stride=size // 4)) for name in scenes]
    return Study(
        title='Gain from super-resolution as augmentation (MSRResGAN 2019)',
        scenes={name: partial(MASKED[name], root) for name in scenes},
        settings=tuple(settings),
        arms=arms,
        ratios=RATIOS[scale],
        seeds=tuple(range(seeds)),
        classifiers=(Segmenter('SegFormer, tiny', SEGFORMER, steps=steps),),
        quick=scale == 'quick',
    )


def write_table(planned: list[Cell], root: Path, out: Path, scale: str, device: str) -> str:
    """Tables and figures of what has been measured; returns the Markdown."""
    keys = {cell.key for cell in planned}
    rows = [row for row in read_results(out / RESULTS_FILE) if row['cell'] in keys]
    config = planned[0].config
    facts = environment(device)
    write_whole(out / 'plan.json', json.dumps({'command': shlex.join(['python', *sys.argv]), 'environment': facts}))
    paths = draw_table(planned, root, out)
    blocks = 'the published number of' if config.blocks is None else config.blocks
    lines = [
        '# Super-resolution of real cubes', '',
        f'Networks of width {config.width} with {blocks} residual blocks'
        + ('' if scale == 'full' else ', narrower and shallower than published (64; 9, SRGAN 16)')
        + f', {config.iterations} steps of {config.batch_size} windows after {config.gradient_iterations} of the '
        f'gradient network; low resolution by an MTF of {config.mtf} at Nyquist. {facts["hardware"]}, hsiaug '
        f'{facts["commit"]}.', '',
        'Means and paired-t intervals are over seeds, in which split and initialisation vary together. A step of the '
        'claimed order is shown or refuted where p, corrected over all steps, is below 0.05 at 10 seeds or more.', '',
    ]  # fmt: skip
    figures = [f'![{path.stem}](figures/{path.name})' for path in paths]
    text = '\n'.join([*lines, markdown(rows), *figures])
    write_whole(out / 'table.md', text)
    return text


def main() -> None:
    """Measure the table, then the augmentation, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true', help='the scale quick with 3 seeds')
    parser.add_argument('--scale', choices=list(SCALES), default='small')
    parser.add_argument('--part', choices=['table', 'augmentation', 'both'], default='both')
    parser.add_argument('--scenes', nargs='+', choices=list(SCENES), default=list(SCENES), help='of the table')
    parser.add_argument('--factors', nargs='+', type=int, choices=[2, 3, 4], default=[2, 4], help='of the table')
    parser.add_argument('--masked', nargs='+', choices=list(MASKED), default=['houston18', 'jasper_ridge'])
    parser.add_argument('--seeds', type=int, default=None, help='default: 10, quick 3')
    parser.add_argument('--out', type=Path, default=None, help='run folder (default: runs/msrresgan-<scale>)')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    if 'HSIAUG_DATA' not in os.environ:
        raise SystemExit('HSIAUG_DATA is unset; it names the folder of the real scenes')
    root, scale = Path(os.environ['HSIAUG_DATA']), 'quick' if args.quick else args.scale
    seeds = args.seeds or (3 if scale == 'quick' else 10)
    out = args.out or Path(f'runs/msrresgan-{scale}')
    if args.part != 'augmentation':
        planned = cells(available(args.scenes, SCENES, root), args.factors, SCALES[scale][0], 24, seeds)
        run_table(planned, root, out / 'table', args.workers, args.device)
        print(write_table(planned, root, out / 'table', scale, args.device))
    if args.part != 'table':
        plan = study(root, scale, seeds, available(args.masked, MASKED, root), 16)
        run_study(plan, out / 'augmentation', args.workers, device=args.device)
        from hsiaug.report.ablation import text_table, write_report
        from hsiaug.report.patch_evaluation import draw_pairs

        draw_pairs(plan, out / 'augmentation', args.device)
        paths = write_report(out / 'augmentation')
        print(text_table(out / 'augmentation'))
        print(f'report: {paths.html}')


if __name__ == '__main__':
    main()
