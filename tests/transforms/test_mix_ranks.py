"""What the ranks of a distributed training draw, without a process group: rank and world size are made up."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler
from toys import Toy, keys_of

from hsiaug.datasets import MixedDataset
from hsiaug.samplers import MixedBatchSampler
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms import SyntheticMix


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(dist, 'is_available', lambda: True)
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'get_rank', lambda: rank)
    monkeypatch.setattr(dist, 'get_world_size', lambda: world)


def mixed_by_rank(
    monkeypatch: pytest.MonkeyPatch, source: Any, world: int, mode: Any, kind: Any, epoch: int = 0
) -> list[list[dict[str, Any]]]:
    """Batches of every rank."""
    found = []
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        mix = SyntheticMix(source, 1.0, mode, seed=4)
        mix.set_epoch(epoch)
        real = Toy(kind, 24)
        sampler: Any = DistributedSampler(real, world, rank, shuffle=False)
        found.append([mix(batch) for batch in DataLoader(real, 4, sampler=sampler)])
    return found


def drawn(batches: list[dict[str, Any]]) -> list[bytes]:
    return [key for batch in batches for key in keys_of(batch['image'][batch['synthetic']])]


@pytest.mark.parametrize('mode', ['append', 'replace'])
@pytest.mark.parametrize('world', [2, 3])
def test_ranks_share_one_sequence_of_draws(monkeypatch: pytest.MonkeyPatch, world: int, mode: str) -> None:
    source = Toy('scene', 60, seed=1)
    mix = SyntheticMix(source, 1.0, mode, seed=4)  # type: ignore[arg-type]
    alone = keys_of(mix.sources.pools[0].at(np.arange(24 if mode == 'append' else 12), 0)['image'])
    ranks = [drawn(batches) for batches in mixed_by_rank(monkeypatch, source, world, mode, 'scene')]
    assert len({key for rank in ranks for key in rank}) == len(alone)  # no sample on two ranks
    for rank, keys in enumerate(ranks):
        assert sorted(keys) == sorted(alone[rank::world])  # replaced ones lie at random places
    again = [drawn(batches) for batches in mixed_by_rank(monkeypatch, source, world, mode, 'scene', epoch=1)]
    assert all(one != other for one, other in zip(ranks, again, strict=True))


def test_ranks_draw_different_noise_of_a_live_generator(monkeypatch: pytest.MonkeyPatch, data: TrainingData) -> None:
    generator = fit_generator('noise', data)
    images = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        mix = SyntheticMix(generator, 1.0, 'append', seed=4)
        batch = mix({'image': data.x[:16], 'label': data.y[:16]})
        images.append(set(keys_of(batch['image'][batch['synthetic']])))
    assert len(images[0]) == len(images[1]) == 16
    assert not images[0] & images[1]


def test_ranks_replace_at_different_places(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = mixed_by_rank(monkeypatch, Toy('scene', 60, seed=1), 2, 'replace', 'scene')
    places = [np.concatenate([batch['synthetic'].numpy() for batch in batches]) for batches in ranks]
    assert places[0].sum() == places[1].sum()
    assert not np.array_equal(*places)


@pytest.mark.parametrize('world', [2, 3])
def test_the_batch_sampler_takes_rank_and_world_of_the_process_group(
    monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    mixed = MixedDataset(Toy('scene', 13), Toy('scene', 50, seed=1), 0.5)
    ranks = []
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        sampler = MixedBatchSampler(mixed, 4)
        ranks.append(list(sampler))
        assert len(ranks[-1]) == len(sampler)
    assert len({len(batches) for batches in ranks}) == 1  # equal steps
    dealt = [index for batches in ranks for batch in batches for index in batch]
    assert sorted(dealt) == list(range(19))  # every sample once


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_a_converted_batch_gets_synthetic_samples_in_its_dtype(dtype: torch.dtype, mode: str) -> None:
    real, source = Toy('segmentation', 8), Toy('segmentation', 30, seed=1)
    mix = SyntheticMix(source, 1.0, mode)  # type: ignore[arg-type]
    batch = next(iter(DataLoader(real, 8)))
    batch['image'] = batch['image'].to(dtype)
    mixed = mix(batch)
    assert mixed['image'].dtype == dtype
    assert mixed['mask'].dtype == torch.int64
    stored = set(keys_of(source.data['image'].to(dtype).float()))
    assert set(keys_of(mixed['image'][mixed['synthetic']].float())) <= stored
