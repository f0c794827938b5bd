"""Tuning, and what is said of cells and plans that cannot be measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hsiaug.ablation.cells as measuring
from hsiaug.ablation import Arm, Classifier, Segmenter, Setting, Study, run_study
from hsiaug.ablation.cells import Group
from hsiaug.ablation.results import read_results
from hsiaug.metrics.scores import Accuracies
from hsiaug.scenes import RandomSplit, Scene
from hsiaug.tasks import spectrum
from hsiaug.trainers import ClassifierConfig, train_nn1d

SETTING = Setting('scene', '30 %', RandomSplit(fraction=0.3))
NETWORK = Classifier(config=ClassifierConfig(hidden=8, layers=1, lr=0.01), scalings=('standard',), steps=(5, 10))
SVM = Classifier('linear_svm', c=(1.0,))


def library() -> Scene:
    rng = np.random.default_rng(0)
    label = np.repeat([1, 2], 60)
    return Scene.from_spectra('s', rng.normal(size=(120, 5)) + 3 * (label == 2)[:, None], label)


def study(**changes: Any) -> Study:
    fields: dict[str, Any] = {
        'title': 'test',
        'scenes': {'scene': library},
        'settings': (SETTING,),
        'arms': (Arm('noise', 'noise', {}, 'real'),),
        'ratios': (1.0,),
        'seeds': (0, 1),
        'classifiers': (SVM,),
    }
    return Study(**{**fields, **changes})


def test_candidates_are_tuned_from_another_initialisation_than_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it the same, the winner's luck would be in the figure that ratios are compared with."""
    seeds: list[tuple[int, int]] = []

    def noted(dataset: Any, config: ClassifierConfig, seed: int, device: str) -> Any:
        seeds.append((config.steps, seed))
        return train_nn1d(dataset, config, seed, device)

    monkeypatch.setattr(spectrum, 'train_nn1d', noted)
    plan = study(classifiers=(NETWORK,), arms=(), seeds=(3, 4))
    cell_seeds, tuning_seeds = set(), set()
    for seed in plan.seeds:
        seeds.clear()
        (cell,) = plan.cells(SETTING, seed)
        Group(library(), SETTING, seed, tmp_path).run(cell, plan.metrics)
        (first, tuned), (second, also), (_, trained) = seeds
        assert (first, second) == (5, 10)
        assert tuned == also
        assert trained == seed
        tuning_seeds.add(tuned)
        cell_seeds.add(trained)
    assert len(tuning_seeds) == 2  # paired with the cell's, but never one of them
    assert not tuning_seeds & set(range(1000))


def test_a_setting_that_diverges_is_never_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = replace(NETWORK, config=replace(NETWORK.config, lr=1e30))
    group = Group(library(), SETTING, 0, tmp_path)
    both, slow = replace(NETWORK, steps=(5,)), replace(wild, config=replace(wild.config, steps=7))
    monkeypatch.setattr(Classifier, 'candidates', lambda self: [wild, NETWORK] if self == both else [wild, slow])
    assert group.tuned(both, 'oa') is NETWORK
    group = Group(library(), SETTING, 0, tmp_path)
    with pytest.raises(ValueError, match='learns nothing from real data alone: its training diverged in all of 2'):
        group.tuned(wild, 'oa')


def test_a_cell_that_diverges_is_named(tmp_path: Path) -> None:
    once = replace(NETWORK, steps=(10,))
    plan = study(classifiers=(once,), arms=(Arm('wild', 'noise', {}, 'real', training={'lr': 1e30}),), seeds=(0,))
    with pytest.raises(ValueError, match=r"scene, 30 %, nn1d, arm 'wild' at ratio 1, seed 0: nn1d diverged"):
        run_study(plan, tmp_path, progress=False)
    assert [row['arm'] for row in read_results(tmp_path / 'results.jsonl')] == ['real']


def test_a_generator_that_diverges_is_named_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = measuring.fit_generator

    def diverged(*args: Any) -> Any:
        generator = fit(*args)
        with torch.no_grad():
            next(iter(generator.parameters())).fill_(float('inf'))
        return generator

    monkeypatch.setattr(measuring, 'fit_generator', diverged)
    arm = Arm('GAN', 'spectral_gan', {'iterations': 2, 'hidden': 4, 'layers': 1}, 'real')
    with pytest.raises(ValueError, match=r"arm 'GAN' at ratio 1, seed 0: the training of 'spectral_gan' diverged"):
        run_study(study(arms=(arm,), seeds=(0,)), tmp_path, progress=False)
    assert not (tmp_path / 'generators').exists()


