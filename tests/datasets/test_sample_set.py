"""Datasets in the place of a scene: parts, groups, folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pairs import make_pairs
from torch.utils.data import Dataset, Subset

from hsiaug.datasets import MixedDataset, PatchDataset, SampleSet, SampleSplitter, scene_dataset
from hsiaug.quality import FoldTrial
from hsiaug.quality.folds import fold_splits
from hsiaug.quality.ratio_search import Candidate
from hsiaug.quality.regions import label_regions
from hsiaug.samples import LeakageError
from hsiaug.systems.fit import fit_generator, training_data
from hsiaug.tasks import task_of
from hsiaug.trainers.segmentation import SegmenterConfig

PARTS = ('train', 'val', 'test')


def pairs(n: int = 30, seed: int = 0) -> PatchDataset:
    data = make_pairs(n, seed)
    return PatchDataset(data.x, data.y, data.spec)


class Cities(Dataset[Any]):
    """Pairs that say of which city they are."""

    def __init__(self, n: int = 30, per_city: int = 3, seed: int = 0) -> None:
        self.pairs, self.per_city = pairs(n, seed), per_city
        self.classes, self.wavelengths = self.pairs.spec.classes, self.pairs.spec.wavelengths
        self.unit, self.ignore_index = self.pairs.spec.unit, self.pairs.spec.ignore_index
        self.value_range = self.pairs.spec.value_range

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.pairs[index], 'city': f'city {index // self.per_city}'}


def rows(split: Any) -> dict[str, set[int]]:
    return {part: set(getattr(split, part).tolist()) for part in PARTS}


def test_groups_stay_together_and_seeds_vary_the_parts() -> None:
    samples = SampleSet(Cities(), group='city')
    splits = [SampleSplitter()(samples, seed) for seed in range(4)]
    assert len({split.fingerprint for split in splits}) == 4
    assert splits[1].fingerprint == SampleSplitter()(SampleSet(Cities(), group='city'), 1).fingerprint
    for split in splits:
        parts = rows(split)
        assert sorted(row for part in parts.values() for row in part) == list(range(30))
        assert {part: len(found) for part, found in parts.items()} == {'train': 18, 'val': 6, 'test': 6}
        cities = [{row // 3 for row in part} for part in parts.values()]
        assert not cities[0] & cities[1] and not cities[1] & cities[2] and not cities[0] & cities[2]  # noqa: PT018


def test_parts_of_a_datasets_own_are_used() -> None:
    samples = SampleSet(pairs(20), val=pairs(8, 1), test=pairs(9, 2))
    one, other = (SampleSplitter()(samples, seed) for seed in (0, 1))
    assert rows(one) == rows(other) == {'train': set(range(20)), 'val': set(range(20, 28)), 'test': set(range(28, 37))}
    assert torch.equal(scene_dataset(samples, one, 'test').image, pairs(9, 2).image)  # type: ignore[union-attr]
    assert samples.place(29) == 'sample 1 of test'
    only_test = SampleSplitter(val_share=0)(SampleSet(pairs(20), test=pairs(9, 2)))
    assert rows(only_test)['train'] == set(range(20))
    with pytest.raises(ValueError, match='the val part is empty; give val, or a val_share above 0'):
        scene_dataset(SampleSet(pairs(20), test=pairs(9, 2)), only_test, 'val')


def test_one_image_is_in_one_part() -> None:
    one = pairs(20)
    twice = PatchDataset(one.image.repeat(2, 1, 1, 1), one.mask.repeat(2, 1, 1), one.spec)
    split = SampleSplitter()(SampleSet(twice))
    assert all({(row + 20) % 40 for row in part} == part for part in rows(split).values())
    other = pairs(6, 1)
    both = PatchDataset(torch.cat([one.image[:3], other.image]), torch.cat([one.mask[:3], other.mask]), one.spec)
    samples = SampleSet(one, test=both)
    with pytest.raises(LeakageError, match=r'holds 3 of 9 samples that train or val hold too, .* \[0, 1, 2\]'):
        SampleSplitter()(samples)


def test_tiles_of_an_image_stay_together() -> None:
    samples = SampleSet(pairs(), size=8)
    assert np.array_equal(np.unique(samples.groups, return_counts=True)[1], np.full(30, len(samples.groups) // 30))
    with pytest.raises(ValueError, match=r"lie in 1 group\(s\), by the images .* or group='samples'"):
        SampleSplitter()(SampleSet(pairs(1), size=8))
    assert len(SampleSplitter()(SampleSet(pairs(1), size=8, group='samples')).train) > 0


def test_folds_are_dealt_by_groups_and_watched() -> None:
    samples = SampleSet(Cities(), group='city')
    split = SampleSplitter()(samples, 3)
    folds = fold_splits(samples, split, 3, seed=1)
    assert sorted(row for fold in folds for row in fold.test) == sorted(rows(split)['train'] | rows(split)['val'])
    for fold in folds:
        parts = rows(fold)
        assert not parts['test'] & (parts['train'] | parts['val'] | rows(split)['test'])
        assert not {row // 3 for row in parts['test']} & {row // 3 for row in parts['train']}
        generator = fit_generator('patch_augment', training_data(samples, fold), {'kind': 'flips'})
        assert generator.provenance is not None
        assert generator.provenance.split == fold.fingerprint
        real = scene_dataset(samples, fold, 'train')
        MixedDataset(real, generator, 0.5, evaluation=scene_dataset(samples, fold, 'test'))
        with pytest.raises(LeakageError, match='has seen'):
            MixedDataset(real, generator, 0.5, evaluation=scene_dataset(samples, split, 'train'))
    regions = label_regions(samples, split)
    assert regions.shape == scene_dataset(samples, split, 'train').mask.shape  # type: ignore[union-attr]
    assert len(regions.unique()) == 6
    with pytest.raises(ValueError, match='lie in 8 groups, 9 folds need as many'):
        fold_splits(samples, split, 9)
    with pytest.raises(ValueError, match='have no positions'):
        fold_splits(samples, split, regions='blocks')


def test_a_trial_scores_folds_of_a_dataset() -> None:
    samples = SampleSet(Cities(), group='city')
    config = SegmenterConfig(encoder='mit_tiny', channels=8, steps=2, batch_size=4)
    trial = FoldTrial(samples, SampleSplitter()(samples), 'patch_augment', config, {'kind': 'flips'}, folds=2)
    plain, mixed = (trial(Candidate(ratio), 0, 0) for ratio in (0.0, 1.0))
    assert 0 <= plain <= 1
    assert plain != mixed
    other = FoldTrial(samples, SampleSplitter()(samples, 1), 'patch_augment', config, {'kind': 'flips'}, folds=2)
    assert trial.identity != other.identity
    assert trial.task is task_of('segmentation')


def test_content_tells_other_masks_and_groups_apart() -> None:
    one, other = pairs(), pairs()
    other.mask[0] = other.mask[0].flip(0)
    contents = [SampleSet(one).content, SampleSet(pairs()).content, SampleSet(other).content]
    assert contents[0] == contents[1]
    assert contents[0]['images'] == contents[2]['images']
    assert contents[0]['targets'] != contents[2]['targets']
    assert SampleSet(Cities(), group='city').content['groups'] != SampleSet(Cities()).content['groups']
    with pytest.raises(ValueError, match='was made for other samples'):
        scene_dataset(SampleSet(other), SampleSplitter()(SampleSet(one)))


def test_validation_samples_that_train_holds_too_are_said() -> None:
    with pytest.warns(UserWarning, match=r'val \(Subset\) holds samples that train holds too'):
        SampleSplitter(test_share=0)(SampleSet(pairs(), val=Subset(pairs(), range(25, 30))))
    everything = SampleSet(pairs(), val=pairs())
    with (
        pytest.warns(UserWarning, match='val'),
        pytest.raises(LeakageError, match=r'drawn from train holds 6 of 6 samp'),
    ):
        SampleSplitter()(everything)
    split = SampleSplitter(test_share=0, val_share=0)(SampleSet(pairs()))
    with pytest.raises(ValueError, match="unknown part 'tran'; choose from"):
        SampleSet(pairs()).part(split, 'tran')
