"""``hsiaug demo``."""

from __future__ import annotations

from pathlib import Path

from ..ablation import Setting, Study
from ..ablation.arms import spectral_arms
from ..scenes.config import SceneConfig
from .ablate import run_and_report
from .config import SplitConfig, make_splitter


def demo(out: Path = Path('runs/demo'), workers: int = 2, seeds: int = 5) -> None:
    """Run the main job on the simulated scene: train generators, mix them in at ratios, measure the gain.

    Args:
        out: run folder.
        workers: processes at once.
        seeds: paired seeds; fewer than 10 are no basis for claims.
    """
    simulated = SceneConfig(simulated={'height': 80, 'width': 80, 'seed': 0}, name='simulated')
    arms = tuple(
        a for a in spectral_arms({'iterations': 500}) if a.name in ('GAN', 'ss-GAN', 'variability', 'duplicate')
    )
    study = Study(
        title='hsiaug demo',
        scenes={'simulated': simulated},
        settings=(
            Setting(
                'simulated',
                '10 per class',
                make_splitter(SplitConfig('blocks', {'per_class': 10, 'block': 10, 'on_rare': 'drop'})),
            ),
        ),
        arms=arms,
        ratios=(0.5, 2.0),
        seeds=tuple(range(seeds)),
        quick=seeds < 10,
    )
    run_and_report(study, out, workers)
