"""What mixing knows of a dataset, it knows behind the wrappers around it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split
from torchgeo.datasets import GeoDataset
from toys import Toy

from hsiaug import MixedDataModule, MixedDataset, SyntheticMix, adapt, fit_generator, write_bank
from hsiaug.datasets import PatchDataset, SpectraDataset, SyntheticDataset
from hsiaug.datasets.contract.wrapped import counts_of, labels_of, provenances_of, spec_of, splits_of
from hsiaug.datasets.mixing.checks import digests_of
from hsiaug.samples import LeakageError, Sample, SpecMismatchError
from hsiaug.scenes import RandomSplit, Scene, Split
from hsiaug.systems import TrainingData


class Bands(Dataset[Sample]):
    """A wrapper of the user's own, which alters what it passes."""

    def __init__(self, inner: Any, bands: int) -> None:
        self.inner, self.bands = inner, bands

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Sample:
        sample = self.inner[index]
        return {**sample, 'image': sample['image'][: self.bands]}


def subset(dataset: Any) -> Any:
    return Subset(dataset, range(20))


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    'Subset': subset,
    'random_split': lambda dataset: random_split(dataset, [0.5, 0.5])[0],
    'ConcatDataset': lambda dataset: ConcatDataset([dataset, dataset]),
    'nested': lambda dataset: Subset(ConcatDataset([subset(dataset), subset(dataset)]), [3, 25]),
    'own': lambda dataset: Bands(subset(dataset), 12),
    'mixed': lambda dataset: Subset(MixedDataset(dataset, dataset, 0.5), range(5)),
}


@pytest.fixture(scope='module')
def real(scene: Scene, split: Split) -> SpectraDataset:
    return SpectraDataset(scene, split)


@pytest.mark.parametrize('name', WRAPPERS)
@pytest.mark.parametrize('way', ['MixedDataset', 'SyntheticMix', 'MixedDataModule'])
def test_leaks_and_swapped_classes_are_seen_behind_wrappers(
    real: SpectraDataset, scene: Scene, data: TrainingData, name: str, way: str
) -> None:
    def mix(wrapped: Any, generator: Any) -> Any:
        if way == 'MixedDataset':
            return MixedDataset(wrapped, generator, 0.5)
        if way == 'SyntheticMix':
            return SyntheticMix(generator, 0.5, real=wrapped)
        inner = LightningDataModule()
        inner.train_dataloader = lambda: DataLoader(wrapped, 4)  # type: ignore[method-assign]
        return MixedDataModule(inner, generator, 0.5).train_dataloader()

    elsewhere = SpectraDataset(scene, RandomSplit(fraction=0.4)(scene, seed=9))
    generator = fit_generator('duplicate', data)
    mix(WRAPPERS[name](real), generator)
    with pytest.raises(LeakageError, match='has seen'):
        mix(WRAPPERS[name](elsewhere), generator)
    swapped = fit_generator('duplicate', data)
    swapped.spec = dataclasses.replace(swapped.spec, classes=tuple(reversed(swapped.spec.classes)))
    with pytest.raises(SpecMismatchError, match='classes'):
        mix(WRAPPERS[name](real), swapped)


def test_a_source_is_looked_through_as_well(
    scene: Scene, real: SpectraDataset, data: TrainingData, tmp_path: Any
) -> None:
    bank = write_bank(fit_generator('duplicate', data), 200, tmp_path / 'bank')
    elsewhere = SpectraDataset(scene, RandomSplit(fraction=0.4)(scene, seed=9))
    for source in (bank, Subset(bank, range(150)), ConcatDataset([Subset(bank, range(150)), bank])):
        assert len(provenances_of(source)) == 1
        assert MixedDataset(real, source, 0.1).spec == real.spec
        with pytest.raises(LeakageError):
            MixedDataset(elsewhere, source, 0.1)
    other = dataclasses.replace(bank.spec, unit='counts')
    both = SyntheticDataset(fit_generator('duplicate', data), 20)
    both.spec = other
    with pytest.raises(SpecMismatchError, match='datasets that are put together do not match'):
        MixedDataset(real, ConcatDataset([bank, both]), 0.1)


def test_counts_are_those_of_the_samples_used(real: SpectraDataset) -> None:
    rows = [0, 3, 4, 9]
    expected = np.bincount(real.labels[rows].numpy(), minlength=3)
    part = Subset(real, rows)
    assert counts_of(part).tolist() == expected.tolist()  # type: ignore[union-attr]
    assert counts_of(ConcatDataset([part, real])).tolist() == (expected + real.class_counts).tolist()  # type: ignore[union-attr]
    nested = Subset(ConcatDataset([part, real]), [1, -1])
    labels = labels_of(nested)
    assert labels is not None
    assert labels.tolist() == [int(real.labels[3]), int(real.labels[-1])]
    assert counts_of(nested).sum() == 2  # type: ignore[union-attr]
    assert counts_of(Bands(real, 3)) is None
    mixed = MixedDataset(part, real, 0.5)
    assert mixed.real_counts.tolist() == expected.tolist()  # type: ignore[union-attr]
    toy = Toy('segmentation', 4)
    assert counts_of(Subset(toy, [0])) is None  # nothing says without reading


