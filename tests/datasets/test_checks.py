"""Class numbers and values of both sides, in every way of mixing."""

import warnings
from collections.abc import Callable
from typing import Any

import albumentations as A
import kornia.augmentation as K
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Subset
from toys import Toy, toy_spec

from hsiaug import MixedDataset, SyntheticMix
from hsiaug.datasets.mixing.checks import ClassNumbers, Scales
from hsiaug.samples import Kind, Sample, SpecMismatchError
from hsiaug.transforms import albumentations as ours
from hsiaug.transforms.kornia import RandomSyntheticMix


class Bare(Toy):
    """A dataset of the user's own, that says nothing of itself."""

    def __init__(self, kind: Kind, n: int, change: Callable[[Sample], Sample] = dict, **says: Any) -> None:
        super().__init__(kind, n)
        del self.spec
        self.change = change
        self.__dict__.update(says)

    def __getitem__(self, index: int) -> Sample:
        return self.change(super().__getitem__(index))

    def whole(self) -> dict[str, Any]:
        samples = [self[i] for i in range(len(self))]
        return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def shifted(by: int) -> Callable[[Sample], Sample]:
    return lambda sample: {key: value if key == 'image' else value + by for key, value in sample.items()}


def through(way: str, real: Bare, source: Toy, **options: Any) -> None:
    batch = real.whole()
    if way == 'MixedDataset':
        MixedDataset(real, source, 0.5, **options)
    elif way == 'SyntheticMix':
        SyntheticMix(source, 1.0, **options)(batch)
    elif way == 'kornia':
        mix = K.AugmentationSequential(RandomSyntheticMix(source, p=0.9, **options), data_keys=None)
        mix(batch)
    else:
        compose = A.Compose([ours.SyntheticMix(source, p=1.0, **options)])
        for image, mask in zip(batch['image'], batch['mask'], strict=True):
            compose(image=image.permute(1, 2, 0).numpy(), mask=mask.numpy())


WAYS = ['MixedDataset', 'SyntheticMix', 'kornia', 'albumentations']


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('by', [1, -1, 10, 254])
def test_labels_that_are_no_classes_are_refused_in_every_way(way: str, by: int) -> None:
    torch.manual_seed(0)
    through(way, Bare('segmentation', 24), Toy('segmentation', 40, seed=1))
    with pytest.raises(SpecMismatchError, match=r'real masks hold .*expected 0 to 2'):
        through(way, Bare('segmentation', 24, shifted(by)), Toy('segmentation', 40, seed=1))


@pytest.mark.parametrize('way', WAYS[:2])
@pytest.mark.parametrize('kind', ['spectrum', 'scene'])
def test_labels_from_one_on_are_refused_and_said_to_be(way: str, kind: Kind) -> None:
    with pytest.raises(SpecMismatchError, match=r'hold \[3\], expected 0 to 2 \(a, b, c\).*subtract 1'):
        through(way, Bare(kind, 24, shifted(1)), Toy(kind, 40, seed=1))


def ignoring(source: Toy, value: int) -> Toy:
    source.spec = toy_spec('segmentation', ignore_index=value)
    return source


@pytest.mark.parametrize('way', WAYS)
def test_the_ignore_index_is_no_class_and_no_mistake(way: str) -> None:
    def edge(value: int) -> Callable[[Sample], Sample]:
        def change(sample: Sample) -> Sample:
            sample['mask'][:2] = value
            return sample

        return change

    source = ignoring(Toy('segmentation', 40, seed=1), 255)
    through(way, Bare('segmentation', 24, edge(255)), source)
    with pytest.raises(SpecMismatchError, match='or 255 where a pixel does not count'):
        through(way, Bare('segmentation', 24, edge(254)), source)


def test_a_label_that_no_look_found_is_refused_in_its_batch() -> None:
    def rare(sample: Sample) -> Sample:
        return sample

    real = Bare('spectrum', 200, rare)
    real.data['label'][77] = 3  # between the samples that are looked at
    mixed = MixedDataset(real, Toy('spectrum', 200, seed=1), 0.5)
    mixed.batch(range(70))
    for read in (lambda: mixed.batch(range(70, 80)), lambda: mixed[77], lambda: mixed.__getitems__([3, 77, 250])):
        with pytest.raises(SpecMismatchError, match='real labels hold'):
            read()


