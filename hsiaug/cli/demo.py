"""``hsiaug demo``."""

from __future__ import annotations

from pathlib import Path

from ..ablation import Arm, Setting, Study
from ..ablation.arms import at_defaults
from ..evidence import recommended_ratio
from ..scenes.config import SceneConfig
from .ablate import run_and_report
from .config import SplitConfig

LABELS = 10


def demo(out: Path = Path('runs/demo'), workers: int = 2, seeds: int = 10) -> None:
    """Mix synthetic spectra into training on a simulated scene at several ratios, and report whether it helps.

    Args:
        out: run folder.
        workers: number of parallel processes.
        seeds: number of paired seeds; fewer than 10 are no basis for claims.
    """
    simulated = SceneConfig(simulated={'height': 80, 'width': 80, 'seed': 0}, name='simulated')
    blocks = SplitConfig('blocks', {'per_class': LABELS, 'block': 10, 'on_rare': 'drop'}).splitter()
    ratios = (1.0, 2.0, 5.0)
    known = recommended_ratio('variability', LABELS, 'spectrum')
    arms = (
        Arm(
            'variability, first',
            'variability',
            labels=known.labels,  # type: ignore[arg-type]
            ratios=(known.ratio,),
            synthetic_first=known.synthetic_first,
            default=known.ratio,
        ),
        Arm('variability', 'variability'),
        Arm('duplicate', 'duplicate', {}, 'uniform', ratios=(2.0,), control=True),
    )
    study = Study(
        title='hsiaug demo',
        scenes={'simulated': simulated},
        settings=(Setting('simulated', f'{LABELS} labels per class', blocks),),
        arms=at_defaults(arms, ratios, (LABELS,), 'spectrum'),
        ratios=ratios,
        seeds=tuple(range(seeds)),
        quick=seeds < 10,
    )
    run_and_report(study, out, workers)
