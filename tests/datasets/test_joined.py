"""Batches that default_collate joins at once are those that it would have stacked, whatever somebody does before it."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate
from torch.utils.data._utils.collate import default_collate_fn_map
from toys import Toy

from hsiaug.datasets import MixedDataset
from hsiaug.datasets.mixing.joined import JoinedSamples
from hsiaug.samples import Sample

ROWS = [3, 35, 0, 12, 41, 40, 7]


def mixed(real: Any = None, **options: Any) -> MixedDataset:
    source = options.pop('source', Toy('spectrum', 20, seed=1))
    ratio = dict.fromkeys(source, 0.25) if isinstance(source, dict) else 0.5
    return MixedDataset(Toy('spectrum', 30) if real is None else real, source, ratio, **options)


def stacked(dataset: Any, rows: list[int]) -> dict[str, Any]:
    """Sample by sample, in plain dictionaries."""
    return default_collate([dict(dataset[row]) for row in rows])


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one.keys() != other.keys():
        return False
    return all(
        torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype
        if isinstance(one[k], torch.Tensor)
        else one[k] == other[k]
        for k in one
    )


class Plain(Dataset[Sample]):
    """Samples of many types."""

    def __init__(self, **extra: Any) -> None:
        self.toy, self.extra = Toy('spectrum', 30), extra

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Sample:
        sample = self.toy[index]
        return {'image': sample['image'].numpy(), 'label': int(sample['label']), 'file': f'{index}.tif', **self.extra}


@pytest.mark.parametrize(
    ('dataset', 'joined'),
    [
        (mixed(), True),
        (mixed(weight=0.3), True),
        (mixed(source={'a': Toy('spectrum', 20, seed=1), 'b': Toy('spectrum', 20, seed=2)}), True),
        (mixed(Plain()), True),
        (mixed(Plain(nothing=None, nested={'a': 1})), False),
        (mixed(mode='replace'), True),
    ],
    ids=['plain', 'weight', 'two sources', 'numbers and text', 'what synthetic samples lack', 'replace'],
)
def test_a_joined_batch_is_the_stacked_one(dataset: MixedDataset, joined: bool) -> None:
    for rows in (ROWS, [1, 2, 5], [5, 5]):
        rows = [row % len(dataset) for row in rows]
        samples = dataset.__getitems__(rows)
        assert isinstance(samples, JoinedSamples) == joined
        batch = default_collate(samples)
        assert type(batch) is dict
        assert equal(batch, stacked(dataset, rows))
        assert equal(default_collate(list(dataset.__getitems__(rows))), batch)  # looked at before


def test_what_is_made_of_samples_is_what_is_collated() -> None:
    dataset = mixed()
    whole = stacked(dataset, ROWS)

    def changed(change: Any) -> Any:
        samples = dataset.__getitems__(ROWS)
        change(samples)
        return default_collate(samples)

    def first(samples: Any) -> None:
        samples[0]['image'] = torch.full((5,), 9.0)

    def in_place(samples: Any) -> None:
        samples[0]['image'][:] = 9.0

    def each(samples: Any) -> None:
        for sample in samples:
            sample['more'] = torch.tensor(1)

    assert (changed(first)['image'][0] == 9).all()
    assert torch.equal(changed(first)['image'][1:], whole['image'][1:])
    assert changed(in_place)['image'][0, 0] == 9
    assert changed(each)['more'].tolist() == [1] * len(ROWS)
    assert 'weight' not in changed(lambda samples: samples[0].pop('synthetic'))
    assert 'synthetic' not in changed(lambda samples: [sample.pop('synthetic') for sample in samples])
    assert len(changed(lambda samples: samples.pop())['label']) == len(ROWS) - 1
    assert torch.equal(changed(lambda samples: samples.reverse())['image'], whole['image'].flip(0))
    assert equal(changed(lambda samples: (samples[0], samples[3], len(samples))), whole)


def test_samples_are_dictionaries_in_a_list_to_whoever_looks() -> None:
    dataset = mixed()
    samples = dataset.__getitems__(ROWS)
    for look in (
        list,
        copy.copy,
        lambda s: pickle.loads(pickle.dumps(s)),
        lambda s: s[:],
        lambda s: s + [],  # noqa: RUF005
        lambda s: [] + s,  # noqa: RUF005
        lambda s: s * 1,
    ):
        found = look(dataset.__getitems__(ROWS))
        assert isinstance(found, list | JoinedSamples)
        assert all(isinstance(sample, dict) for sample in found)
        assert equal(default_collate([dict(sample) for sample in found]), stacked(dataset, ROWS))
    assert samples[-1]['label'] == dataset[ROWS[-1]]['label']
    assert [int(sample['label']) for sample in samples] == stacked(dataset, ROWS)['label'].tolist()
    seen = next(
        iter(DataLoader(dataset, 4, collate_fn=lambda batch: batch, num_workers=1, multiprocessing_context='fork'))
    )
    assert isinstance(seen, list)
    assert [set(sample) for sample in seen] == [{'image', 'label', 'synthetic'}] * 4


def test_wrappers_and_own_ways_of_stacking_get_what_they_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = mixed()
    subset: Any = Subset(dataset, ROWS)
    assert equal(default_collate(subset.__getitems__([0, 2, 6])), stacked(dataset, [ROWS[0], ROWS[2], ROWS[6]]))
    double = next(iter(DataLoader(ConcatDataset([dataset, dataset]), sampler=[1, 46, 40], batch_size=3)))
    assert equal(double, stacked(dataset, [1, 1, 40]))
    both = [*dataset.__getitems__([3, 4]), *dataset.__getitems__([5, 40])]  # a sample of its own kind in the middle
    assert equal(default_collate(both), stacked(dataset, [3, 4, 5, 40]))
    assert equal(default_collate(list(dataset.__getitems__([3, 4]))[:1]), stacked(dataset, [3]))
    monkeypatch.setitem(default_collate_fn_map, torch.Tensor, lambda batch, *, collate_fn_map: len(batch))
    assert default_collate(dataset.__getitems__(ROWS)) == {'image': 7, 'label': 7, 'synthetic': 7}


def test_samples_that_are_no_batch_reach_a_collation_of_ones_own() -> None:
    class Ragged(Toy):
        def __getitem__(self, index: int) -> Sample:
            return {**super().__getitem__(index), 'echoes': torch.ones(5 - index % 2)}

    dataset = mixed(Ragged('spectrum', 30))
    samples = dataset.__getitems__([21, 22, 31])
    assert [len(sample['echoes']) for sample in samples] == [4, 5, 5]
    assert samples[0]['echoes'].shape == (4,)
    with pytest.raises(RuntimeError, match='stack'):
        default_collate(dataset.__getitems__([21, 22, 31]))


def test_large_images_are_copied_once() -> None:
    real, source = Toy('scene', 12), Toy('scene', 12, seed=1)
    for toy in (real, source):
        toy.data['image'] = torch.rand(12, 5, 64, 64)
    samples = MixedDataset(real, source, 0.5).__getitems__([0, 14])
    assert isinstance(samples, list)
    assert np.array_equal([sample['synthetic'] for sample in samples], [False, True])