def test_synthetic_labels_are_checked_too() -> None:
    source = Toy('segmentation', 40, seed=1)
    source.data['mask'] += 1
    for way in WAYS:
        with pytest.raises(SpecMismatchError, match='synthetic masks hold'):
            through(way, Bare('segmentation', 24), source)


@pytest.mark.parametrize('soft', [False, True])
def test_soft_labels_give_no_traceback(soft: bool) -> None:
    class Soft(Toy):
        def __getitem__(self, index: int) -> Sample:
            return {**super().__getitem__(index), 'label_prob': torch.tensor([0.5, 0.5, 0.0])}

    real = Bare('spectrum', 24, shifted(1))
    source = Soft('spectrum', 40, seed=1)
    if soft:
        del source.spec  # only the soft labels tell how many classes there are
    with pytest.raises(SpecMismatchError, match=r'hold .*3'):
        MixedDataset(real, source, 0.5)


def test_classes_of_torchgeo_datasets_are_compared_in_their_order() -> None:
    source = Toy('scene', 40, seed=1)
    MixedDataset(Bare('scene', 9, classes=['A', 'b', 'c']), source, 0.5)
    MixedDataset(Bare('scene', 9, classes=[11, 12, 13]), source, 0.5)  # values of a raster, no names
    MixedDataset(Bare('scene', 9, classes={'a': (0, 0, 0)}), source, 0.5)
    with pytest.raises(SpecMismatchError, match='the same names in another order'):
        MixedDataset(Bare('scene', 9, classes=('b', 'a', 'c')), source, 0.5)
    with pytest.raises(SpecMismatchError, match=r"has no \['oats'\].*on_rare"):
        MixedDataset(Bare('scene', 9, classes=np.array(['a', 'b', 'oats', 'c'])), source, 0.5)
    with pytest.raises(SpecMismatchError, match='other names'):
        SyntheticMix(source, 0.5, real=Bare('scene', 9, classes=['x', 'y', 'z']))
    with pytest.raises(SpecMismatchError, match='another order'):
        MixedDataset(Bare('scene', 9, classes=['a', 'b', 'c']), Bare('scene', 9, classes=['b', 'a', 'c']), 0.5)


def test_classes_are_found_behind_wrappers_and_must_agree_within() -> None:
    source, ours, theirs = Toy('scene', 40, seed=1), ['a', 'b', 'c'], ['c', 'b', 'a']
    MixedDataset(ConcatDataset([Bare('scene', 9, classes=ours), Bare('scene', 9, classes=ours)]), source, 0.5)
    with pytest.raises(SpecMismatchError, match='another order'):
        MixedDataset(Subset(Bare('scene', 9, classes=theirs), [1, 2]), source, 0.5)
    with pytest.raises(SpecMismatchError, match='put together do not match'):
        MixedDataset(ConcatDataset([Bare('scene', 9, classes=ours), Bare('scene', 9, classes=theirs)]), source, 0.5)


def test_change_masks_are_zero_and_one_whoever_says_so() -> None:
    good = Bare('change', 12)

    def times(factor: int) -> Callable[[Sample], Sample]:
        return lambda sample: {**sample, 'mask': sample['mask'] * factor}

    MixedDataset(Bare('change', 12), good, 0.5)
    with pytest.raises(SpecMismatchError, match=r'mask // 255'):
        MixedDataset(Bare('change', 12, times(255)), good, 0.5)
    with pytest.raises(SpecMismatchError, match=r'hold \[2\], expected 0 to 1'):
        MixedDataset(Bare('change', 12, times(2)), good, 0.5)
    source = Toy('change', 12, seed=1)
    source.spec = toy_spec('change', ignore_index=255)
    with pytest.warns(UserWarning, match='mask // 255'):
        MixedDataset(Bare('change', 12, times(255)), source, 0.5)


