"""Sources that somebody else has written, priors and epochs that are none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import Toy, toy_training

from hsiaug import MixedDataset, SyntheticMix, write_bank
from hsiaug.datasets import SyntheticDataset
from hsiaug.samples import Sample
from hsiaug.systems import Generator
from hsiaug.trainers import fit_generator

Change = Callable[[Sample], Any]


class Foreign:
    provenance = None

    def __init__(self, change: Change) -> None:
        self.spec, self.change = Toy('spectrum', 1).spec, change

    def sample(self, n: int, labels: Any = None, seed: Any = None) -> Any:
        rng = torch.Generator().manual_seed(seed or 0)
        label = torch.zeros(n, dtype=torch.int64) if labels is None else labels
        return self.change({'image': torch.rand(n, 5, generator=rng), 'label': label})


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (lambda batch: (batch['image'], batch['label']), TypeError, 'dictionary of tensors is expected.*found tuple'),
        (lambda batch: {k: v.numpy() for k, v in batch.items()}, TypeError, "found {'image': 'ndarray'"),
        (lambda batch: {k: v[1:] for k, v in batch.items()}, ValueError, r'\d+ samples were asked for, found'),
        (lambda batch: {**batch, 'image': batch['image'] / 0}, ValueError, 'NaN or infinite values'),
    ],
)
def test_what_a_source_gives_is_checked(tmp_path: Path, change: Change, error: type[Exception], message: str) -> None:
    real, source = Toy('spectrum', 12), Foreign(change)
    batch = {key: value[:4] for key, value in real.data.items()}
    with pytest.raises(error, match=message):
        MixedDataset(real, source, labels='uniform')
    with pytest.raises(error, match=message):
        SyntheticMix(source, labels='uniform')(batch)
    with pytest.raises(error, match=message):
        write_bank(source, 8, tmp_path / 'bank', labels='uniform')


def test_gradients_stay_with_the_source(tmp_path: Path) -> None:
    source = Foreign(lambda batch: {**batch, 'image': batch['image'].requires_grad_()})
    mixed = MixedDataset(Toy('spectrum', 12), source, labels='uniform')
    assert not mixed[len(mixed) - 1]['image'].requires_grad
    assert len(write_bank(source, 8, tmp_path / 'bank', labels='uniform')) == 8


@pytest.fixture(scope='module')
def generator() -> Generator:
    return fit_generator('noise', toy_training('spectrum', 30))


@pytest.mark.parametrize('prior', [[0.6, 0.6, -0.2], [0.6, np.nan, 0.4], [0.5, 0.5], [0, 0, 0]])
def test_a_prior_is_one_of_the_classes(generator: Generator, prior: list[float]) -> None:
    with pytest.raises(ValueError, match='a share of each of 3 classes, >= 0 and at least one above 0'):
        SyntheticDataset(generator, 10, labels='prior', prior=np.array(prior))


def test_a_prior_may_be_counts(generator: Generator) -> None:
    shares, counts = (
        SyntheticDataset(generator, 1000, labels='prior', real_counts=np.zeros(3), prior=np.array(prior)).counts
        for prior in ([0.6, 0.3, 0.1], [6, 3, 1])
    )
    assert shares.tolist() == counts.tolist() == [600, 300, 100]


@pytest.mark.parametrize('epoch', [-1, 1.5, '2', True])
def test_epochs_are_counted(generator: Generator, epoch: Any) -> None:
    dataset = SyntheticDataset(generator, 10)
    with pytest.raises(ValueError, match='SyntheticDataset: epoch must be'):
        dataset.set_epoch(epoch)
    dataset.set_epoch(np.int64(3))  # type: ignore[arg-type]
    assert dataset.epoch == 3
