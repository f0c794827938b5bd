"""Gain from the patch GAN: accuracies of a 2-D and a 3-D CNN on labelled patches of the real scenes at hand.

    HSIAUG_DATA=folder python benchmarks/patch_gan.py --quick     # under 20 minutes on 2 cores, no claims
    HSIAUG_DATA=folder python benchmarks/patch_gan.py --device cuda --scale full

Patches of 8 x 8 pixels with the label of their centre, few per class, from blocks of the scene (EnMAP Potsdam: tiles)
that belong to training, validation or test as a whole. Real only is compared with variants of the tutorial's GAN
(binary cross-entropy or WGAN-GP, 2-D or 3-D convolutions), with duplicates, flips, affine augmentation and noise as
controls. An interrupted run resumes when repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from real_scenes import enmap_potsdam, houston18_patches, salinas_a
from studies import afforded, available, data_root, options, parsed, run_and_report

from hsiaug.ablation import SceneClassifier, Setting, Study
from hsiaug.ablation.arms import scene_arms
from hsiaug.scenes import LabelledPatchSplitter, Scene
from hsiaug.trainers import SceneClassifierConfig

SCENES: dict[str, Callable[[Path], Scene]] = {
    'houston18': houston18_patches,
    'salinas_a': salinas_a,
    'enmap_potsdam': enmap_potsdam,
}
VALIDATION = 5  # labelled patches per class, in addition to training ones
CNN2D, CNN3D = SceneClassifierConfig('cnn2d', steps=150), SceneClassifierConfig('cnn3d', steps=100)


@dataclass(frozen=True)
class Scale:
    """Sizes for a machine.

    Args:
        scenes: scenes to study.
        networks: downstream models.
        gan: settings of every GAN.
        wasserstein: further settings of GANs with a gradient penalty, whose critic needs several steps.
        volumes: further settings of GANs with 3-D convolutions.
        volume_scenes: scenes for 3-D GANs, a step of which takes 15 to 30 times as long as in 2-D.
        arms: ratios of affordable arms; None for all arms at all ratios.
    """

    scenes: tuple[str, ...]
    networks: tuple[SceneClassifier, ...]
    gan: dict[str, Any]
    wasserstein: dict[str, Any]
    volumes: dict[str, Any]
    volume_scenes: tuple[str, ...]
    arms: dict[str, tuple[float, ...]] | None = None


CURVE, ONCE = (0.5, 1.0, 2.0), (1.0,)
SCALES = {
    'quick': Scale(
        ('houston18', 'salinas_a'),
        (SceneClassifier('2-D CNN', CNN2D), SceneClassifier('3-D CNN', CNN3D)),
        {'iterations': 1000},
        {'iterations': 300, 'critic_steps': 3},
        {'iterations': 100},
        ('houston18',),
        {
            'patch GAN': CURVE, 'patch GAN, WGAN-GP': CURVE, 'patch GAN, 3-D': ONCE, 'duplicate': ONCE, 'flips': ONCE,
            'noise': ONCE,
        },
    ),
    'small': Scale(
        tuple(SCENES),
        (SceneClassifier('2-D CNN', CNN2D, (150, 300)), SceneClassifier('3-D CNN', CNN3D, (100, 200))),
        {'iterations': 2000},
        {'iterations': 600, 'critic_steps': 3},
        {'iterations': 300},
        ('houston18',),
        {
            'patch GAN': CURVE, 'patch GAN, WGAN-GP': CURVE, 'patch GAN, 3-D': CURVE, 'duplicate': CURVE,
            'flips': CURVE, 'affine': ONCE, 'noise': ONCE,
        },
    ),
    'full': Scale(
        tuple(SCENES),
        (
            SceneClassifier('2-D CNN', CNN2D, (150, 300, 600), (3e-4, 1e-3)),
            SceneClassifier('3-D CNN', CNN3D, (100, 300, 600), (3e-4, 1e-3)),
        ),
        {'iterations': 10_000},
        {'critic_steps': 5},
        {},
        tuple(SCENES),
    ),
}  # fmt: skip


def study(root: Path, scale: str, seeds: int, scenes: list[str] | None, per_class: int) -> Study:
    """The study on the scenes found."""
    setting = SCALES[scale]
    readers = available(scenes or setting.scenes, SCENES, root)
    arms = scene_arms(setting.gan)
    further = {'WGAN': setting.wasserstein, '3-D': setting.volumes}
    for mark, settings in further.items():
        arms = tuple(replace(a, settings={**a.settings, **settings}) if mark in a.name else a for a in arms)
    arms = afforded(arms, setting.arms)
    splits = {
        name: LabelledPatchSplitter(
            size=16,
            patch=8,
            patch_stride=1,
            regions='groups' if name == 'enmap_potsdam' else 'blocks',
            per_class=per_class,
            val_per_class=VALIDATION,
            min_patches=per_class,
            min_labelled=0.1,
        )
        for name in readers
    }
    return Study(
        title='Gain from the patch GAN on real scenes (after a tutorial, 2024)',
        scenes=readers,
        settings=tuple(
            Setting(
                name,
                f'{per_class} + {VALIDATION} per class',
                split,
                {arm.name: 0 for arm in arms if '3-D' in arm.name and name not in setting.volume_scenes},
            )
            for name, split in splits.items()
        ),
        arms=arms,
        ratios=(0.5, 1.0, 2.0),
        seeds=tuple(range(seeds)),
        classifiers=setting.networks,
        quick=scale == 'quick',
        fidelity_seeds=seeds,
    )


def main() -> None:
    """Run the study and print its table."""
    parser = options(__doc__, 'patch-gan', SCALES, '3 seeds, two scenes, short training')
    parser.add_argument('--scenes', nargs='+', choices=list(SCENES), default=None)
    parser.add_argument('--per-class', type=int, default=10, help='labelled training patches per class')
    args = parsed(parser)
    plan = study(data_root(), args.scale, args.seeds, args.scenes, args.per_class)
    run_and_report(plan, args.out, args)


if __name__ == '__main__':
    main()
