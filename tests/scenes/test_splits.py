import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_scene

from hsiaug.scenes import (
    BadBandsError,
    BlockSplit,
    GroupSplit,
    HalvesSplit,
    LabelledPatchSplitter,
    PatchSplitter,
    RandomSplit,
    RareClassError,
    Scene,
    Split,
    Splitter,
    make_splitter,
)
from hsiaug.scenes.splits import spectral_duplicates

SPLITTERS: list[Splitter] = [
    RandomSplit(fraction=0.3),
    RandomSplit(per_class=10),
    HalvesSplit(),
    HalvesSplit(axis='rows', swap=True, buffer=1),
    BlockSplit(block=4, buffer=1),
    GroupSplit(),
]


def parts(split: Split) -> list[np.ndarray]:
    return [split.train, split.val, split.test, split.unlabelled]


def grouped() -> Scene:
    scene = make_scene(height=36)
    scene.groups = (np.arange(36)[:, None] // 6) * np.ones((1, 20), dtype=int)
    return scene


@pytest.mark.parametrize('splitter', SPLITTERS, ids=lambda s: f'{type(s).__name__}-{s.per_class}')
def test_parts_are_disjoint_deterministic_and_labelled(splitter: Splitter) -> None:
    scene = grouped()
    split = splitter(scene, seed=3)
    everything = np.concatenate(parts(split))
    assert len(np.unique(everything)) == len(everything)
    assert all(np.array_equal(a, b) for a, b in zip(parts(split), parts(splitter(scene, 3)), strict=True))
    assert split.fingerprint == splitter(scene, 3).fingerprint
    labels = scene.flat_labels()
    for part in (split.train, split.val, split.test):
        assert set(labels[part]) == set(split.classes)
    assert np.array_equal(
        split.footprint().pixels(), np.sort(np.concatenate([split.train, split.val, split.unlabelled]))
    )


def test_seed_and_content_change_the_fingerprint() -> None:
    scene = make_scene()
    prints = {RandomSplit(fraction=0.3)(scene, seed).fingerprint for seed in range(5)}
    assert len(prints) == 5
    assert make_scene(seed=1).fingerprint != scene.fingerprint


def test_budget_counts_validation_inside() -> None:
    split = RandomSplit(per_class=10, val_fraction=0.3)(make_scene())
    labels = make_scene().flat_labels()
    assert np.bincount(labels[split.train])[1:].tolist() == [7, 7, 7]
    assert np.bincount(labels[split.val])[1:].tolist() == [3, 3, 3]


def test_random_split_leaves_no_test_pixel_among_the_unlabelled() -> None:
    scene = make_scene()
    split = RandomSplit(fraction=0.1)(scene)
    assert (scene.flat_labels()[split.unlabelled] == 0).all()
    assert len(split.train) + len(split.val) + len(split.test) == (scene.flat_labels() != 0).sum()


def test_halves_and_their_buffer() -> None:
    scene = make_scene()
    split = HalvesSplit(buffer=2)(scene)
    assert (split.test % 20).min() == 12
    assert max((p % 20).max() for p in (split.train, split.val, split.unlabelled)) == 7


def test_blocks_keep_their_distance() -> None:
    scene = make_scene(height=40, width=40)
    split = BlockSplit(block=8, buffer=2)(scene, seed=1)
    train = np.concatenate([split.train, split.val, split.unlabelled])
    chebyshev = np.maximum(
        np.abs(train[:, None] // 40 - split.test[None] // 40), np.abs(train[:, None] % 40 - split.test[None] % 40)
    )
    # Unlabelled pixels of a test block keep their distance too, so labelled ones are farther still.
    assert chebyshev.min() > 2


def test_groups_never_part_company() -> None:
    scene = grouped()
    split = GroupSplit()(scene, seed=0)
    assert scene.groups is not None
    group = scene.groups.reshape(-1)
    train = np.concatenate([split.train, split.val, split.unlabelled])
    assert not set(group[train]) & set(group[split.test])
    with pytest.raises(ValueError, match='has no groups'):
        GroupSplit()(make_scene())


def test_rare_class_is_an_error_or_dropped_with_a_word() -> None:
    scene = make_scene()
    assert scene.labels is not None
    scene.labels[scene.labels == 3] = 0
    scene.labels[0, :2] = 3
    with pytest.raises(RareClassError, match=r"class 3 \(material 2\).*on_rare='drop'"):
        RandomSplit(fraction=0.5)(scene)
    split = RandomSplit(fraction=0.5, on_rare='drop')(scene)
    assert split.classes == (1, 2)
    assert 'class 3' in split.dropped[0]
    assert not np.isin(split.test, [0, 1]).any()


@pytest.mark.parametrize('splitter', [RandomSplit(fraction=0.4), HalvesSplit(), BlockSplit(block=4, buffer=0)])
def test_identical_spectra_stay_on_one_side(splitter: Splitter) -> None:
    scene = make_scene()
    scene.cube[:, 10:] = scene.cube[:, :10]  # every spectrum twice, in both halves
    scene.labels = np.tile(scene.labels[:, :10], (1, 2)) if scene.labels is not None else None
    try:
        split = splitter(scene, seed=0)
    except RareClassError:  # the halves are copies of each other: nothing is left to train on
        assert isinstance(splitter, HalvesSplit)
        return

    def spectra(pixels: np.ndarray) -> set[bytes]:
        return {s.tobytes() for s in scene.spectra(pixels)}

    test = spectra(split.test)
    assert not test & spectra(split.train)
    assert not test & spectra(split.val)
    assert not test & spectra(split.unlabelled)
    assert not spectra(split.val) & spectra(split.train)


def test_twins_number_equal_spectra_alike() -> None:
    cube = np.array([[[1, 2], [3, 4], [1, 2], [1, 3]]], dtype=np.float32)
    duplicates = spectral_duplicates(Scene('t', cube), np.arange(4))
    assert duplicates[0] == duplicates[2]
    assert len(set(duplicates.tolist())) == 3


def test_missing_pixels_are_never_used() -> None:
    scene = make_scene()
    scene.cube[0] = np.nan
    split = RandomSplit(fraction=0.4)(scene)
    assert min(p.min() for p in parts(split)) >= 20


def test_bad_bands_are_named_or_dropped() -> None:
    scene = make_scene()
    scene.cube[:, :, 4], scene.cube[:, :, 7] = 1.5, np.nan
    with pytest.raises(BadBandsError, match=r'2 of 12 bands.*4 \(constant 1.5\), 7 \(no data\)'):
        scene.checked()
    kept = scene.checked('drop')
    assert kept.bands is not None
    assert kept.bands.tolist() == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]
    assert kept.spec().wavelengths == tuple(np.delete(np.linspace(400, 2400, 12), [4, 7]).tolist())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match='choose from'):
        make_splitter('quarters')
    with pytest.raises(ValueError, match=r"split 'random': unknown field 'fration'"):
        make_splitter('random', fration=0.1)
    with pytest.raises(ValueError, match='val_fraction'):
        RandomSplit(val_fraction=1.0)
    with pytest.raises(ValueError, match='transposed'):
        Scene('x', np.zeros((3, 4, 2)), np.zeros((4, 3), dtype=int))


