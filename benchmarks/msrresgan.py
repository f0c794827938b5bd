"""Super-resolution of real cubes, after the table of Huang et al., and its use as augmentation for SegFormer.

    HSIAUG_DATA=folder python benchmarks/msrresgan.py --quick      # under 20 minutes on 2 cores, no claims
    HSIAUG_DATA=folder python benchmarks/msrresgan.py --device cuda --workers 4 --scale full

The table: bicubic interpolation, SRCNN, SRGAN, MSRResNet and MSRResGAN on cubes degraded by a sensor's MTF, at factors
2 and 4; test data are whole scenes of ABU, and half of each other scene. Then SegFormer on image-mask pairs with and
without zoom and resolution jitter, at equal steps, against interpolation instead of the network, and classic
augmentation. An interrupted run resumes when repeated. Only the scale full has networks of the published size.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from real_scenes import MASKED, patch_splitter
from specdm_segmentation import SEGFORMER
from studies import available, data_root, options, parsed, run_and_report
from super_resolution import SCENES, cells, draw_table, experiment, markdown

from hsiaug.ablation import Arm, Experiment, Segmenter, Setting, Study
from hsiaug.ablation.arms import classic_arms
from hsiaug.systems.msrresgan.train import SuperResolutionConfig

PAPER = SuperResolutionConfig.paper()
# Sizes for a machine: networks, and candidate numbers of steps of the downstream network.
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


def super_resolution_arms(zoom: dict[str, Any]) -> tuple[Arm, ...]:
    """Super-resolution as augmentation with these settings, interpolation in its place, and classic augmentation."""
    kinds = {'zoom': zoom, 'jitter': {**zoom, 'augmentation': 'jitter'}}
    return (
        *(Arm(name, 'msrresgan', kind, 'real') for name, kind in kinds.items()),
        *(Arm(f'{name}, bicubic', 'msrresgan', {**kind, 'network': 'bicubic'}, 'real', control=True)
          for name, kind in kinds.items()),
        *classic_arms('duplicate', 'crops', 'flips'),
    )  # fmt: skip


def study(root: Path, scale: str, seeds: int, scenes: list[str], size: int) -> Study:
    """SegFormer with and without super-resolution as augmentation."""
    config, steps = SCALES[scale]
    arms = super_resolution_arms({name: getattr(config, name) for name in SETTINGS})
    if scale == 'quick':
        arms = tuple(arm for arm in arms if arm.name in ('zoom', 'jitter', 'zoom, bicubic', 'duplicate'))
    readers = available(scenes, MASKED, root)
    settings = [Setting(name, f'{size} px', replace(patch_splitter(name, size), stride=size // 4)) for name in readers]
    return Study(
        title='Gain from super-resolution as augmentation (MSRResGAN 2019)',
        scenes=readers,
        settings=tuple(settings),
        arms=arms,
        ratios=RATIOS[scale],
        seeds=tuple(range(seeds)),
        classifiers=(Segmenter('SegFormer, tiny', SEGFORMER, steps=steps),),
        quick=scale == 'quick',
    )


def write_table(table: Experiment, out: Path, scale: str, device: str) -> str:
    """Write tables and figures of the results so far; returns the Markdown."""
    rows, config = table.records(out), table.cells[0].config
    blocks = 'the published number of' if config.blocks is None else config.blocks
    about = (
        f'Networks of width {config.width} with {blocks} residual blocks'
        + ('' if scale == 'full' else ', narrower and shallower than published (64; 9, SRGAN 16)')
        + f', {config.iterations} steps of {config.batch_size} windows after {config.gradient_iterations} of the '
        f'gradient network; low resolution by an MTF of {config.mtf} at Nyquist.\n\n'
        'Means and paired-t intervals are over seeds, in which split and initialisation vary together. A step of the '
        'claimed order is shown or refuted where p, corrected over all steps, is below 0.05 at 10 seeds or more.\n'
    )
    figures = [f'![{path.stem}](figures/{path.name})' for path in draw_table(table.cells, out)]
    return table.write(out, '\n'.join([about, markdown(rows), *figures]), rows, device)


def main() -> None:
    """Measure the table, then the augmentation, and print both."""
    parser = options(__doc__, 'msrresgan', SCALES)
    parser.add_argument('--part', choices=['table', 'augmentation', 'both'], default='both')
    parser.add_argument('--scenes', nargs='+', choices=list(SCENES), default=list(SCENES), help='of the table')
    parser.add_argument('--factors', nargs='+', type=int, choices=[2, 3, 4], default=[2, 4], help='of the table')
    parser.add_argument('--masked', nargs='+', choices=list(MASKED), default=['houston18', 'jasper_ridge'])
    args = parsed(parser)
    root, scale, out = data_root(), args.scale, args.out
    if args.part != 'augmentation':
        planned = cells(list(available(args.scenes, SCENES, root)), args.factors, SCALES[scale][0], 24, args.seeds)
        table = experiment(planned, root, out / 'table', args.device)
        table.run(out / 'table', args.workers, args.engine, args.device)
        print(write_table(table, out / 'table', scale, args.device))
    if args.part != 'table':
        run_and_report(study(root, scale, args.seeds, args.masked, 16), out / 'augmentation', args)


if __name__ == '__main__':
    main()
