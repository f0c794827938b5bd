from dataclasses import replace

import numpy as np
import pytest
from conftest import make_scene

from hsiaug.datasets import MixedDataset, SpectraDataset
from hsiaug.quality import fold_splits
from hsiaug.samples import LeakageError
from hsiaug.scenes import BlockSplit, HalvesSplit, LabelledPatchSplitter, PatchSplitter, RandomSplit, Scene, Split
from hsiaug.scenes.windows import covered_pixels
from hsiaug.trainers import fit_generator, training_data

SCENE = make_scene(32, 32)


def block_of(pixels: np.ndarray, block: int = 8) -> np.ndarray:
    rows, columns = np.divmod(pixels, 32)
    return rows // block * 4 + columns // block


def test_folds_share_neither_labels_nor_blocks_nor_test_pixels() -> None:
    split = BlockSplit(block=16)(SCENE, seed=0)
    folds = fold_splits(SCENE, split, 3)
    labelled = np.sort(np.concatenate([split.train, split.val]))
    assert np.array_equal(np.sort(np.concatenate([fold.test for fold in folds])), labelled)
    for fold in folds:
        held = set(block_of(fold.test))
        for part in (fold.train, fold.val, fold.unlabelled):
            assert not held & set(block_of(part))
            assert not np.intersect1d(part, split.test).size
        assert set(fold.train) <= set(split.train)
        assert set(fold.val) <= set(split.val)
        assert set(fold.train) | set(fold.val) == set(labelled) - set(fold.test)
        assert np.unique(SCENE.flat_labels()[fold.train]).tolist() == [1, 2, 3]
        assert len(fold.test) < 0.6 * len(labelled)  # no fold takes nearly all


def test_a_deal_follows_its_seed() -> None:
    split = BlockSplit(block=16)(SCENE, seed=0)
    again, same, other = (fold_splits(SCENE, split, 3, seed) for seed in (1, 1, 2))
    assert [fold.fingerprint for fold in again] == [fold.fingerprint for fold in same]
    assert {fold.fingerprint for fold in again}.isdisjoint({fold.fingerprint for fold in other})


def test_groups_of_the_scene_stay_together_and_a_random_split_is_dealt_by_samples() -> None:
    groups = np.arange(32)[:, None] // 4 * 2 + np.arange(32)[None, :] // 16
    scene = replace(SCENE, groups=groups)
    halves, scattered = HalvesSplit()(scene, 0), RandomSplit(fraction=0.4)(scene, 0)
    for fold in fold_splits(scene, halves, 3):
        assert not set(groups.reshape(-1)[fold.test]) & set(groups.reshape(-1)[fold.train])
    first = fold_splits(scene, scattered, 3)[0]
    assert set(groups.reshape(-1)[first.test]) & set(groups.reshape(-1)[first.train])
    assert first.strategy['regions'] == 'samples'


def test_a_class_of_one_region_is_dealt_by_samples() -> None:
    labels = SCENE.labels.copy()  # type: ignore[union-attr]
    labels[labels == 3] = 0
    labels[1:7, 1:7] = 3  # in a single block of the half that trains
    labels[:, 28:] = 3
    scene = replace(SCENE, labels=labels)
    split = HalvesSplit()(scene, 0)
    flat = scene.flat_labels()
    for fold in fold_splits(scene, split, 3):
        assert 3 in flat[fold.train]
        assert 3 in flat[fold.test]
        others = {int(b) for b in block_of(fold.test[flat[fold.test] != 3])}
        assert not others & {int(b) for b in block_of(fold.train[flat[fold.train] != 3])}


def test_spectra_that_the_fold_holds_are_left_out() -> None:
    cube = SCENE.cube.copy()
    split = HalvesSplit()(SCENE, 0)
    copied = split.unlabelled[:40]
    cube.reshape(-1, 12)[copied] = cube.reshape(-1, 12)[split.train[0]]
    cube.reshape(-1, 12)[split.train[-1]] = cube.reshape(-1, 12)[split.train[0]]
    scene = replace(SCENE, cube=cube)
    split = replace(split, scene=scene.fingerprint)
    duplicates = {int(split.train[0]), int(split.train[-1])}
    for fold in fold_splits(scene, split, 3):
        if duplicates & set(fold.test.tolist()):
            assert not duplicates & set(fold.train.tolist())
            assert not set(copied) & set(fold.unlabelled)


@pytest.mark.parametrize('regions', ['blocks', 'samples'])
def test_windows_of_a_fold_share_no_pixel_with_those_that_train(regions: str) -> None:
    split = PatchSplitter(size=8, stride=4, max_train=40, max_unlabelled=60)(make_scene(64, 64), seed=0)
    folds = fold_splits(make_scene(64, 64), split, 2, block=2, regions=regions)  # type: ignore[arg-type]
    every = np.concatenate([split.train, split.val])
    assert sum(len(fold.test_windows) for fold in folds) == len(every)
    for fold in folds:
        held, seen = (covered_pixels(fold.windows(part), 8, (64, 64)) for part in ('test', 'train'))  # type: ignore[arg-type]
        assert held.any()
        assert seen.any()
        assert not (held & seen).any()
        assert not (held & covered_pixels(split.test_windows, 8, (64, 64))).any()
        assert 0 < len(fold.unlabelled) < len(split.unlabelled)
        assert not (held & covered_pixels(fold.unlabelled, 8, (64, 64))).any()


def test_the_guard_knows_a_generator_that_has_seen_the_fold() -> None:
    split = HalvesSplit()(SCENE, 0)
    fold = fold_splits(SCENE, split, 3)[1]
    real = SpectraDataset(SCENE, fold, 'train')
    MixedDataset(real, fit_generator('noise', training_data(SCENE, fold)), 1.0)
    with pytest.raises(LeakageError, match='evaluation pixels'):
        MixedDataset(real, fit_generator('noise', training_data(SCENE, split)), 1.0)


def test_mistakes_are_named(scene: Scene, split: Split) -> None:
    with pytest.raises(ValueError, match='folds must be at least 2, found 1'):
        fold_splits(scene, split, 1)
    with pytest.raises(ValueError, match="unknown regions 'fields'"):
        fold_splits(scene, split, regions='fields')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='has no groups'):
        fold_splits(scene, split, regions='groups')
    patches = LabelledPatchSplitter(size=8, patch=4)(make_scene(64, 64), 0)
    with pytest.raises(TypeError, match='a PatchSplit with masks expected'):
        fold_splits(make_scene(64, 64), patches)
    windows = PatchSplitter(size=8, stride=4)(make_scene(64, 64), seed=0)
    with pytest.raises(ValueError, match='lie in 1 blocks, 2 folds need as many'):
        fold_splits(make_scene(64, 64), windows, 2, regions='blocks', block=100)
