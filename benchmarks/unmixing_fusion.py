"""Unmixing before Fusion (Yu et al., CVPR 2024) on real scenes: its three tables, and figures.

    HSIAUG_DATA=folder python benchmarks/unmixing_fusion.py --quick      # under 20 minutes on 2 cores, no claims
    HSIAUG_DATA=folder python benchmarks/unmixing_fusion.py --device cuda --scale full

Table 1: images by a VAE, a style-based GAN and diffusion of abundances, learnt with and without aerial RGB images,
beside a Gaussian mixture and a network from RGB to spectra. Table 2: the number of endmembers, and the same diffusion
of the code of an autoencoder and of the cube itself. Table 3: scene classification without and with synthetic images at
the text's ratios, at equal steps, beside affine augmentation and duplicates. Interrupt and repeat at will.

The text learnt from Chikusei and AID, images of 256 x 256 pixels, on four GPUs; here are eight AVIRIS scenes of
100 x 100 pixels, images of 16 x 16, and 48 aerial images of other places. A split's images come from blocks of the same
scenes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from studies import data_root, options, parsed, run_and_report
from unmixing_fusion_bench import Bench, Effort, methods
from unmixing_fusion_data import RGB_FACTOR, SCENES, copy_rgb, splitter
from unmixing_fusion_figures import draw_all
from unmixing_fusion_tables import Claim, Row, decisions, experiment, markdown, results

from hsiaug.ablation import Experiment, SceneClassifier, Setting, Study
from hsiaug.ablation.arms import scene_arms
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.trainers import SceneClassifierConfig

PER_CLASS = 20  # labelled training images of a class in Table 3
RATIOS = (1.0, 4.3, 9.5, 20.0)
"""Synthetic images per real one: the text's totals of 4k and 8k from 761, and beside them less and more."""


@dataclass(frozen=True)
class Scale:
    """What a machine can carry.

    Args:
        effort: of Tables 1 and 2.
        scenes: of Tables 1 and 2.
        labelled: scenes of Table 3.
        steps: of the classifiers, to choose from.
        batch_size: of the classifiers.
        narrow: how many times narrower they are than published.
        ratios: of synthetic images.
    """

    effort: Effort
    scenes: tuple[str, ...]
    labelled: tuple[str, ...]
    steps: tuple[int, ...]
    batch_size: int
    narrow: int
    ratios: tuple[float, ...] = RATIOS

    def classifiers(self) -> tuple[SceneClassifier, ...]:
        """AlexNet, VGG-16 and ResNet-18, for images enlarged as much as they need."""
        networks = {'AlexNet': ('alexnet', 4), 'VGG-16': ('vgg16', 2), 'ResNet-18': ('resnet18', 2)}
        return tuple(
            SceneClassifier(
                name,
                SceneClassifierConfig(
                    model, self.narrow, upsampling=factor, steps=self.steps[0], batch_size=self.batch_size
                ),  # type: ignore[arg-type]
                self.steps,
            )
            for name, (model, factor) in networks.items()
        )

    def fusion(self) -> dict[str, Any]:
        """Settings of the generator of Table 3."""
        # The text does not say which of its generators it took; this is its best.
        effort, kind = self.effort, 'style_gan'
        return {
            'unmixing': dict(effort.unmixing),
            'abundances': {'kind': kind, **effort.kinds[kind]},
            'rgb_factor': RGB_FACTOR,
        }


NARROW = (16, 32, 64, 48, 24)  # half the published widths of the unmixing network
SCALES = {
    'quick': Scale(
        Effort(
            {
                'vae': {'iterations': 300},
                'style_gan': {'iterations': 250, 'batch_size': 8, 'network': {'width': 16}},
                'diffusion': {'iterations': 400, 'network': {'channels': [16, 32]}},
            },
            {'steps': 300, 'batch_size': 16, 'widths': NARROW},
            (3, 5, 15),
            alone=('diffusion',),
            samples=300,
        ),
        ('places',), ('places',), (50,), 16, 8, (1.0, 4.3, 9.5),
    ),
    'small': Scale(
        Effort(
            {
                'vae': {'iterations': 1500},
                'style_gan': {'iterations': 1500, 'batch_size': 8, 'network': {'width': 16}},
                'diffusion': {'iterations': 2000, 'network': {'channels': [16, 32]}},
            },
            {'steps': 800, 'batch_size': 16, 'widths': NARROW},
        ),
        ('places',), ('places',), (100,), 16, 8,
    ),
    'full': Scale(
        Effort(
            {
                'vae': {'iterations': 20_000, 'batch_size': 64},
                'style_gan': {'iterations': 20_000, 'batch_size': 64},
                'diffusion': {'iterations': 20_000, 'batch_size': 64, 'network': {'channels': [64, 128]}},
            },
            {'steps': 2000, 'batch_size': 16},
        ),
        tuple(SCENES), ('places', 'houston18'), (200, 600), 32, 1,
    ),
}  # fmt: skip