def test_pixel_counts_of_a_subset() -> None:
    toy = Toy('segmentation', 6)
    patches = PatchDataset(toy.data['image'], toy.data['mask'], toy.spec)
    expected = torch.bincount(toy.data['mask'][[1, 4]].flatten(), minlength=3)
    assert counts_of(Subset(patches, [1, 4])).tolist() == expected.tolist()  # type: ignore[union-attr]


def test_datasets_that_are_put_together_must_fit(real: SpectraDataset, scene: Scene, data: TrainingData) -> None:
    other = Scene('other', scene.cube[:, :, :8], scene.labels, scene.class_names)
    fewer = SpectraDataset(other, RandomSplit(fraction=0.4)(other))
    both = ConcatDataset([real, fewer])
    with pytest.raises(SpecMismatchError, match=r'put together.*\n.*bands: the first dataset 12, another 8'):
        MixedDataset(both, fit_generator('noise', data), 0.5)
    assert len(splits_of(both)) == 2


def test_a_wrapper_that_alters_samples_is_believed_in_what_it_alters(real: SpectraDataset) -> None:
    spec = spec_of(Bands(real, 7))
    assert spec is not None
    assert (spec.bands, spec.wavelengths, spec.classes) == (7, None, real.spec.classes)
    assert spec_of(Bands(real, 12)) == real.spec


def test_epochs_reach_a_source_behind_a_wrapper(real: SpectraDataset, data: TrainingData) -> None:
    source = Subset(SyntheticDataset(fit_generator('noise', data), 60), range(40))
    mixed = MixedDataset(real, source, 40 / len(real))
    drawn = []
    for epoch in (0, 1):
        mixed.set_epoch(epoch)
        drawn.append(mixed.batch(range(len(real), len(mixed)))['image'].sum(dim=1).sort().values)
    assert not torch.isclose(drawn[0], drawn[1]).any()


class Stream(IterableDataset[Sample]):
    def __iter__(self) -> Any:
        yield Toy('spectrum', 1)[0]


class Named(Toy):
    def __getitem__(self, index: int) -> Sample:
        return {'img': torch.rand(5), 'target': torch.tensor(0)}


class Pairs(Toy):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(5), torch.tensor(0)


@pytest.mark.parametrize(
    ('dataset', 'found'),
    [
        (TensorDataset(torch.rand(9, 5), torch.zeros(9).long()), 'tuple of 2'),
        (Pairs('spectrum', 9), 'tuple of 2'),
        (Subset(Pairs('spectrum', 9), [1, 2]), 'tuple of 2'),
        (Named('spectrum', 9), r"a dictionary with \['img', 'target'\]"),
        (Stream(), 'Stream has no samples by number.*SyntheticMix.*MixedDataModule'),
        (DataLoader(Toy('spectrum', 9)), 'DataLoader gives batches.*SyntheticMix'),
    ],
)
def test_what_is_no_dataset_of_samples_is_told_the_contract(dataset: Any, found: str) -> None:
    with pytest.raises(TypeError, match=f"'image' and 'label' or 'mask'.*{found}"):
        MixedDataset(dataset, Toy('spectrum', 9), 0.5)
    if isinstance(dataset, Dataset):
        with pytest.raises(TypeError, match=f"'image' and 'label' or 'mask'.*{found}"):
            MixedDataset(Toy('spectrum', 9), dataset, 0.5)


def test_methods_of_other_libraries_named_batch_are_not_called() -> None:
    class HuggingFace(Toy):
        def batch(self, batch_size: int, drop_last_batch: bool = False) -> str:
            return 'batches'

    class Sized(Toy):
        batch = 16

    for cls in (HuggingFace, Sized):
        mixed = MixedDataset(cls('scene', 9), cls('scene', 9, seed=1), 1.0)
        assert mixed.batch(range(18))['synthetic'].tolist() == [False] * 9 + [True] * 9


def test_geo_datasets_are_sent_to_their_loaders() -> None:
    class Map(GeoDataset):
        def __init__(self) -> None:
            pass

        def __len__(self) -> int:
            return 3

        def __getitem__(self, query: Any) -> Sample:
            raise AssertionError(query)

    for real in (Map(), Subset(Map(), [0])):
        with pytest.raises(TypeError, match=r'indexed by place and time.*SyntheticMix.*MixedDataModule'):
            MixedDataset(real, Toy('segmentation', 9), 0.5)


def test_a_shuffled_part_of_several_datasets_keeps_what_belongs_to_each_sample(real: SpectraDataset) -> None:
    """`random_split` of a `ConcatDataset`: labels, digests and so label policies follow the order of the samples."""
    both = ConcatDataset([Subset(real, range(12)), real])
    part = Subset(both, [20, 3, 14, 0, -1, 9])
    samples = [part[i] for i in range(len(part))]
    assert labels_of(part).tolist() == [int(sample['label']) for sample in samples]  # type: ignore[union-attr]
    digests = digests_of([{'image': sample['image']} for sample in samples])
    adapted = ConcatDataset([adapt(Subset(real, range(12))), adapt(real)])
    assert digests_of(Subset(adapted, part.indices)).tolist() == digests.tolist()
    shuffled = random_split(ConcatDataset([real, real]), [len(real), len(real)], torch.Generator().manual_seed(0))[0]
    only = MixedDataset(real, shuffled, 0.1, labels={real.spec.classes[2]: 1.0})
    assert {int(only[i]['label']) for i in range(len(real), len(only))} == {2}
