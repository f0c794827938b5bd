"""The epoch of a dataset reaches persistent workers, whatever way the dataset itself came."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset
from toys import Toy, keys_of

from hsiaug.datasets import MixedDataset, SyntheticBank, SyntheticDataset, write_bank
from hsiaug.datasets.shared import SharedInt
from hsiaug.quality.adaptive_ratio import AdaptiveRatio
from hsiaug.ratio import Step
from hsiaug.samplers import MixedBatchSampler
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms.probability import MixProbability

cloudpickle = pytest.importorskip('ray.cloudpickle', reason='needs ray')
COPIES: dict[str, Callable[[Any], Any]] = {
    'deepcopy': copy.deepcopy,
    'pickle': lambda dataset: pickle.loads(pickle.dumps(dataset)),
    'cloudpickle': lambda dataset: pickle.loads(cloudpickle.dumps(dataset)),
    'a copy of a copy': lambda dataset: copy.deepcopy(pickle.loads(pickle.dumps(dataset))),
}


def epochs(dataset: Any, owner: Any, **options: Any) -> list[list[bytes]]:
    """What three epochs of persistent workers hold."""
    loader = DataLoader(dataset, 16, num_workers=1, persistent_workers=True, **options)
    found = []
    for epoch in range(3):
        owner.set_epoch(epoch)
        found.append([key for batch in loader for key in keys_of(batch['image'])])
    return found


def alone(dataset: Any, owner: Any) -> list[list[bytes]]:
    """The same without workers."""
    found = []
    for epoch in range(3):
        owner.set_epoch(epoch)
        found.append([key for batch in DataLoader(dataset, 16) for key in keys_of(batch['image'])])
    return found


@pytest.mark.parametrize('way', list(COPIES))
def test_copies_follow_their_own_epoch_in_persistent_workers(way: str, data: TrainingData) -> None:
    generator = fit_generator('noise', data)
    for original in (
        MixedDataset(Toy('spectrum', 20), Toy('spectrum', 40, seed=1), 1.0),
        MixedDataset(Toy('scene', 20), Toy('scene', 40, seed=1), 1.0, mode='replace'),
        SyntheticDataset(generator, 40),
    ):
        original.set_epoch(7)
        again = COPIES[way](original)
        assert again.epoch == 7
        found = epochs(again, again)
        assert original.epoch == 7  # the copy's epoch is its own
        assert found[0] != found[1] != found[2] != found[0]
        assert found == alone(original, original)


@pytest.mark.parametrize(('way', 'method'), [('deepcopy', 'fork'), ('pickle', 'spawn')])
def test_copies_share_their_epoch_with_workers_of_either_start_method(way: str, method: str, tmp_path: Path) -> None:
    bank = write_bank(Toy('scene', 40, seed=1), None, tmp_path)
    original = MixedDataset(Toy('scene', 20), bank, 1.0)
    fresh = SyntheticBank(tmp_path)
    again = COPIES[way](MixedDataset(Toy('scene', 20), fresh, 1.0))
    assert epochs(again, again, multiprocessing_context=method) == alone(original, original)
    held = again.sources.pools[0].source
    assert isinstance(held, SyntheticBank)
    assert held._verified.all()  # the workers' checks are known here
    assert not held._mapped


def test_copies_within_other_datasets_and_under_the_sampler() -> None:
    original = MixedDataset(Toy('scene', 20), Toy('scene', 40, seed=1), 1.0)
    for wrap in (lambda d: Subset(d, range(10, 40)), lambda d: ConcatDataset([d, copy.copy(d)])):
        again = copy.deepcopy(wrap(original))
        inner = again.dataset if isinstance(again, Subset) else again.datasets[0]
        assert epochs(again, inner) == alone(wrap(original), original)

    def batches(dataset: MixedDataset, workers: int) -> list[list[list[bytes]]]:
        loader = DataLoader(
            dataset,
            batch_sampler=MixedBatchSampler(dataset, 8),
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        return [[keys_of(batch['image']) for batch in loader] for _ in range(3)]

    assert batches(copy.deepcopy(original), 1) == batches(original, 0)
    # A loader copied whole keeps its sampler and its dataset together.
    loader = copy.deepcopy(DataLoader(original, batch_sampler=MixedBatchSampler(original, 8)))
    assert loader.batch_sampler.dataset is loader.dataset  # type: ignore[union-attr]


class Scheduled(torch.utils.data.Dataset[float]):
    """Reports what a schedule or a probability says, from within a worker."""

    def __init__(self, value: Callable[[], float]) -> None:
        self.value = value

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> float:
        return self.value()


class Probability:
    """The current probability, as a function that can be copied."""

    def __init__(self, probability: MixProbability) -> None:
        self.probability = probability

    def __call__(self) -> float:
        return self.probability.value


class Chosen:
    """The current ratio of a schedule that learns."""

    def __init__(self, ratio: AdaptiveRatio) -> None:
        self.ratio = ratio

    def __call__(self) -> float:
        return self.ratio(99)


def test_transforms_and_schedules_reach_the_workers_of_a_copy_too() -> None:
    gated = copy.deepcopy(Scheduled(Probability(MixProbability('Own', Step({0: 0, 1: 1}), None))))
    loader = DataLoader(gated, num_workers=1, persistent_workers=True)
    found = []
    for epoch in (0, 1):
        gated.value.probability.set_epoch(epoch)  # type: ignore[attr-defined]
        found.append(float(next(iter(loader))))
    assert found == [0, 0.5]
    learning = copy.deepcopy(Scheduled(Chosen(AdaptiveRatio([0, 1, 2], every=1))))
    ratio: AdaptiveRatio = learning.value.ratio  # type: ignore[attr-defined]
    loader = DataLoader(learning, num_workers=1, persistent_workers=True)
    for epoch in range(6):
        assert float(next(iter(loader))) == ratio(99)
        ratio.observe(epoch, 0.1 * epoch)
    assert len(set(ratio.history)) > 1


def test_a_shared_integer_is_one_number_with_its_workers_and_another_with_its_copies() -> None:
    number = SharedInt(3)
    again = copy.deepcopy(number)
    number.value = 5
    assert (number.value, again.value, repr(again)) == (5, 3, 'SharedInt(3)')