def test_salinas_a_has_twins(real_data: Path) -> None:
    with np.load(real_data / 'salinas_a' / 'salinas_a.npz') as file:
        scene = Scene('salinas_a', file['cube'], file['gt'])
    labelled = np.flatnonzero(scene.flat_labels())
    assert (len(labelled), len(np.unique(spectral_duplicates(scene, labelled)))) == (5348, 3699)


@pytest.mark.parametrize('seed', [None, -1, '3', 1.5])
def test_a_seed_of_a_split_is_a_whole_number(seed: object) -> None:
    for splitter in (RandomSplit(fraction=0.3), PatchSplitter(size=4)):
        with pytest.raises(ValueError, match='seed must be a'):
            splitter(make_scene(), seed)  # type: ignore[arg-type]


@pytest.mark.parametrize('seed', range(5))
def test_few_test_pixels_hold_every_class(seed: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 3, (40, 40))
    labels[0, :12] = 9
    scene = Scene('x', rng.random((40, 40, 3)), labels)
    whole, some = (RandomSplit(fraction=0.5, max_test=most)(scene, seed) for most in (None, 20))
    assert len(some.test) == 20
    assert set(some.test) <= set(whole.test)
    assert set(labels.reshape(-1)[some.test]) == {1, 2, 9}
    assert np.array_equal(some.train, whole.train)
    with pytest.raises(ValueError, match='max_test=2 is fewer than the 3 classes'):
        RandomSplit(fraction=0.5, max_test=2)(scene, seed)


@pytest.mark.parametrize('splitter', [RandomSplit(), PatchSplitter(size=2), LabelledPatchSplitter(size=2, patch=2)])
def test_an_array_is_no_scene(splitter: Splitter) -> None:
    with pytest.raises(TypeError, match=f'{type(splitter).__name__}: a Scene is split, found ndarray'):
        splitter(np.zeros((4, 4, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize('splitter', [RandomSplit(fraction=0.3), PatchSplitter(size=4)])
def test_a_seed_of_numpy_can_be_recorded(splitter: Splitter) -> None:
    assert json.dumps(splitter(make_scene(), np.int64(3)).seed) == '3'


def test_one_class_is_no_rare_class() -> None:
    scene = make_scene()
    scene.labels = np.ones(scene.shape, dtype=int)
    with pytest.raises(RareClassError, match=r'1 of 1 classes .* fewer than two classes are left. .*as_one_class\(\)$'):
        RandomSplit(fraction=0.3)(scene)
    for splitter in (RandomSplit(fraction=0.3), PatchSplitter(size=4), LabelledPatchSplitter(size=4, patch=2)):
        assert splitter(scene.as_one_class()).classes == (1,)  # type: ignore[operator]
