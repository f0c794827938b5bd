"""Schedules in append mode change the length; what was made for another length gets an error that says so."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from toys import Toy

from hsiaug.datasets import MixedDataset
from hsiaug.ratio import Linear, Step
from hsiaug.samplers import MixedBatchSampler

SHRINKS, GROWS, COMES_BACK = Step({0: 1, 1: 0.2}), Step({0: 0.2, 1: 1}), Step({0: 1, 1: 0.2, 2: 1})


def mixed_by(schedule: Any, mode: Any = 'append') -> MixedDataset:
    return MixedDataset(Toy('scene', 20), Toy('scene', 40, seed=1), schedule, mode=mode)


def read(loader: Iterable[dict[str, Any]]) -> int:
    return sum(len(batch['image']) for batch in loader)


MADE_ONCE = {
    'sequential': lambda m: DataLoader(m, 4, sampler=SequentialSampler(range(len(m)))),
    'weighted': lambda m: DataLoader(m, 4, sampler=WeightedRandomSampler(torch.ones(len(m)).double(), len(m))),
    'subset sampler': lambda m: DataLoader(m, 4, sampler=SubsetRandomSampler(range(len(m)))),
    'subset': lambda m: DataLoader(Subset(m, range(len(m))), 4, shuffle=True),
    'workers': lambda m: DataLoader(
        m, 4, sampler=SequentialSampler(range(len(m))), num_workers=1, persistent_workers=True
    ),
    'distributed': lambda m: DataLoader(m, 4, sampler=DistributedSampler(m, 2, 0)),
    'distributed, in order': lambda m: DataLoader(m, 4, sampler=DistributedSampler(m, 2, 1, shuffle=False)),
    'distributed, drop_last': lambda m: DataLoader(m, 4, sampler=DistributedSampler(m, 3, 1, drop_last=True)),
}


@pytest.mark.parametrize('schedule', [SHRINKS, GROWS], ids=['shrinks', 'grows'])
@pytest.mark.parametrize('kind', list(MADE_ONCE))
def test_a_sampler_made_once_is_refused_when_the_length_changes(kind: str, schedule: Step) -> None:
    mixed = mixed_by(schedule)
    loader = MADE_ONCE[kind](mixed)
    ranks = 3 if 'drop_last' in kind else 2 if 'distributed' in kind else 1
    share = len(mixed) // ranks
    assert read(loader) == share
    assert read(loader) == share  # the epoch may come again
    mixed.set_epoch(1)
    with pytest.raises(ValueError, match=r'the length follows the schedule Step\(ratios={0: '):
        read(loader)
    mixed.set_epoch(0)
    assert read(loader) == share
    mixed.set_epoch(1)
    assert read(MADE_ONCE[kind](mixed)) == len(mixed) // ranks  # made anew, it is right


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('schedule', [SHRINKS, GROWS, COMES_BACK, Linear(0, 1, 2)])
def test_samplers_that_ask_each_epoch_read_its_length(schedule: Any, workers: int) -> None:
    options: dict[str, Any] = {'num_workers': workers, 'persistent_workers': workers > 0}
    for shuffle in (True, False):
        mixed = mixed_by(schedule)
        loader = DataLoader(mixed, 4, shuffle=shuffle, **options)
        for epoch in range(3):
            mixed.set_epoch(epoch)
            assert read(loader) == 20 + round(20 * schedule(epoch))
    mixed = mixed_by(schedule)
    loader = DataLoader(mixed, batch_sampler=MixedBatchSampler(mixed, 4), **options)
    assert [read(loader) for _ in range(3)] == [20 + round(20 * schedule(epoch)) for epoch in range(3)]


def test_what_keeps_the_length_needs_no_new_sampler() -> None:
    for mixed in (mixed_by(SHRINKS, 'replace'), mixed_by(0.5)):
        loader = DataLoader(mixed, 4, sampler=DistributedSampler(mixed, 2, 0))
        for epoch in (0, 1):
            mixed.set_epoch(epoch)
            assert read(loader) == len(mixed) // 2
    same = mixed_by(Step({0: 1, 1: 0.97}))  # 40 samples, then 39: two ranks take 20 of them either way
    sampler: Any = DistributedSampler(same, 2, 0)
    same.set_epoch(1)
    assert len(list(sampler)) == 20


def test_single_samples_and_the_end_of_the_dataset() -> None:
    mixed = mixed_by(SHRINKS)
    mixed.set_epoch(1)
    assert mixed[0]['image'].shape == mixed[-1]['image'].shape  # to look at one needs no length
    with pytest.raises(IndexError, match=r'24 samples; its schedule Step'):
        mixed[30]
    both = ConcatDataset([mixed_by(SHRINKS), mixed_by(SHRINKS)])
    both.datasets[0].set_epoch(1)  # type: ignore[attr-defined]
    with pytest.raises(IndexError, match='its schedule Step'):
        read(DataLoader(both, 4))
    assert len(list(mixed)) == 24  # type: ignore[arg-type]
