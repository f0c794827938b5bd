"""All seeds of a setting in one training, as benchmarks/stacked.py has it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hsiaug.ablation import Arm, Classifier, Setting, Study
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.records import read_json
from hsiaug.scenes import BlockSplit, SimulatedScene
from hsiaug.trainers import ClassifierConfig

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
from gains import MEAN, write_gains
from stacked import run_stacked

CONFIG = ClassifierConfig(hidden=8, layers=1, steps=40, batch_size=16, lr=0.01, scaling='decorrelated')
ARMS = (
    Arm('mixed', 'variability', ratios=(2,)),
    Arm('first', 'variability', ratios=(2,), synthetic_first=0.5),
    Arm('copies', 'duplicate', ratios=(1,), labels='sqrt', training={'lr': 0.02}),
)


def study(seeds: tuple[int, ...], arms: tuple[Arm, ...] = ARMS) -> Study:
    scene = SimulatedScene(32, 32, classes=3, patch=3)
    setting = Setting('simulated', '6', BlockSplit(per_class=6, block=8, on_rare='drop'))
    network = Classifier('nn1d', CONFIG, scalings=(CONFIG.scaling,), steps=(CONFIG.steps,))
    return Study('stacked', {'simulated': lambda: scene}, (setting,), arms, (2.0,), seeds, (network,), True, 0)


def test_a_network_among_others_learns_what_it_learns_alone(tmp_path: Path) -> None:
    run_stacked(study((0, 1)), tmp_path / 'together')
    run_stacked(study((0, 1)), tmp_path / 'together')  # nothing is missing
    run_stacked(study((1,)), tmp_path / 'alone')
    together = read_results(tmp_path / 'together' / RESULTS_FILE)
    assert len(together) == 2 * 4
    assert {row['arm']: row['ratio'] for row in together} == {'real': 0, 'mixed': 2, 'first': 2, 'copies': 1}
    among = {row['arm']: row['test'] for row in together if row['seed'] == 1}
    alone = {row['arm']: row['test'] for row in read_results(tmp_path / 'alone' / RESULTS_FILE)}
    for arm, scores in alone.items():
        assert among[arm] == pytest.approx(scores, abs=0.02)  # rounding may turn a pixel on the border of two classes
    assert all(0.4 < row['test']['oa'] <= 1 for row in together)
    assert len({str(row['test']) for row in together}) > 5
    assert '| 6 | copies, r = 1 | mean |' in write_gains([tmp_path / 'together'], tmp_path / 'gains')
    record = read_json(tmp_path / 'gains.json', 'gains')
    assert (record['kind'], record['trainings'], len(record['table'])) == ('spectrum', 8, 4 + 3)
    real, *others = (
        np.array([row['test']['oa'] for row in together if row['arm'] == arm]) for arm in ('real', 'mixed', 'first')
    )
    means = {row['arm']: row['oa'] for row in record['table'] if row['scene'] == MEAN}
    assert [means[arm]['mean'] for arm in ('mixed', 'first')] == [
        pytest.approx(100 * (other - real).mean(), abs=0.01) for other in others
    ]


def test_arms_that_it_cannot_train_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='labels of'):
        run_stacked(study((0,), (Arm('inverse', 'duplicate', labels='inverse'),)), tmp_path)