def study(root: Path, rgb: Path, scale: Scale, seeds: int, quick: bool) -> Study:
    """Table 3."""
    arms = {arm.name: arm for arm in scene_arms(fusion=scale.fusion(), rgb=str(rgb))}
    ratios = {
        'unmixing': scale.ratios, 'unmixing + RGB': scale.ratios, 'affine': (4.3, 9.5), 'duplicate': (4.3,),
    }  # fmt: skip
    return Study(
        title='Scene classification with unmixing before fusion (Table 3 of the text)',
        scenes={name: partial(SCENES[name], root) for name in scale.labelled},
        settings=tuple(Setting(name, f'{PER_CLASS} per class', splitter(PER_CLASS)) for name in scale.labelled),
        arms=tuple(replace(arms[name], ratios=chosen) for name, chosen in ratios.items()),
        ratios=scale.ratios,
        seeds=tuple(range(seeds)),
        classifiers=scale.classifiers(),
        quick=quick,
    )


def table3(out: Path) -> list[str]:
    """What the text claims of scene classification, decided; Markdown."""
    rows: list[Row] = [
        {
            'scene': f'{row["scene"]}, {row["classifier"]}',
            'seed': row['seed'],
            'method': 'real' if row['arm'] == 'real' else f'{row["arm"]}, ratio {row["ratio"]:g}',
            'oa': 100 * row['test']['oa'],
        }
        for row in read_results(out / RESULTS_FILE)
    ]
    ours = [f'{name}, ratio {ratio}' for name in ('unmixing', 'unmixing + RGB') for ratio in ('4.3', '9.5')]
    claimed = [Claim('affine, ratio 4.3', 'real', 'oa', 3)]
    claimed += [Claim(name, 'real', 'oa', 3) for name in ours]
    claimed += [Claim(name, f'affine, ratio {name[-3:]}', 'oa', 3) for name in ours]
    claimed += [Claim(more, less, 'oa', 3) for less, more in (ours[:2], ours[2:])]
    claimed += [Claim(fused, alone, 'oa', 3) for alone, fused in zip(ours[:2], ours[2:], strict=True)]
    return results(decisions(rows, claimed))


def write_tables(
    found: Experiment, root: Path, rgb: Path, out: Path, scale: Scale, device: str, tables: list[int]
) -> str:
    """Tables 1 and 2 of what has been measured, with their figures; returns the Markdown."""
    rows = found.records(out)
    listed = [method for method in methods(scale.effort) if 1 in method.tables and method.make != 'real']
    paths = draw_all(Bench(root, rgb, out, scale.scenes[0], 0, scale.effort, device), listed, out / 'figures')
    about = (
        'Fréchet distances, precision and recall are of features of a small network that learnt the classes of the '
        'training images of the split; distances compare within a table and split, not with those of the text, and see '
        'spectra better than shapes: a Gaussian mixture, whose pixels know nothing of each other, does well by them. '
        'Edges show what they miss: standard deviation of differences of neighbouring pixels, synthetic over real, 1 '
        'is right. RMSE is in units of a bright pixel. Claims need 10 seeds.\n'
    )
    figures = [f'![{path.stem}](figures/{path.name})' for path in paths]
    return found.write(out, '\n'.join([about, markdown(rows, scale.effort, tables), *figures]), rows, device)


def main() -> None:
    """Measure what is missing of the wanted tables, print and write them."""
    parser = options(__doc__, 'unmixing-fusion', SCALES)
    parser.add_argument('--tables', nargs='+', type=int, choices=[1, 2, 3], default=[1, 2, 3])
    args = parsed(parser)
    root, scale, seeds, out = data_root(), SCALES[args.scale], args.seeds, args.out.absolute()
    rgb = copy_rgb(root, out)
    if {1, 2} & set(args.tables):
        wanted = [method for method in methods(scale.effort) if set(method.tables) & set(args.tables)]
        groups = [(scene, seed) for seed in range(seeds) for scene in scale.scenes]
        found = experiment(groups, root, rgb, out, scale.effort, wanted, args.device)
        found.run(out, args.workers, device=args.device)
        print(write_tables(found, root, rgb, out, scale, args.device, args.tables))
    if 3 in args.tables:
        run_and_report(study(root, rgb, scale, seeds, args.scale == 'quick'), out / 'table3', args)
        decided = '\n'.join(table3(out / 'table3'))
        (out / 'table3' / 'claims.md').write_text(decided)
        print(decided)


if __name__ == '__main__':
    main()
