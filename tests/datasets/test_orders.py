"""Orders that are computed hold what stored ones hold: every sample once, the same in every process."""

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from toys import Toy

from hsiaug.datasets import MixedDataset, SyntheticDataset
from hsiaug.datasets.pools import orders
from hsiaug.datasets.pools.orders import Rounds, Shuffled, keyed
from hsiaug.ratio import Mode
from hsiaug.samplers import MixedBatchSampler


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All orders of more than eight numbers are computed."""
    monkeypatch.setattr(orders, 'STORED', 8)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1), tweak=st.integers(0, 2**40))
def test_every_number_comes_once_and_can_be_found(n: int, key: int, tweak: int) -> None:
    order = keyed(np.arange(n), n, key, tweak)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(keyed(order, n, key, tweak, inverse=True), np.arange(n))
    assert np.array_equal(keyed(np.arange(n)[::-3], n, key, tweak), order[::-3])


def test_orders_of_two_keys_or_tweaks_have_nothing_in_common() -> None:
    n = 100_000
    one = keyed(np.arange(n), n, 1)
    for other in (np.arange(n), keyed(np.arange(n), n, 2), keyed(np.arange(n), n, 1, 1)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
        assert (one == other).sum() < 12  # one on average
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.02


def test_each_place_is_taken_alike_often() -> None:
    n, times = 16, 4000
    order = keyed(np.tile(np.arange(n), times), n, 3, np.repeat(np.arange(times), n)).reshape(times, n)
    counts = np.array([np.bincount(column, minlength=n) for column in order.T])
    assert ((counts - times / n) ** 2 / (times / n)).sum() < 330  # chi square of 225 degrees: beyond it once in 10^5


def test_short_orders_are_those_of_numpy() -> None:
    order = Shuffled(50, np.random.default_rng(4))
    assert np.array_equal(order[np.arange(50)], np.random.default_rng(4).permutation(50))
    assert np.array_equal(order[order.places(np.arange(50))], np.arange(50))
    rng = np.random.default_rng(4)
    drawn = np.concatenate([rng.permutation(7) for _ in range(3)])
    assert np.array_equal(Rounds(7, 4)[np.array([20, 3])], drawn[[20, 3]])


@pytest.mark.usefixtures('computed')
def test_rounds_go_on_where_they_are_no_longer_kept() -> None:
    rounds = Rounds(4, 1)[np.arange(40)].reshape(10, 4)
    assert (np.sort(rounds) == np.arange(4)).all()
    assert len(set(map(tuple, rounds.tolist()))) > 5
    assert np.array_equal(Rounds(4, 1)[np.array([33, 2, 17])], rounds.reshape(-1)[[33, 2, 17]])
    assert np.array_equal(Rounds(4, 1)[np.array([2])], rounds.reshape(-1)[[2]])


# --- in a mixture -----------------------------------------------------------------------------------------------------


class Drawn:
    """A generator whose images are the seed of their draw."""

    def __init__(self, like: Toy) -> None:
        self.spec, self.provenance, self.class_prior = like.spec, None, torch.tensor([0.5, 0.3, 0.2])

    def sample(self, n: int, labels: Any = None, seed: int | None = None) -> dict[str, torch.Tensor]:
        rng = torch.Generator().manual_seed(seed or 0)
        label = torch.randint(3, (n,), generator=rng) if labels is None else labels
        return {'image': 0.1 + torch.rand(n, *self.spec.image_shape, generator=rng), 'label': label}


def mixture(mode: Mode, kind: str = 'bank', **options: Any) -> MixedDataset:
    real, one, other = (Toy('spectrum', n, seed=k) for k, n in enumerate((60, 25, 40)))
    sources: Any = {'bank': one, 'live': Drawn(one), 'three': {'a': one, 'b': other, 'live': Drawn(one)}}[kind]
    ratio: Any = {'a': 0.3, 'b': 0.9, 'live': 0.6} if kind == 'three' else 0.8
    return MixedDataset(real, sources, ratio, seed=2, mode=mode, replacement=True, **options)


@pytest.mark.usefixtures('computed')
@pytest.mark.parametrize('kind', ['bank', 'live', 'three'])
@pytest.mark.parametrize('mode', ['append', 'replace'])
@pytest.mark.parametrize('shuffle', [True, False])
def test_counts_places_and_batches_of_a_computed_order(mode: Mode, kind: str, shuffle: bool) -> None:
    mixed = mixture(mode, kind)
    numbers = mixed.source_numbers(3)
    order = mixed.order(3)
    assert np.bincount(numbers).tolist() == [side.count for side in order.sides]
    found, turns = order.find(np.arange(order.length))
    assert np.array_equal(found, numbers)
    for k, side in enumerate(order.sides):
        rows = side.rows[turns[numbers == k]]
        if k or mode == 'append':
            assert sorted(turns[numbers == k].tolist()) == list(range(side.count))
        held = len(side.dataset)  # type: ignore[arg-type]
        assert max(Counter(rows.tolist()).values()) == -(-side.count // held)  # none twice before all were seen
    samplers = [MixedBatchSampler(mixed, 8, shuffle=shuffle, num_replicas=2, rank=rank) for rank in (0, 1)]
    for sampler in samplers:
        sampler.set_epoch(3)
    batches = [list(sampler) for sampler in samplers]
    dealt = [index for pair in zip(*batches, strict=True) for batch in pair for index in batch]
    assert sorted(dealt) == list(range(order.length))
    for k in range(len(order.sides)):
        indices = [index for index in dealt if numbers[index] == k]
        if shuffle and (kind, k) in (('live', 1), ('three', 3)):  # its chunks are drawn one after the other
            assert turns[indices].tolist() == list(range(len(indices)))
        else:
            assert (indices == sorted(indices)) == (not shuffle)
    shares = (
        np.cumsum(numbers[dealt] > 0)
        - np.arange(1, len(dealt) + 1) * sum(side.count for side in order.sides[1:]) / order.length
    )
    assert np.abs(shares).max() <= 1


@pytest.mark.usefixtures('computed')
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_workers_ranks_and_a_start_in_the_middle_do_not_change_a_computed_order(mode: Mode) -> None:
    def images(workers: int, start: int = 0) -> list[list[float]]:
        mixed = mixture(mode, 'three')
        sampler = MixedBatchSampler(mixed, 8, start=(1, start))
        loader = DataLoader(mixed, batch_sampler=sampler, num_workers=workers)
        return [batch['image'][:, 0].tolist() for batch in loader]

    whole = images(0)
    assert images(2) == whole
    assert images(0, start=4) == whole[4:]
    one, other = (mixture(mode, 'three').batch(range(40)) for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.usefixtures('computed')
def test_classes_of_a_computed_order_have_their_exact_counts() -> None:
    source = SyntheticDataset(Drawn(Toy('spectrum', 1)), 1000, seed=1, labels='uniform', chunk=64)
    labels = source.labels()
    assert torch.bincount(labels).tolist() == [334, 333, 333]
    assert torch.equal(source.batch([5, 900, 70])['label'], labels[[5, 900, 70]])
    source.set_epoch(1)
    assert not torch.equal(source.labels(), labels)


class Long(Toy):
    """Ten million samples."""

    def __len__(self) -> int:
        return 10_000_000

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index % 50)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures('traced')
@pytest.mark.parametrize('kind', ['bank', 'live'])
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_ten_million_samples_take_no_memory(mode: Mode, kind: str) -> None:
    real, one = Long('spectrum', 50), Toy('spectrum', 25, seed=1)
    source: Any = one if kind == 'bank' else Drawn(one)
    mixed = MixedDataset(real, source, 5.0, mode=mode, replacement=True)
    loader = DataLoader(mixed, batch_sampler=MixedBatchSampler(mixed, 64))
    first = list(islice(loader, 3))
    assert abs(torch.cat([batch['synthetic'] for batch in first]).sum() - 160) <= 1
    assert tracemalloc.get_traced_memory()[1] < 60e6
