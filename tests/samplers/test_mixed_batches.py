from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from toys import Toy, aligned, keys_of

from hsiaug.datasets import MixedDataset
from hsiaug.ratio import Linear, Schedule, Step, SyntheticFirst
from hsiaug.samplers import MixedBatchSampler, mixed_loader
from hsiaug.samples import Kind


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(['spectrum', 'scene', 'segmentation', 'change']),
    mode=st.sampled_from(['append', 'replace']),
    ratio=st.floats(0, 5),
    size=st.integers(1, 17),
    ranks=st.integers(1, 4),
    epoch=st.integers(0, 9),
    drop_last=st.booleans(),
)
def test_composition_is_exact_over_batches_ranks_and_epochs(
    kind: Kind, mode: str, ratio: float, size: int, ranks: int, epoch: int, drop_last: bool
) -> None:
    real, source = Toy(kind, 37), Toy(kind, 50, seed=1)
    mixed = MixedDataset(real, source, ratio, seed=5, mode=mode, replacement=True)  # type: ignore[arg-type]
    samplers = [MixedBatchSampler(mixed, size, drop_last, seed=2, num_replicas=ranks, rank=r) for r in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    batches = [list(sampler) for sampler in samplers]
    assert len({len(b) for b in batches}) == 1
    assert len(batches[0]) == len(samplers[0])
    flags = mixed.is_synthetic()
    share = flags.mean()
    for rank in batches:
        for batch in rank:
            assert abs(flags[batch].sum() - len(batch) * share) < 1 + 1e-9
            assert len(batch) == size or (not drop_last and len(batch) <= size + 1)
    dealt = Counter(index for rank in batches for batch in rank for index in batch)
    assert max(dealt.values(), default=0) <= 1
    left_out = len(mixed) - len(dealt)
    assert left_out == (len(mixed) % (size * ranks) if drop_last else 0)
    if mode == 'append' and not drop_last:
        whole = mixed.batch(sorted(dealt))
        real_ones = Counter(keys_of(whole['image'][~whole['synthetic']]))
        assert real_ones == Counter(keys_of(real.data['image']))  # none lost, none repeated
    # Batch k of the one sequence holds exactly the cumulative difference.
    if ranks == 1 and not drop_last:
        held = [int(flags[b].sum()) for b in batches[0]]
        ends = np.minimum(np.arange(1, len(held) + 1) * size, len(mixed))
        assert np.cumsum(held).tolist() == [int(end * int(flags.sum()) // len(mixed)) for end in ends]


@pytest.mark.parametrize('kind', ['spectrum', 'segmentation', 'change'])
@pytest.mark.parametrize('workers', [0, 2])
def test_loaders_give_the_same_batches_whatever_the_workers(kind: Kind, workers: int) -> None:
    def epochs(num_workers: int) -> list[list[Any]]:
        mixed = MixedDataset(Toy(kind, 21), Toy(kind, 30, seed=1), 1.0, seed=1)
        loader = DataLoader(
            mixed,
            batch_sampler=MixedBatchSampler(mixed, 8),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )
        return [[keys_of(batch['image']) for batch in loader] for _ in range(3)]

    found = epochs(workers)
    assert found == epochs(0)
    assert found[0] != found[1] != found[2]


def test_schedules_change_the_composition_from_epoch_to_epoch() -> None:
    real, source = Toy('segmentation', 40), Toy('segmentation', 200, seed=1)
    grown = MixedDataset(real, source, Linear(0, 2, 4))
    loader = DataLoader(grown, batch_sampler=MixedBatchSampler(grown, 8))
    for epoch in range(6):
        assert len(loader) == -(-(40 + 20 * min(epoch, 4)) // 8)
        batches = list(loader)
        assert sum(int(b['synthetic'].sum()) for b in batches) == 20 * min(epoch, 4)
        assert all(aligned(b) for b in batches)
    first = MixedDataset(real, source, SyntheticFirst(2), mode='replace')
    sampler = MixedBatchSampler(first, 8)
    assert [sum(first.is_synthetic()[b].sum() for b in sampler) for _ in range(4)] == [40, 40, 0, 0]
    with pytest.raises(ValueError, match="mode='replace'"):
        MixedDataset(real, source, SyntheticFirst(2))
    stepped = MixedDataset(real, source, Step({0: 1, 3: 6}))
    stepped.set_epoch(3)
    with pytest.raises(ValueError, match='holds 200'):
        stepped[0]


def test_at_ratio_zero_the_loader_is_the_real_one_to_the_bit() -> None:
    real = Toy('segmentation', 21)

    def batches(dataset: Any = None) -> list[dict[str, Any]]:
        torch.manual_seed(7)
        loader: Any = DataLoader(real, 4, shuffle=True, drop_last=True, num_workers=2)
        return [batch for _ in range(2) for batch in (loader if dataset is None else mixed_loader(loader, dataset))]

    plain = batches()
    for mode in ('append', 'replace'):
        mixed = batches(MixedDataset(real, Toy('segmentation', 9, seed=1), 0, mode=mode))  # type: ignore[arg-type]
        assert len(plain) == len(mixed) == 10
        for one, other in zip(plain, mixed, strict=True):
            assert not other.pop('synthetic').any()
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_lightning_can_call_it_again_with_its_own_sampler() -> None:
    mixed = MixedDataset(Toy('scene', 20), Toy('scene', 20, seed=1), 1.0)
    wrapped: Any = DistributedSampler(SequentialSampler(mixed), num_replicas=2, rank=1)  # type: ignore[arg-type, var-annotated]
    again = MixedBatchSampler(wrapped, 5, num_replicas=2, rank=1)
    assert again.dataset is mixed
    assert again.sampler is again  # type: ignore[comparison-overlap]
    with pytest.raises(TypeError, match='a MixedDataset expected, found Toy'):
        MixedBatchSampler(Toy('scene', 3), 2)
    few = MixedBatchSampler(MixedDataset(Toy('scene', 1), Toy('scene', 3), 0), 4, num_replicas=2, rank=0)
    with pytest.raises(ValueError, match='1 samples are too few for 2 ranks'):
        len(few)
    own: Any = DataLoader(mixed, batch_sampler=type('Own', (BatchSampler,), {})(SequentialSampler(mixed), 3, False))
    with pytest.raises(TypeError, match='SyntheticMix'):
        mixed_loader(own, mixed)


@pytest.mark.parametrize(
    'sampler',
    [
        SubsetRandomSampler(range(12)),  # the others may be kept for validation
        WeightedRandomSampler(torch.ones(24).tolist(), 24),
        RandomSampler(range(24), num_samples=12),
        RandomSampler(range(24), replacement=True),
    ],
)
def test_samples_that_a_loader_leaves_out_stay_out(sampler: Any) -> None:
    real, synthetic = Toy('scene', 24), Toy('scene', 50, seed=1)
    loader: Any = DataLoader(real, 4, sampler=sampler)
    with pytest.raises(TypeError, match=f"with a {type(sampler).__name__} cannot .* way='batch' .*Subset"):
        mixed_loader(loader, MixedDataset(real, synthetic, 0.5))
    assert len(list(mixed_loader(loader, MixedDataset(real, synthetic, 0)))) == len(loader)
    for plain in (RandomSampler(real), SequentialSampler(real), DistributedSampler(real, 1, 0)):
        one: Any = DataLoader(real, 4, sampler=plain)
        assert sum(len(batch['image']) for batch in mixed_loader(one, MixedDataset(real, synthetic, 0.5))) == 36


@pytest.mark.parametrize('ranks', [1, 2])
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_an_epoch_goes_on_where_it_was_left(mode: str, ranks: int) -> None:
    mixed = MixedDataset(Toy('scene', 37), Toy('scene', 50, seed=1), 0.5, mode=mode)  # type: ignore[arg-type]
    for rank in range(ranks):
        whole = MixedBatchSampler(mixed, 4, num_replicas=ranks, rank=rank)
        epochs = [list(whole) for _ in range(4)]
        for done in range(len(epochs[2])):
            rest = MixedBatchSampler(mixed, 4, num_replicas=ranks, rank=rank, start=(2, done))
            assert len(rest) == len(whole)  # Lightning goes on counting from ``done``
            assert [list(rest), list(rest)] == [epochs[2][done:], epochs[3]]
            rest.set_epoch(1)
            assert list(rest) == epochs[1]


def test_an_epoch_can_be_held() -> None:
    mixed = MixedDataset(Toy('scene', 37), Toy('scene', 50, seed=1), Step({0: 0.5, 1: 0}), mode='replace')
    held = MixedBatchSampler(mixed, 4, hold=True)
    first = list(held)
    held.set_epoch(1)
    assert list(held) == list(held) == first
    assert mixed.epoch == 0


def synthetic_per_epoch(loader: Any, epochs: int) -> list[int]:
    return [sum(int(batch['synthetic'].sum()) for batch in loader) for _ in range(epochs)]


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('persistent', [False, True])
def test_a_look_at_a_loader_is_no_epoch(workers: int, persistent: bool) -> None:
    mixed = MixedDataset(Toy('spectrum', 20), Toy('spectrum', 40, seed=1), Step({0: 1, 1: 0}), mode='replace')
    loader = DataLoader(
        mixed,
        batch_sampler=MixedBatchSampler(mixed, 4),
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
    )
    first = keys_of(next(iter(loader))['image'])
    again = keys_of(next(iter(loader))['image'])
    assert first == again
    assert synthetic_per_epoch(loader, 3) == [10, 0, 0]
    loader.batch_sampler.set_epoch(0)  # type: ignore[union-attr]
    next(iter(loader))
    assert synthetic_per_epoch(loader, 2) == [10, 0]
    for _ in zip(range(len(loader)), loader, strict=False):  # every batch taken, the end not asked for
        pass
    assert mixed.epoch == 2
    assert synthetic_per_epoch(loader, 1) == [0]
    assert mixed.epoch == 3


@pytest.mark.parametrize('workers', [0, 1])
def test_an_iteration_keeps_its_own_samples_whatever_begins_beside_it(workers: int) -> None:
    def loader() -> Any:
        mixed = MixedDataset(Toy('spectrum', 40), Toy('spectrum', 80, seed=1), Linear(2, 0, 4), mode='replace')
        return DataLoader(mixed, batch_sampler=MixedBatchSampler(mixed, 4), num_workers=workers)

    alone = [keys_of(batch['image']) for batch in loader()]
    beside, disturbed = loader(), []
    for number, batch in enumerate(beside):
        disturbed.append(keys_of(batch['image']))
        if number == 2:
            next(iter(beside))
        if number == 4:
            beside.dataset.set_epoch(3)
        if number == 6:
            beside.batch_sampler.set_epoch(2)
            next(iter(beside))
    assert disturbed == alone
    assert beside.dataset.epoch == 2
    assert len(list(beside)) == len(alone)
    assert beside.dataset.epoch == 2  # as it was said


def test_a_long_iteration_that_is_cut_short_is_an_epoch_and_short_ones_are_warned_of() -> None:
    mixed = MixedDataset(Toy('spectrum', 300), Toy('spectrum', 400, seed=1), 1.0)
    sampler = MixedBatchSampler(mixed, 2)
    for number, _ in enumerate(sampler):
        if number == 80:
            break
    assert [next(iter(sampler)), mixed.epoch][1] == 1
    next(iter(sampler))
    next(iter(sampler))
    with pytest.warns(UserWarning, match=r'epoch 1 begins for the fourth time.*call set_epoch'):
        next(iter(sampler))
    sampler.set_epoch(5)
    next(iter(sampler))
    assert mixed.epoch == 5


def test_an_epoch_that_the_dataset_was_told_is_the_next() -> None:
    """Loaders that are made anew in every epoch, and one that is told where it begins."""
    mixed = MixedDataset(Toy('spectrum', 40), Toy('spectrum', 80, seed=1), Step({0: 1, 1: 0.25}), mode='replace')
    synthetic = []
    for epoch in range(2):
        mixed.set_epoch(epoch)
        loader = DataLoader(mixed, batch_sampler=MixedBatchSampler(mixed, 8))
        synthetic.append(sum(int(batch['synthetic'].sum()) for batch in loader))
    assert synthetic == [20, 8]
    sampler = MixedBatchSampler(mixed, 8)
    mixed.set_epoch(4)
    assert sampler.state_dict()['epoch'] == 4
    assert [[list(sampler), mixed.epoch][1] for _ in range(2)] == [4, 5]  # it counts on from there
    assert mixed.load_state_dict(mixed.state_dict()) is None
    assert [list(sampler), mixed.epoch][1] == 6


def test_batches_of_a_subset_of_a_mixture_are_refused() -> None:
    mixed = MixedDataset(Toy('spectrum', 40), Toy('spectrum', 80, seed=1), 1.0)
    with pytest.raises(TypeError, match='take the subset of the real dataset'):
        MixedBatchSampler(Subset(mixed, range(10)), 4)


@pytest.mark.parametrize(('replicas', 'rank'), [(2, None), (None, 1), (2, 2), (2, -1), (0, 0)])
def test_a_rank_is_one_of_a_number_of_replicas(replicas: int | None, rank: int | None) -> None:
    mixed = MixedDataset(Toy('spectrum', 8), Toy('spectrum', 8, seed=1), 0.5)
    with pytest.raises(ValueError, match='give both or none'):
        MixedBatchSampler(mixed, 2, num_replicas=replicas, rank=rank)


class Following(Schedule):
    """A schedule that follows the training: its ratio is set from outside."""

    now = 0.25

    def __call__(self, epoch: int) -> float:
        return self.now


@pytest.mark.parametrize('sampled', [True, False])
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_workers_that_live_on_follow_a_schedule_that_follows_the_training(mode: Any, sampled: bool) -> None:
    schedule = Following()
    mixed = MixedDataset(Toy('spectrum', 20), Toy('spectrum', 40, seed=1), schedule, mode=mode)
    how: dict[str, Any] = (
        {'batch_sampler': MixedBatchSampler(mixed, 5)} if sampled else {'batch_size': 5, 'shuffle': True}
    )
    loader = DataLoader(mixed, num_workers=1, persistent_workers=True, **how)
    found = []
    for epoch, schedule.now in enumerate((0.25, 1.0, 0.0)):
        mixed.set_epoch(epoch)
        found.append(sum(int(batch['synthetic'].sum()) for batch in loader))
    assert found == ([5, 20, 0] if mode == 'append' else [4, 10, 0])


def test_an_iteration_keeps_the_ratio_that_it_began_with() -> None:
    schedule = Following()
    mixed = MixedDataset(Toy('spectrum', 20), Toy('spectrum', 40, seed=1), schedule)
    first, second = (iter(DataLoader(mixed, batch_sampler=MixedBatchSampler(mixed, 5))) for _ in range(2))
    batches = [next(first)]
    schedule.now = 1.0
    changed = list(second)
    batches += first
    assert [sum(int(b['synthetic'].sum()) for b in each) for each in (batches, changed)] == [5, 20]
    assert len({key for batch in batches for key in keys_of(batch['image'])}) == 25


def test_a_seed_is_checked_before_the_first_batch() -> None:
    for seed in (None, 1.5, '0'):
        with pytest.raises(TypeError, match='seed must be a whole number'):
            MixedBatchSampler(MixedDataset(Toy('scene', 6), Toy('scene', 8)), 2, seed=seed)  # type: ignore[arg-type]