def test_two_sides_that_say_nothing_are_warned_of_a_shift() -> None:
    with pytest.warns(UserWarning, match='as if one side counted classes from 1'):
        MixedDataset(Bare('spectrum', 30, shifted(1)), Bare('spectrum', 40), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        MixedDataset(Bare('spectrum', 30), Bare('spectrum', 40), 0.5)


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.integers(-3, 6) | st.sampled_from([255, -100, 127]), max_size=6),
    ignore=st.sampled_from([None, 255, -100, -1, 1]),
    dtype=st.sampled_from([torch.int64, torch.int32, torch.int16, torch.uint8, torch.float32, torch.bool]),
)
def test_the_quick_check_is_the_plain_one(labels: list[int], ignore: int | None, dtype: torch.dtype) -> None:
    values = torch.tensor(labels, dtype=torch.int64).to(dtype)
    fits = all(0 <= label < 3 or label == ignore for label in values.tolist())
    numbers = ClassNumbers(3, ignore)
    if fits:
        numbers.require_values(values, 'labels')
    else:
        with pytest.raises(SpecMismatchError, match='labels hold'):
            numbers.require_values(values, 'labels')


# --- scale ----------------------------------------------------------------------------------------------------------


def scaled(factor: float) -> Callable[[Sample], Sample]:
    return lambda sample: {**sample, 'image': sample['image'] * factor}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('factor', [1e4, 100.0, 1e-4])
def test_other_units_are_refused_with_both_medians_and_can_be_meant(way: str, factor: float) -> None:
    torch.manual_seed(0)
    real, source = Bare('segmentation', 48, scaled(factor)), Toy('segmentation', 100, seed=1)
    with pytest.raises(
        SpecMismatchError, match=r'median of \|value\| is .* in real and 0\.\d+ in.*different_scales=True'
    ):
        through(way, real, source)
    through(way, real, source, different_scales=True)
    through(way, Bare('segmentation', 48, scaled(20.0)), source)


def test_what_is_no_unit_passes() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(16, 5, 4, 4, generator=rng)
    for other in (
        torch.zeros_like(image),  # nothing to compare
        image + 1000,  # an offset moves the level, and not the spread
        image - image.mean(),
        torch.where(torch.rand(image.shape, generator=rng) < 0.7, 0.0, image),  # mostly filled with zero
        torch.where(torch.rand(image.shape, generator=rng) < 0.2, torch.nan, image),
    ):
        Scales().see(image, other)
        Scales().see(other, image)
    for pair in ((image, 1e4 * image), (image, -50 * image), (image / 40, image), (image, torch.full_like(image, 3e3))):
        with pytest.raises(SpecMismatchError, match='orders of magnitude'):
            Scales().see(*pair)


def test_few_samples_must_differ_by_more() -> None:
    water, snow = torch.rand(3, 5) * 0.005, torch.rand(3, 5)
    Scales().see(water, snow)
    with pytest.raises(SpecMismatchError):
        Scales().see(water, 1e4 * snow)


def test_ratio_zero_looks_at_nothing() -> None:
    real = Bare('spectrum', 9, shifted(7))
    mixed = MixedDataset(real, Toy('spectrum', 9), 0)
    assert [int(mixed[i]['label']) for i in range(9)] == [int(real[i]['label']) for i in range(9)]


def test_one_side_alone_that_is_normalised_is_warned_of() -> None:
    image = torch.rand(16, 5, generator=torch.Generator().manual_seed(0))
    normalised = (image - image.mean()) / image.std()
    for pair in ((image, normalised), (normalised, image)):
        with pytest.warns(UserWarning, match=r'[1-9]\d% of .* negative, as if only one side were .*different_scales'):
            Scales().see(*pair)
    compared = Scales()
    compared.add('real', image)
    compared.add('synthetic', normalised)
    with pytest.warns(UserWarning, match='both sides alike, or the comparison means nothing$'):
        compared.judge('or the comparison means nothing')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        Scales().see(normalised, normalised.flip(0))
        Scales(different=True).see(image, normalised)
