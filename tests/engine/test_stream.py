"""Batches without end: every sample once per epoch, mixed datasets follow, and a stream can be taken up anywhere."""

from typing import Any

import pytest
import torch
from toys import Toy

import hsiaug.engine.stream as streams
from hsiaug.datasets import MixedDataset
from hsiaug.engine import Stream
from hsiaug.engine.stream import Batch
from hsiaug.ratio import Linear, Step


def stream_of(dataset: Any, seed: int = 0, **options: Any) -> Stream:
    return Stream(dataset, dataset.spec, seed, 'cpu', **{'keep': lambda batch: {'image': batch['image']}, **options})


def images(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch['image'] for batch in batches])


@pytest.mark.parametrize('held', [True, False])
def test_the_order_is_that_of_the_seed_and_batches_run_over_the_end_of_an_epoch(
    monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    data = Toy('scene', 7)
    size = 7 * data.spec.sample_bytes
    assert size == 7 * (64 * 5 * 4 + 8)
    monkeypatch.setattr(streams, 'HELD_BYTES', size - (not held))
    rng = torch.Generator().manual_seed(5)
    order = torch.cat([torch.randperm(7, generator=rng) for _ in range(3)])
    stream = stream_of(data, 5)
    batches = [stream.take(count) for count in (4, 4, 7, 6)]
    assert [len(batch['image']) for batch in batches] == [4, 4, 7, 6]
    assert torch.equal(images(batches), data.data['image'][order])
    assert stream.epoch == 2
    assert (stream.held is not None) == held


def test_a_batch_may_be_larger_than_an_epoch() -> None:
    data = Toy('spectrum', 3)
    batch = stream_of(data).take(8)['image']
    counts = [(batch == row).all(dim=1).sum().item() for row in data.data['image']]
    assert sum(counts) == 8
    assert min(counts) >= 2


def test_targets_weights_and_flags_stay_with_their_samples() -> None:
    real: Any = Toy('segmentation', 6)
    mixed = MixedDataset(real, Toy('segmentation', 9, seed=1), 1.5, weight=0.25)  # type: ignore[arg-type]
    batch = stream_of(mixed, keep=dict).take(15)
    known = {row.numpy().tobytes(): mask for row, mask in zip(real.data['image'], real.data['mask'], strict=True)}
    found = [known.get(row.numpy().tobytes()) for row in batch['image']]
    assert [mask is None for mask in found] == batch['synthetic'].tolist()
    assert torch.equal(batch['weight'], torch.where(batch['synthetic'], 0.25, 1.0))
    assert all(torch.equal(a, b) for a, b in zip(found, batch['mask'], strict=True) if a is not None)
    assert int(batch['synthetic'].sum()) == 9


def test_a_mixed_dataset_follows_the_epochs_and_each_is_reported_before_the_next_is_read() -> None:
    mixed = MixedDataset(Toy('scene', 4), Toy('scene', 40, seed=1), Step({0: 0.0, 1: 1.0, 2: 0.5, 3: 2.0}))  # type: ignore[arg-type]
    seen: list[tuple[int, int]] = []
    stream = stream_of(mixed, keep=dict, after_epoch=lambda epoch: seen.append((epoch, mixed.epoch)))
    assert seen == []
    shares = [int(stream.take(size)['synthetic'].sum()) for size in (4, 8, 6, 12)]
    assert shares == [0, 4, 2, 8]
    assert seen == [(0, 0), (1, 1), (2, 2)]  # the last epoch is over when the next begins


@pytest.mark.parametrize('taken', [0, 3, 4, 11, 12, 29])
@pytest.mark.parametrize('held', [True, False])
def test_a_stream_continues_as_if_samples_had_been_taken(
    monkeypatch: pytest.MonkeyPatch, held: bool, taken: int
) -> None:
    if not held:
        monkeypatch.setattr(streams, 'HELD_BYTES', 1)
    mixed = MixedDataset(Toy('scene', 4), Toy('scene', 40, seed=1), Linear(0, 3, 4), seed=3)  # type: ignore[arg-type]
    whole = stream_of(mixed)
    expected = whole.take(60)['image'][taken:]
    later = stream_of(mixed)
    later.take(7)  # wherever it stood before
    later.seek(taken)
    assert torch.equal(later.take(60 - taken)['image'], expected)


def test_an_epoch_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match='Toy has no sample to train on in epoch 0'):
        stream_of(Toy('scene', 0)).take(1)