def test_a_metric_without_a_value_is_named_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Accuracies(1.0, float('nan'), 1.0, (1.0, 1.0))
    monkeypatch.setattr('hsiaug.tasks.base.accuracies', lambda *_: nothing)
    message = r"scene, 30 %, linear_svm, real only, seed 0: \['aa'\] have no value on the validation part"
    with pytest.raises(ValueError, match=message):
        run_study(study(), tmp_path, progress=False)
    assert not read_results(tmp_path / 'results.jsonl')


def test_numpy_seeds_are_seeds(tmp_path: Path) -> None:
    plan = study(seeds=np.arange(2), arms=())
    assert [cell.key for cell in plan.all_cells()] == [cell.key for cell in study(arms=()).all_cells()]
    run_study(plan, tmp_path, progress=False)
    assert json.loads((tmp_path / 'plan.json').read_text())['seeds'] == [0, 1]


def test_long_arrays_in_settings_are_told_apart() -> None:
    """Printed, arrays of more than a thousand numbers are cut short."""
    one = np.zeros(5000)
    other = one.copy()
    other[2500] = 1
    keys = {study(arms=(Arm('x', 'noise', {'level': a}),)).cells(SETTING, 0)[1].key for a in (one, other)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'seeds': (0, 1, 0)}, 'repeated seeds'),
        ({'seeds': (-1,)}, 'seed must be at least 0'),
        ({'seeds': (0.5,)}, 'seed must be a whole number'),
        ({'seeds': ('0',)}, 'seed must be a whole number'),
        ({'seeds': ()}, 'at least one of seeds'),
        ({'ratios': (1, 1.0)}, 'none twice'),
        ({'ratios': (float('nan'),)}, 'finite number >= 0'),
        ({'ratios': (0.0,)}, "arm 'noise' has no ratio above 0"),
        ({'settings': ()}, 'at least one of settings'),
        ({'classifiers': ()}, 'at least one of classifiers'),
        ({'classifiers': (SVM, replace(SVM, c=(2.0,)))}, 'repeated classifiers'),
        ({'arms': (Arm('a', 'noise'), Arm('a', 'duplicate'))}, 'repeated arms'),
        ({'fidelity_seeds': 1.5}, 'fidelity_seeds must be a whole number'),
    ],
)
def test_mistakes_in_a_study_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(**changes)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Arm('a', 'noise', ratios=()), 'at least one ratio'),
        (lambda: Arm('a', 'noise', ratios=(2, 2.0)), 'none twice'),
        (lambda: Arm('a', 'noise', seeds=0), 'number of seeds must be at least 1'),
        (lambda: Arm('a', 'noise', ratios=2.0), 'ratios must be a list, found 2.0'),  # type: ignore[arg-type]
        (lambda: Arm('a', 'noise', {}, 'reel'), "unknown labels 'reel'; choose from"),  # type: ignore[arg-type]
        (lambda: Arm('a', 'noise', 'level'), 'settings must be dict'),  # type: ignore[arg-type]
        (lambda: study(seeds=3), 'seeds must be a list, found 3'),
        (lambda: study(arms=Arm('a', 'noise')), 'arms must be a list'),
        (lambda: study(ratios=(1, 2), arms=(Arm('a', 'noise', default=3.0),)), 'default 3.0 is not among its ratios'),
        (lambda: run_study(study(arms=(Arm('a', 'noisy'),)), 'x'), "arm 'a': unknown generator 'noisy'"),
        (lambda: Arm('', 'noise'), 'a name expected'),
        (lambda: Arm('a', 'noise', synthetic_first=float('nan')), 'synthetic_first must be a finite number'),
        (lambda: Classifier(steps=()), 'at least one of steps'),
        (lambda: Classifier(steps=(0,)), 'steps must be at least 1'),
        (lambda: Classifier(scalings=()), 'at least one of scalings'),
        (lambda: Classifier('linear_svm', c=()), 'at least one of c'),
        (lambda: Classifier('linear_svm', c=(float('nan'),)), 'c must be a finite number above 0'),
        (lambda: Segmenter(steps=(2.5,)), 'steps must be a whole number'),
        (lambda: Segmenter(learning_rates=(0.0,)), 'learning rate must be above 0, found 0'),
        (lambda: Setting('scene', 'x', RandomSplit(), {'a': -1}), "number of seeds of arm 'a' must be at least 0"),
        (lambda: run_study(study(), 'x', workers=0), 'workers must be at least 1'),
        (lambda: run_study(study(), 'x', workers='2'), 'workers must be a whole number'),  # type: ignore[arg-type]
    ],
)
def test_mistakes_in_the_parts_of_a_study_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
