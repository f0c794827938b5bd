"""Arms that mix in other ways: synthetic samples first, with another weight, with normalisation of their own."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from hsiaug.ablation import Arm, Classifier, Segmenter, Setting, Study
from hsiaug.ablation.cells import Group
from hsiaug.datasets import MixedDataset
from hsiaug.scenes import PatchSplitter, RandomSplit, Scene, SimulatedScene
from hsiaug.tasks import spectrum
from hsiaug.trainers import ClassifierConfig, train_nn1d
from hsiaug.trainers.segmentation import SegmenterConfig, train_segmenter

CONFIG = ClassifierConfig(hidden=16, batch_size=16, lr=0.003)
NETWORK = Classifier(config=CONFIG, scalings=('standard',), steps=(60,))
WAYS = (
    Arm('mixup', 'mixup'),
    Arm('first', 'mixup', synthetic_first=0.5),
    Arm('light', 'mixup', training={'synthetic_weight': 0.25}),
)


def study(*arms: Arm, **changes: Any) -> Study:
    setting = Setting('stripes', '40 %', RandomSplit(fraction=0.4))
    given: dict[str, Any] = {'ratios': (1.0,), 'seeds': (0,), 'classifiers': (NETWORK,), **changes}
    return Study('ways', {'stripes': lambda: None}, (setting,), arms, **given)  # type: ignore[arg-type, return-value]


def test_what_the_network_sees(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = study(*WAYS)
    group = Group(scene, plan.settings[0], 0, tmp_path)
    seen: dict[str, list[tuple[int, int]]] = {}
    configs: dict[str, ClassifierConfig] = {}

    def trained(dataset: Any, config: ClassifierConfig, seed: int, device: str) -> Any:
        def note(epoch: int, _: Any) -> None:
            if isinstance(dataset, MixedDataset):
                synthetic = int(dataset.is_synthetic().sum())
                seen.setdefault(name, []).append((synthetic, len(dataset) - synthetic))

        configs[name], networks[name] = config, train_nn1d(dataset, config, seed, device, note)
        return networks[name]

    monkeypatch.setattr(spectrum, 'train_nn1d', trained)
    networks: dict[str, torch.nn.Module] = {}
    for cell in plan.cells(plan.settings[0], 0):
        name = 'real' if cell.arm is None else cell.arm.name
        row = group.run(cell, plan.metrics)
        assert row['steps'] == 60
        assert row['train_synthetic'] == (0 if cell.arm is None else len(group.real))
    real = len(group.real)
    assert set(seen['mixup']) == set(seen['light']) == {(real, real)}
    # Half of 60 · 16 samples is 2.5 epochs of 192: the nearest whole number of them, and then real ones alone.
    epochs = round(0.5 * 60 * 16 / real)
    assert 0 < epochs < len(seen['first'])
    assert seen['first'][:epochs] == [(real, 0)] * epochs
    assert set(seen['first'][epochs:]) == {(0, real)}
    assert configs['light'] == replace(configs['mixup'], synthetic_weight=0.25)
    assert configs['first'] == configs['mixup'] == configs['real']
    weights = [torch.cat([p.flatten() for p in network.parameters()]) for network in networks.values()]
    assert all(not torch.equal(a, b) for a, b in combinations(weights, 2))


def test_normalisation_of_its_own_for_synthetic_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting('simulated', '16 px', PatchSplitter(size=16, stride=8, regions='halves'))
    arms = (
        Arm('flips', 'patch_augment', {'kind': 'flips'}, 'real'),
        Arm('auxiliary BN', 'patch_augment', {'kind': 'flips'}, 'real', training={'auxiliary_bn': True}),
        Arm('first', 'patch_augment', {'kind': 'flips'}, 'real', synthetic_first=0.5),
    )
    network = Segmenter('tiny', SegmenterConfig('segformer', 'mit_tiny', channels=16, batch_size=4, steps=30))
    plan = Study('ways', {'simulated': lambda: None}, (setting,), arms, (1.0,), (0,), (network,))  # type: ignore[arg-type, return-value]
    trained: list[Any] = []

    def kept(*args: Any) -> Any:
        trained.append(train_segmenter(*args))
        return trained[-1]

    monkeypatch.setattr('hsiaug.tasks.base.train_images', kept)
    group = Group(SimulatedScene(64, 64, classes=3, patch=4), setting, 0, tmp_path)
    for cell in plan.cells(setting, 0):
        group.run(cell, plan.metrics)
    means = [state['running_mean'] for state in map(first_normalisation, trained)]
    assert all(not torch.equal(a, b) for a, b in combinations(means, 2))


def first_normalisation(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)).state_dict()


def test_cells_of_usual_arms_keep_their_keys() -> None:
    cells = study(*WAYS, classifiers=(replace(NETWORK, config=ClassifierConfig(hidden=16), steps=(20,)),)).all_cells()
    # As they were before arms could mix in other ways: studies begun then go on.
    assert [cell.key for cell in cells[:2]] == ['b11c74fbf8cb42f3', '6fd8c7d6376d85e4']
    assert len({cell.key for cell in cells}) == 4
    others = study(Arm('mixup', 'mixup', synthetic_first=0.5), Arm('light', 'mixup', synthetic_first=0.25)).all_cells()
    assert not {cell.key for cell in cells[1:]} & {cell.key for cell in others[1:]}


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"training names \['auxiliary_bn'\].*ClassifierConfig.*synthetic_weight"):
        study(Arm('mixup', 'mixup', training={'auxiliary_bn': True}))
    with pytest.raises(ValueError, match='equally many steps'):
        study(Arm('mixup', 'mixup', training={'steps': 1000}))
    with pytest.raises(ValueError, match="'linear_svm' has no training in steps"):
        study(WAYS[1], classifiers=(Classifier('linear_svm'),))
    with pytest.raises(ValueError, match=r'synthetic_first must be in \[0, 1\)'):
        Arm('first', 'mixup', synthetic_first=1.0)
    with pytest.raises(ValueError, match='synthetic_first must be 0 with synthetic_only'):
        Arm('first', 'mixup', synthetic_first=0.5, synthetic_only=True)
