"""Downstream models on the one engine: two parts are one training, and no other process has a part in it."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import BANDS, Toy

from hsiaug.datasets import MixedDataset, SpectraDataset
from hsiaug.engine import Run, Stream
from hsiaug.engine.schedules import Polynomial
from hsiaug.engine.stream import Batch
from hsiaug.ratio import Linear
from hsiaug.scenes import Scene, Split
from hsiaug.streams import seeded
from hsiaug.trainers import ClassifierConfig, train_nn1d
from hsiaug.trainers.supervised import Supervised, supervision

STEPS = 12


def training(interrupt_at: int | None = None) -> Supervised:
    """With everything that a step may depend on: dropout, random augmentation, momentum, schedule, epochs, weights."""
    mixed = MixedDataset(Toy('scene', 6), Toy('scene', 30, seed=1), Linear(0, 2, 4), weight=0.5)  # type: ignore[arg-type]
    network = nn.Sequential(nn.Flatten(), nn.Linear(BANDS * 64, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    stream = Stream(mixed, mixed.spec, 4, 'cpu', lambda batch: supervision(batch, 'label', 0.7))  # type: ignore[arg-type]

    def loss_of(batch: Batch) -> Tensor:
        if made.step == interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)
        noisy = batch['image'] + torch.randn(batch['image'].shape)
        losses = nn.functional.cross_entropy(network(noisy), batch['target'], reduction='none')
        return (losses * batch['weight']).sum() / batch['weight'].sum()

    made = Supervised('toy', network, optimiser, stream, 5, STEPS, Polynomial(0.2), loss_of, 'lr')
    return made


@pytest.mark.parametrize('at', [0, 4, 10])
def test_a_training_in_two_parts_has_the_weights_of_one(tmp_path: Path, at: int) -> None:
    with seeded(3, torch.device('cpu')):
        whole = training()
        whole.run(Run())
    file = tmp_path / 'toy.safetensors'
    with seeded(3, torch.device('cpu')), pytest.raises(KeyboardInterrupt):
        training(at).run(Run(), file, {'a': 1})
    with seeded(3, torch.device('cpu')):
        resumed = training()
        torch.rand(7)  # what another process has drawn meanwhile
        resumed.load(file)
        assert resumed.step == at + 1
        resumed.run(Run(), file, {'a': 1})
    expected, found = (one.modules['network'].state_dict() for one in (whole, resumed))
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_an_interrupted_training_goes_on_where_it_was() -> None:
    with seeded(3, torch.device('cpu')):
        whole = training()
        whole.run(Run())
    with seeded(3, torch.device('cpu')):
        torn = training(6)
        with pytest.raises(KeyboardInterrupt):
            torn.run(Run())
        torn.run(Run())
    expected, found = (one.modules['network'].state_dict() for one in (whole, torn))
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_gradients_are_not_shared_with_processes_that_train_something_else(
    scene: Scene, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any) -> None:
        raise AssertionError('waits for the other processes')

    data, config = SpectraDataset(scene, split), ClassifierConfig(hidden=8, layers=1, steps=3, batch_size=7)
    alone = train_nn1d(data, config).state_dict()
    monkeypatch.setattr('hsiaug.engine.training.world', lambda: (1, 2))
    monkeypatch.setattr(torch.distributed, 'all_reduce', refused)
    assert all(torch.equal(value, alone[key]) for key, value in train_nn1d(data, config).state_dict().items())


def test_transforms_of_a_dataset_reach_the_classifier_of_spectra(scene: Scene, split: Split) -> None:
    config = ClassifierConfig(hidden=8, layers=1, steps=1)
    plain, moved = SpectraDataset(scene, split), SpectraDataset(scene, split)
    moved.transforms = lambda sample: {**sample, 'image': sample['image'] + 4}
    scalers = [train_nn1d(data, config).scaler for data in (plain, moved)]
    torch.testing.assert_close(scalers[1].offset, scalers[0].offset + 4)


def test_supervision_by_hand() -> None:
    batch = {'image': torch.zeros(3, 2), 'label': torch.arange(3), 'synthetic': torch.tensor([False, True, True])}
    assert sorted(supervision(batch, 'label')) == ['image', 'target']
    assert supervision(batch, 'label', 0.5)['weight'].tolist() == [1, 0.5, 0.5]
    batch |= {'weight': torch.tensor([1.0, 0.5, 0.25]), 'label_prob': torch.eye(3)}
    assert supervision(batch, 'label', 0.5)['weight'].tolist() == [1, 0.25, 0.125]
    assert torch.equal(supervision(batch, 'label')['target'], torch.eye(3))
