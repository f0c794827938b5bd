from dataclasses import replace

import numpy as np
import pytest
from conftest import make_scene

from hsiaug.scenes import LabelledPatchSplit, LabelledPatchSplitter, PatchSplitter, RareClassError, Scene, make_splitter
from hsiaug.scenes.patches import PARTS
from hsiaug.scenes.windows import covered_pixels

SPLITTER = LabelledPatchSplitter(size=8, patch=4, patch_stride=2, block=8, min_labelled=0.1)


@pytest.fixture(scope='module')
def scene() -> Scene:
    return make_scene(48, 40)


def test_patches_lie_in_windows_of_their_part_and_parts_share_no_pixel(scene: Scene) -> None:
    split = SPLITTER(scene, 0)
    assert isinstance(split, LabelledPatchSplit)
    covered = []
    for part in PARTS:
        corners, labels = split.patches(part)
        assert len(corners) == len(labels) > 0
        assert len(np.unique(corners, axis=0)) == len(corners)
        patches = covered_pixels(corners, 4, scene.shape)
        assert not (patches & ~covered_pixels(split.windows(part), 8, scene.shape)).any()
        covered.append(patches)
    assert not (covered[0] & covered[1] | covered[0] & covered[2] | covered[1] & covered[2]).any()
    assert not np.isin(split.footprint().pixels(), np.flatnonzero(covered[2])).any()
    assert np.isin(np.flatnonzero(covered[2]), split.test).all()


def test_labels_are_those_of_the_centres_and_every_labelled_one_is_there(scene: Scene) -> None:
    split = SPLITTER(scene, 1)
    assert scene.labels is not None
    for part in PARTS:
        corners, labels = split.patches(part)
        centres = scene.labels[corners[:, 0] + 2, corners[:, 1] + 2]
        assert np.array_equal(np.array(split.classes)[labels], centres)
        places = {
            (row + i, column + j) for row, column in split.windows(part).tolist() for i in (0, 2, 4) for j in (0, 2, 4)
        }
        assert len(corners) == sum(scene.labels[row + 2, column + 2] > 0 for row, column in places)


def test_labels_are_those_of_most_pixels(scene: Scene) -> None:
    split = replace(SPLITTER, rule='dominant')(scene, 0)
    assert scene.labels is not None
    for part in PARTS:
        for (row, column), label in zip(*split.patches(part), strict=True):
            counts = [(scene.labels[row : row + 4, column : column + 4] == k).sum() for k in split.classes]
            assert counts[label] == max(counts)
            assert label == int(np.argmax(counts))


def test_budgets_are_kept_and_drawn_by_the_seed(scene: Scene) -> None:
    few = replace(SPLITTER, per_class=5, val_per_class=2, min_patches=5)
    one, again, other = few(scene, 0), few(scene, 0), few(scene, 1)
    assert np.bincount(one.patches('train')[1]).tolist() == [5, 5, 5]
    assert np.bincount(one.patches('val')[1]).max() <= 2
    assert len(one.patches('test')[1]) == len(SPLITTER(scene, 0).patches('test')[1])
    assert one.fingerprint == again.fingerprint != other.fingerprint
    fewer = replace(few, per_class=4, min_patches=4)(scene, 0)
    assert np.array_equal(fewer.train, one.train)  # the same windows,
    assert fewer.fingerprint != one.fingerprint  # yet other patches
    assert {tuple(c) for c in fewer.patches('train')[0].tolist()} <= {
        tuple(c) for c in one.patches('train')[0].tolist()
    }


def test_rare_classes_are_left_out_and_said(scene: Scene) -> None:
    assert scene.labels is not None
    labels = np.where(scene.labels == 2, 0, scene.labels)
    labels[3:46:9, 3:36:9] = 2  # a few pixels everywhere, hardly a centre
    rare = replace(scene, labels=labels)
    splitter = replace(SPLITTER, min_pixels=1, min_patches=8)
    split = splitter(rare, 0)
    assert split.classes == (1, 3)
    assert 'class 2 (material 1): ' in split.dropped[-1]
    assert 'training patches (at least 8)' in split.dropped[-1]
    assert set(split.patches('test')[1].tolist()) == {0, 1}
    with pytest.raises(RareClassError, match=r"2 of 3 classes have enough training patches, class 2 .*on_rare='drop'"):
        replace(splitter, on_rare='error')(rare, 0)


def test_unmeasured_centres_have_no_label(scene: Scene) -> None:
    cube = np.array(scene.cube)
    cube[:, 10] = np.nan
    gappy = replace(scene, cube=cube)
    for part in PARTS:
        corners, _ = SPLITTER(gappy, 0).patches(part)
        assert (corners[:, 1] + 2 != 10).all()


def test_by_name_and_mistakes(scene: Scene) -> None:
    made = make_splitter('labelled_patches', size=8, patch=4)
    assert isinstance(made, LabelledPatchSplitter)
    assert isinstance(made, PatchSplitter)
    with pytest.raises(ValueError, match="unknown rule 'mean'"):
        LabelledPatchSplitter(rule='mean')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='patches of 9 pixels must lie in windows of 8'):
        LabelledPatchSplitter(size=8, patch=9)
    with pytest.raises(ValueError, match='val_per_class must be at least 1 or None, found 0'):
        LabelledPatchSplitter(val_per_class=0)
    with pytest.raises(ValueError, match='per_class 2 leaves no class with min_patches 3'):
        LabelledPatchSplitter(per_class=2, min_patches=3)
    with pytest.raises(ValueError, match='unknown part'):
        SPLITTER(scene, 0).patches('all')  # type: ignore[arg-type]
