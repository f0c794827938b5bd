"""The table of gains of benchmarks/gains.py: those of single scenes, and their mean."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hsiaug.ablation import Arm, Classifier, Setting, Study, run_study
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.records import read_json
from hsiaug.scenes import BlockSplit, SimulatedScene
from hsiaug.trainers import ClassifierConfig

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
from gains import MEAN, write_gains

CONFIG = ClassifierConfig(hidden=8, layers=1, steps=40, batch_size=16, lr=0.01, scaling='decorrelated')
ARMS = (
    Arm('first', 'variability', ratios=(2,), synthetic_first=0.5),
    Arm('copies', 'duplicate', ratios=(1,), labels='sqrt', training={'lr': 0.02}),
)
SCENES = {name: SimulatedScene(32, 32, classes=3, patch=3, seed=seed) for seed, name in enumerate(('near', 'far'))}


def test_gains_of_scenes_and_their_mean(tmp_path: Path) -> None:
    settings = tuple(Setting(name, '6', BlockSplit(per_class=6, block=8, on_rare='drop')) for name in SCENES)
    network = Classifier('nn1d', CONFIG, scalings=(CONFIG.scaling,), steps=(CONFIG.steps,))
    scenes = {name: lambda scene=scene: scene for name, scene in SCENES.items()}
    plan = Study('gains', scenes, settings, ARMS, (2.0,), (0, 1), (network,), True, 0)
    run = run_study(plan, tmp_path / 'run', progress=False)
    assert '| 6 | copies, r = 1 | mean |' in write_gains([run], tmp_path / 'gains')
    record = read_json(tmp_path / 'gains.json', 'gains')
    assert (record['kind'], record['trainings'], len(record['table'])) == ('spectrum', 12, 2 * 3 + 2)
    rows = read_results(run / RESULTS_FILE)
    for arm in ARMS:
        real, mixed = (
            np.array([[r['test']['oa'] for r in rows if (r['arm'], r['scene']) == (name, scene)] for scene in SCENES])
            for name in ('real', arm.name)
        )
        found = {row['scene']: row['oa']['mean'] for row in record['table'] if row['arm'] == arm.name}
        assert [found[scene] for scene in SCENES] == pytest.approx(100 * (mixed - real).mean(axis=1), abs=0.01)
        assert found[MEAN] == pytest.approx(100 * (mixed - real).mean(), abs=0.01)
    against = write_gains([run], tmp_path / 'against', against='copies')
    assert 'against copies' in against
    assert '| first, r = 2 |' in against
