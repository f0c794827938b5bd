"""What real samples have besides image and target passes through, and means nothing where a sample is synthetic."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from toys import Toy

from hsiaug import MixedBatchSampler, MixedDataset, SyntheticMix
from hsiaug.samples import Sample, SpecMismatchError


class Placed(Dataset[Sample]):
    """Real samples as torchgeo's geospatial datasets give them, in versions that differ."""

    def __init__(self, kind: Any = 'segmentation', n: int = 12, old: bool = False) -> None:
        self.inner, self.old = Toy(kind, n), old
        self.spec = self.inner.spec

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Sample:
        bounds: Any = torch.tensor([index, index + 1.0, 10])
        where = {'bounds': (slice(index, index + 1),), 'crs': object()} if self.old else {'bounds': bounds}
        return {
            **self.inner[index], **where, 'index': index, 'cloud': np.float32(0.5), 'night': True,
            'quality': np.full((2, 2), 7, np.uint8), 'filename': f'{index}.tif',
            'tile': np.array(['a', 'b'])[index % 2],
        }  # fmt: skip


def ways(real: Placed, source: Any) -> dict[str, dict[str, Any]]:
    """One batch of every way of mixing that reads samples itself or gets batches."""
    mixed = MixedDataset(real, source, 1.0)
    first = next(iter(DataLoader(real, 12)))
    return {
        'dataset': next(iter(DataLoader(mixed, 24))),
        'whole': mixed.batch(range(24)),
        'sampler': next(iter(DataLoader(mixed, batch_sampler=MixedBatchSampler(mixed, 24), num_workers=1))),
        'append': SyntheticMix(source, 1.0, 'append')(first),
        'replace': SyntheticMix(source, 1.0, 'replace')(first),
    }


@pytest.mark.parametrize('kind', ['spectrum', 'scene', 'segmentation', 'change'])
def test_they_pass_through_and_have_no_value_where_synthetic(kind: Any) -> None:
    real = Placed(kind)
    for way, batch in ways(real, Toy(kind, 40, seed=1)).items():
        fake = batch['synthetic']
        assert 0 < fake.sum() < len(fake), way
        assert batch['bounds'].shape == (len(fake), 3), way
        assert batch['bounds'][fake].isnan().all(), way
        assert batch['cloud'].dtype == torch.float32
        assert batch['cloud'][fake].isnan().all(), way
        assert (batch['index'][fake] == -1).all(), way
        assert (batch['quality'][fake] == 255).all(), way
        assert not batch['night'][fake].any(), way
        rows = batch['index'][~fake]
        assert torch.equal(batch['bounds'][~fake], torch.stack([rows, rows + 1.0, 0 * rows + 10], 1)), way
        assert torch.equal(batch['image'][~fake], torch.stack([real[i]['image'] for i in rows.tolist()])), way
        assert batch['night'][~fake].all(), way
        assert (batch['quality'][~fake] == 7).all(), way
        names = [name for name, flag in zip(batch['filename'], fake, strict=True) if not flag]
        assert names == [f'{i}.tif' for i in rows.tolist()], way
        tiles = [name for name, flag in zip(batch['tile'], fake, strict=True) if not flag]
        assert tiles == ['ab'[i % 2] for i in rows.tolist()], way


def test_what_is_no_array_is_left_out_of_both() -> None:
    mixed = MixedDataset(Placed(old=True), Toy('segmentation', 40, seed=1), 1.0)
    for sample in (mixed[0], mixed[20]):
        assert not {'bounds', 'crs'} & set(sample)
        assert {'index', 'cloud'} < set(sample)


def test_a_source_that_has_the_key_keeps_its_values() -> None:
    source = Toy('segmentation', 40, seed=1, index=torch.tensor(3))
    for way, batch in ways(Placed(), source).items():
        assert (batch['index'][batch['synthetic']] == 3).all(), way
        assert math.isnan(batch['cloud'][batch['synthetic']][0]), way


def test_values_of_samples_are_their_own() -> None:
    """A transform that writes into one sample's filling changes no other's."""

    def write(sample: Sample) -> Sample:
        if sample['synthetic']:
            assert sample['bounds'].isnan().all()
            sample['bounds'].fill_(0)
        return sample

    mixed = MixedDataset(Placed(), Toy('segmentation', 40, seed=1), 1.0, transforms=write)
    assert not next(iter(DataLoader(mixed, 24)))['bounds'].isnan().any()


@pytest.mark.parametrize('key', ['label', 'boxes', 'label_prob', 'weight'])
def test_targets_are_never_filled(key: str) -> None:
    real, source = Toy('segmentation', 12, **{key: torch.zeros(2)}), Toy('segmentation', 40, seed=1)
    for mix in (lambda: MixedDataset(real, source, 1.0), lambda: SyntheticMix(source)(next(iter(DataLoader(real, 4))))):
        with pytest.raises(SpecMismatchError, match=f"'{key}': real samples have it, synthetic ones do not"):
            mix()


@pytest.mark.parametrize('ratio', [0, 1.0])
def test_numbers_of_python_are_what_torch_collates(ratio: float) -> None:
    class Measured(Placed):
        def __getitem__(self, index: int) -> Sample:
            return {**self.inner[index], 'cloud': 0.1 * index, 'weight': 2.0 + index, 'number': index, 'night': True}

    real = Measured()
    alone = next(iter(DataLoader(real, 12)))
    batch = next(iter(DataLoader(MixedDataset(real, Toy('segmentation', 40, seed=1), ratio, weight=0.5), 24)))
    for key, value in alone.items():
        assert batch[key].dtype == value.dtype, key
        assert torch.equal(batch[key][:12], value), key
    assert (batch['weight'][12:] == 0.5).all()


def test_a_sample_without_a_value_is_for_the_collation_to_judge() -> None:
    real = Toy('scene', 6)
    samples = [{**real[i], 'cloud': None if i % 2 else torch.zeros(())} for i in range(6)]
    mixed = MixedDataset(samples, Toy('scene', 40, seed=1), 1.0)  # type: ignore[arg-type]
    found = next(iter(DataLoader(mixed, 12, collate_fn=lambda batch: [sample['cloud'] for sample in batch])))
    assert [value is None for value in found[:6]] == [False, True] * 3
    assert all(value.isnan() for value in found[6:])
