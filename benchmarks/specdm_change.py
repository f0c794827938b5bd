"""Gain from pairs of dates with change masks, after the change-detection tables of SpecDM (2025), on real pairs.

    HSIAUG_DATA=folder python benchmarks/specdm_change.py --quick     # under 20 minutes on 2 cores, no claims
    HSIAUG_DATA=folder python benchmarks/specdm_change.py --device cuda --scale full

Scenes: Sentinel-2 pairs of eight OSCD cities, where change is rare, and of forests before and after bark beetles, where
it is not; a city or forest is used as a whole to train, validate or test. Training data are 100 real crops, at least
half of them with change; test data are all windows of other cities. Arms: the two-stream and the single-stream model,
alone and mixed in, change editing, and as controls duplicates, classic augmentation and copied changes. An interrupted
run resumes when repeated.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from real_scenes import CHANGE, change_splitter
from studies import afforded, available, data_root, options, parsed, run_and_report

from hsiaug.ablation import Detector, Setting, Study
from hsiaug.ablation.arms import change_arms
from hsiaug.scenes import ChangeSplitter, PatchSplitter
from hsiaug.trainers.change_detection import ChangeDetectorConfig

# Settings for the CPU, found with real data only: class weights, without which nothing is detected in cities from 100
# crops; flips in all arms; crops in their original size, since enlarged ones cost twice as much and gain nothing.
CHANGEFORMER = ChangeDetectorConfig(
    'changeformer-v3', 'mit_tiny', 32, augment='flips', class_weights='sqrt_inverse', learning_rate=3e-3, steps=300
)
SIAMCRNN = replace(CHANGEFORMER, model='siamcrnn', encoder='resnet_tiny')
# The published networks downsample 32 times, which leaves nothing of a crop of 32 pixels unless it is enlarged.
FULL_CHANGEFORMER = replace(CHANGEFORMER, encoder='changeformer', channels=None, upsampling=4, bfloat16=True)
FULL_SIAMCRNN = replace(FULL_CHANGEFORMER, model='siamcrnn', encoder='resnet101')
# Sizes for a machine: settings of the diffusion models, and downstream networks.
SCALES: dict[str, tuple[dict[str, Any], tuple[Detector, ...]]] = {
    'quick': ({'vae_iterations': 300, 'diffusion_iterations': 600}, (Detector('ChangeFormer, tiny', CHANGEFORMER),)),
    'small': (
        {'vae_iterations': 500, 'vae_batch_size': 4, 'diffusion_iterations': 1000},
        (Detector('ChangeFormer, tiny', CHANGEFORMER), Detector('SiamCRNN, tiny', SIAMCRNN)),
    ),
    'full': (
        {'vae_iterations': 4000, 'diffusion_iterations': 20_000, 'unet_channels': [128, 256], 'batch_size': 16},
        (
            Detector('ChangeFormer V3', FULL_CHANGEFORMER, (500, 2000), (1e-4, 3e-4)),
            Detector('SiamCRNN', FULL_SIAMCRNN, (500, 2000), (1e-4, 3e-4)),
        ),
    ),
}
# Arms and ratios, if not every arm is affordable at every ratio.
FEW_ARMS: dict[str, dict[str, tuple[float, ...]]] = {
    'quick': {
        'two-stream': (1, 3), 'single stream': (1, 3), 'two-stream only': (3,), 'duplicate': (3,), 'copy_paste': (3,),
    },
    'small': {
        'two-stream': (1, 3), 'single stream': (3,), 'change editing': (3,), 'duplicate': (3,), 'copy_paste': (3,),
    },
}  # fmt: skip
FEW_SEEDS = {'small': {'single stream': 5, 'change editing': 5}}  # the generators cost more than all detectors together


def splitter(name: str, size: int, crops: int, change_share: float) -> PatchSplitter:
    """The split of a scene, with a fixed number of training crops, balanced by change or not."""
    plain = replace(change_splitter(name, size), max_train=crops)
    return ChangeSplitter(**asdict(plain), change_share=change_share) if change_share else plain


def study(
    root: Path,
    scale: str,
    seeds: int,
    scenes: list[str],
    size: int = 32,
    crops: int = 100,
    change_share: float = 0.5,
    networks: int | None = None,
) -> Study:
    """The study on the scenes found."""
    readers = available(scenes, CHANGE, root)
    diffusion, detectors = SCALES[scale]
    arms = afforded(change_arms(diffusion), FEW_ARMS.get(scale), FEW_SEEDS.get(scale))
    budget = f'{crops} crops of {size} px' + (f', {change_share:g} or more with change' if change_share else '')
    return Study(
        title='Gain from pairs of dates on real scenes (after SpecDM 2025)',
        scenes=readers,
        settings=tuple(Setting(name, budget, splitter(name, size, crops, change_share)) for name in readers),
        arms=arms,
        ratios=(1.0, 3.0, 5.0),
        seeds=tuple(range(seeds)),
        classifiers=detectors[:networks],
        quick=scale == 'quick',
        fidelity_seeds=seeds,
    )


def main() -> None:
    """Run the study and print its table."""
    parser = options(__doc__, 'specdm-change', SCALES)
    parser.add_argument('--scenes', nargs='+', choices=list(CHANGE), default=['oscd', 'barkbeetle_change'])
    parser.add_argument('--size', type=int, default=32, help='side of a crop')
    parser.add_argument('--crops', type=int, default=100, help='real crops to train on')
    parser.add_argument(
        '--change-share', type=float, default=0.5, help='share of them with change; 0: as they are found'
    )
    parser.add_argument('--networks', type=int, default=None, help='only the first so many downstream networks')
    args = parsed(parser)
    plan = study(
        data_root(), args.scale, args.seeds, args.scenes, args.size, args.crops, args.change_share, args.networks
    )
    run_and_report(plan, args.out, args)


if __name__ == '__main__':
    main()
