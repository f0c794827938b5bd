import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_scene
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hsiaug.scenes import PatchSplit, PatchSplitter, RareClassError, Scene, SimulatedScene, majority_labels
from hsiaug.scenes.patches import PARTS

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
import real_scenes

SPLITTERS = [
    PatchSplitter(size=8),
    PatchSplitter(size=8, block=12, buffer=2, stride=3),
    PatchSplitter(size=5, regions='groups'),
    PatchSplitter(size=8, regions='halves', val_fraction=0.4),
    PatchSplitter(size=6, regions='halves', buffer=1, stride=1, max_train=20),
]


def patch_scene() -> Scene:
    """Stripes of all classes everywhere, in nine groups of ragged shape."""
    scene = make_scene(height=60, width=52, bands=4)
    rows, columns = np.indices(scene.shape)
    scene.groups = (rows + columns // 9) // 22 * 3 + columns // 18
    return scene


def tiled(tiles: int = 9, size: int = 12) -> Scene:
    """Stacked tiles, three to a group, with classes that differ from tile to tile."""
    scene = make_scene(height=tiles * size, width=size, bands=4)
    assert scene.labels is not None
    return Scene.from_tiles(
        'tiles',
        scene.cube.reshape(tiles, size, size, 4),
        scene.labels.reshape(tiles, size, size),
        np.arange(tiles) // 3,
    )


def painted(split: PatchSplit) -> dict[str, np.ndarray]:
    """How many windows of each part hold each pixel, counted pixel by pixel."""
    counts = {part: np.zeros(split.shape, dtype=int) for part in PARTS}
    for part in PARTS:
        for row, column in split.windows(part):
            counts[part][row : row + split.size, column : column + split.size] += 1
            assert row >= 0
            assert column >= 0
            assert row + split.size <= split.shape[0]
            assert column + split.size <= split.shape[1]
    return counts


def check(scene: Scene, splitter: PatchSplitter, split: PatchSplit) -> None:
    """What holds for every split."""
    counts = painted(split)
    assert max(sum((counts[part] > 0).astype(int) for part in PARTS).flat) == 1, 'no pixel in two parts'
    assert counts['val'].max() == counts['test'].max() == 1, 'no overlap within a part'
    assert np.array_equal(split.test, np.flatnonzero(counts['test']))
    assert np.array_equal(split.footprint().pixels(), np.flatnonzero(counts['train'] + counts['val']))
    assert (split.footprint().scene, split.footprint().size) == (scene.fingerprint, scene.num_pixels)
    labels = np.where(scene.valid, scene.flat_labels(), 0).reshape(scene.shape)
    for part in PARTS:
        corners = split.windows(part)
        assert len(corners) == len(np.unique(corners, axis=0)) > 0
        for row, column in corners:
            window = labels[row : row + split.size, column : column + split.size]
            assert np.isin(window, split.classes).mean() >= splitter.min_labelled
    seen = labels[counts['train'] > 0]
    pixels = {class_id: int((seen == class_id).sum()) for class_id in scene.class_ids}
    assert all(pixels[class_id] >= splitter.min_pixels for class_id in split.classes)
    assert list(split.classes) == sorted(split.classes)


@pytest.mark.parametrize('splitter', SPLITTERS, ids=lambda s: f'{s.regions}-{s.size}-{s.buffer}')
def test_parts_share_no_pixel_and_hold_what_they_promise(splitter: PatchSplitter) -> None:
    scene = patch_scene()
    split = splitter(scene, seed=3)
    check(scene, splitter, split)
    assert split.classes == (1, 2, 3)
    again, other = splitter(scene, seed=3), splitter(scene, seed=4)
    assert split.fingerprint == again.fingerprint != other.fingerprint
    assert all(np.array_equal(split.windows(part), again.windows(part)) for part in PARTS)
    assert split.strategy['name'] == 'PatchSplitter'
    assert split.strategy['size'] == split.size


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(2, 9),
    more=st.integers(0, 5),
    buffer=st.integers(0, 2),
    stride=st.none() | st.integers(1, 10),
    regions=st.sampled_from(['blocks', 'groups', 'halves']),
    seed=st.integers(0, 2**31),
)
def test_any_setting_keeps_the_parts_apart(
    size: int, more: int, buffer: int, stride: int | None, regions: str, seed: int
) -> None:
    scene = patch_scene()
    splitter = PatchSplitter(
        size=size, block=size + more, buffer=buffer, stride=stride, regions=regions, attempts=3, min_pixels=1
    )
    try:
        split = splitter(scene, seed)
    except ValueError:  # a buffer may leave nothing
        assume(False)
    check(scene, splitter, split)
    counts = painted(split)
    train, val, test = (np.argwhere(counts[part]) for part in PARTS)
    for one, other in ((train, val), (train, test), (val, test)):
        assert np.abs(one[:, None] - other[None]).max(axis=2).min() > buffer


def test_shares_are_near_what_was_asked_for() -> None:
    scene = SimulatedScene(128, 128, wavelengths=np.arange(400, 900, 100.0))
    split = PatchSplitter(size=8, test_fraction=0.3, val_fraction=0.25, min_labelled=0)(scene, seed=1)
    blocks = {part: len(split.pixels(part)) / scene.num_pixels for part in PARTS}
    # Every block of eight is one window, and the scene is fully labelled.
    assert blocks == pytest.approx({'train': 0.525, 'val': 0.175, 'test': 0.3}, abs=0.01)


def test_groups_never_part_company_and_every_window_that_fits_is_found() -> None:
    scene = patch_scene()
    splitter = PatchSplitter(size=6, stride=1, regions='groups', min_labelled=0.7)
    split = splitter(scene, seed=0)
    assert scene.groups is not None
    assert scene.labels is not None
    groups = {part: set(np.unique(scene.groups.reshape(-1)[split.pixels(part)])) for part in PARTS}
    assert not groups['train'] & groups['test']
    assert not groups['train'] & groups['val']
    assert not groups['val'] & groups['test']
    others = np.isin(scene.groups, list(groups['val'] | groups['test']))
    expected = [
        (row, column)
        for row in range(55)
        for column in range(47)
        if not others[row : row + 6, column : column + 6].any()
        and (scene.labels[row : row + 6, column : column + 6] > 0).mean() >= 0.7
    ]
    assert [tuple(corner) for corner in split.train.tolist()] == expected


def test_stride_spaces_training_windows() -> None:
    scene = patch_scene()
    windows = {s: PatchSplitter(size=8, stride=s, regions='halves', val_fraction=0.3)(scene).train for s in (1, 4, 8)}
    for stride, corners in windows.items():
        apart = np.abs(corners[:, None] - corners[None]).max(axis=2)
        assert apart[~np.eye(len(apart), dtype=bool)].min() == stride
    assert len(windows[1]) > 10 * len(windows[4]) > 20 * len(windows[8])
    default = PatchSplitter(size=8, regions='halves', val_fraction=0.3)(scene).train
    assert np.array_equal(default, windows[4])


def test_halves_test_on_each_side_of_the_image() -> None:
    sides = set()
    for seed in range(40):
        split = PatchSplitter(size=6, regions='halves', val_fraction=0.4)(patch_scene(), seed)
        rows, columns = np.divmod(split.test, 52)
        inside = [rows.max() < 30, rows.min() >= 30, columns.max() < 26, columns.min() >= 26]
        assert sum(inside) == 1
        across = 1 if inside.index(True) < 2 else 0
        sides.add((inside.index(True), bool(split.val[:, across].min() > split.train[:, across].max())))
    assert sides == {(side, after) for side in range(4) for after in (False, True)}
    stacked = [PatchSplitter(size=6, regions='upper_lower', val_fraction=0.4)(patch_scene(), seed) for seed in range(8)]
    assert {int(split.test.max() // 52 < 30) + 2 * int(split.test.min() // 52 >= 30) for split in stacked} == {1, 2}


def test_blocks_go_whole_to_one_part() -> None:
    splitter = PatchSplitter(size=8, stride=1, block=20)
    for seed in range(3):
        split = splitter(patch_scene(), seed)
        # 60 rows are three blocks; 52 columns are two, of 20 and 32.
        blocks = [set((p // 52 // 20 * 2 + np.minimum(p % 52 // 20, 1)).tolist()) for p in map(split.pixels, PARTS)]
        assert sum(map(len, blocks)) == len(set.union(*blocks)) == 6


def test_windows_stay_in_their_tile_and_overlapping_tiles_in_one_part() -> None:
    scene = tiled()
    assert scene.tile_rows == 12
    for regions in ('groups', 'blocks', 'halves'):
        splitter = PatchSplitter(size=5, stride=1, regions=regions)  # type: ignore[arg-type]
        split = splitter(scene, seed=2)
        check(scene, splitter, split)
        for part in PARTS:
            rows = split.windows(part)[:, 0]
            assert np.array_equal(rows // 12, (rows + 4) // 12)
        if regions == 'groups':
            groups = [set((split.pixels(part) // 12 // 36).tolist()) for part in PARTS]
            assert sum(map(len, groups)) == len(set.union(*groups)) == 3
            # 9 tiles of 8 x 8 corners, a third of them in training.
            assert len(split.train) == 3 * 64


def test_a_buffer_does_not_reach_into_another_tile() -> None:
    splitter = PatchSplitter(size=12, regions='groups', buffer=3)
    split = splitter(tiled(), seed=0)
    assert [len(split.windows(part)) for part in PARTS] == [3, 3, 3]


def test_tiles_keep_their_number_and_rows_through_checks() -> None:
    scene = tiled()
    scene.cube[:, :, 1] = 0
    kept = scene.checked('drop')
    assert (kept.tile_rows, kept.num_bands) == (12, 3)
    assert kept.groups is not None
    assert np.array_equal(kept.groups[:, 0], np.arange(108) // 36)
    tiles = np.zeros((4, 3, 3, 2))
    assert Scene.from_tiles('t', tiles).groups[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]  # type: ignore[index]
    with pytest.raises(ValueError, match=r'groups of shape \(3,\); give one number for each of 4 tiles'):
        Scene.from_tiles('t', tiles, groups=np.arange(3))
    with pytest.raises(ValueError, match='10 rows are not a whole number of tiles of 4 rows'):
        Scene('t', np.zeros((10, 3, 2)), tile_rows=4)


def test_unmeasured_and_unlabelled_windows_are_left_out() -> None:
    scene = patch_scene()
    scene.cube[:20] = np.nan
    assert scene.labels is not None
    scene.labels[:, :12] = 0
    first_columns = []
    for min_labelled in (0.05, 0.3):
        splitter = PatchSplitter(size=8, stride=1, block=16, min_labelled=min_labelled)
        corners = np.concatenate([splitter(scene, seed).train for seed in range(5)])
        assert corners[:, 0].min() == 16  # half of eight rows from 20 on
        first_columns.append(int(corners[:, 1].min()))
        check(scene, splitter, splitter(scene, seed=0))
    assert first_columns == [5, 7]  # columns from 12 on are labelled, three pixels in four


def test_rare_classes_are_in_every_part_where_that_is_possible() -> None:
    scene = patch_scene()
    assert scene.labels is not None
    scene.labels[scene.labels == 3] = 2
    for row, column in ((2, 2), (20, 40), (50, 10)):
        scene.labels[row : row + 4, column : column + 4] = 3

    def missing(attempts: int) -> int:
        splits = [PatchSplitter(size=8, attempts=attempts)(scene, seed) for seed in range(10)]
        return sum(not (scene.flat_labels()[split.pixels(part)] == 3).any() for split in splits for part in PARTS)

    assert missing(100) == 0 < missing(1)
    scene.labels[50:54, 10:14] = 2  # two places are left, too few for all three parts
    for seed in range(10):
        split = PatchSplitter(size=8)(scene, seed)
        assert all((scene.flat_labels()[split.pixels(part)] == 3).any() for part in ('train', 'test'))  # type: ignore[arg-type]


def test_rare_class_is_dropped_with_a_word_or_refused() -> None:
    scene = patch_scene()
    assert scene.labels is not None
    scene.labels[scene.labels == 3] = 0
    scene.labels[4:7, 4:7] = 3
    scene.labels[:8, :8] = np.where(scene.labels[:8, :8] == 3, 3, 0)  # a window with nothing else
    split = PatchSplitter(size=8, min_pixels=10, min_labelled=0.1)(scene, seed=0)
    assert split.classes == (1, 2)
    assert split.dropped[0].startswith('class 3 (material 2): ')
    assert '(at least 10)' in split.dropped[0]
    for part in PARTS:
        assert [0, 0] not in split.windows(part).tolist()
    with pytest.raises(RareClassError, match=r"class 3 \(material 2\): \d training pixels.*on_rare='drop'"):
        PatchSplitter(size=8, min_pixels=10, on_rare='error')(scene, seed=0)
    with pytest.raises(RareClassError, match='0 of 3 classes have enough training pixels'):
        PatchSplitter(size=8, min_pixels=10_000)(scene, seed=0)


def test_what_trains_decides_which_classes_are_kept() -> None:
    scene = patch_scene()
    assert scene.labels is not None
    scene.labels[scene.labels == 3] = 1
    scene.labels[8:16, 8:16] = 3  # one block, which is in one part
    kept = []
    for seed in range(12):
        split = PatchSplitter(size=8, stride=8)(scene, seed)
        kept.append(3 in split.classes)
        assert kept[-1] == ([8, 8] in split.train.tolist())
    assert len(set(kept)) == 2


def test_budget_of_training_windows_covers_the_classes() -> None:
    scene = patch_scene()
    assert scene.labels is not None
    scene.labels[scene.labels == 3] = 1
    scene.labels[::26, ::22] = 3  # nine single pixels
    whole = PatchSplitter(size=8, stride=2, min_pixels=1)
    for seed in range(5):
        everything, few = whole(scene, seed), replace(whole, max_train=6)(scene, seed)
        assert few.classes == (1, 2, 3)
        assert len(few.train) == 6
        assert {tuple(c) for c in few.train.tolist()} < {tuple(c) for c in everything.train.tolist()}
        assert np.array_equal(few.test_windows, everything.test_windows)
        assert np.array_equal(few.train, replace(whole, max_train=6)(scene, seed).train)
    assert len(replace(whole, max_train=10**6)(scene, 0).train) == len(whole(scene, 0).train)


def test_windows_beyond_the_budget_are_unlabelled_ones_of_the_training_part() -> None:
    scene = patch_scene()
    plain = PatchSplitter(size=8, stride=4, max_train=6)
    everything, few = (replace(plain, max_train=None)(scene, 1), replace(plain, max_unlabelled=10**6)(scene, 1))
    assert few.fingerprint == plain(scene, 1).fingerprint  # nothing else has changed
    assert len(plain(scene, 1).unlabelled) == 0
    parts = [{tuple(corner) for corner in corners.tolist()} for corners in (few.train, few.unlabelled)]
    assert parts[0] | parts[1] == {tuple(corner) for corner in everything.train.tolist()}
    assert not parts[0] & parts[1]
    assert np.array_equal(few.footprint().pixels(), everything.footprint().pixels())
    some = replace(plain, max_unlabelled=5)(scene, 1)
    assert {tuple(corner) for corner in some.unlabelled.tolist()} < parts[1]
    assert len(some.unlabelled) == 5


def test_mistakes_are_named() -> None:
    scene = make_scene(height=24, width=20)
    with pytest.raises(ValueError, match=r"unknown regions 'quarters'; choose from \('blocks', 'groups', 'halves', "):
        PatchSplitter(regions='quarters')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='no window of 16 fits in a block of 8'):
        PatchSplitter(size=16, block=8)
    with pytest.raises(ValueError, match=r'test_fraction must be in \(0, 1\), found 1'):
        PatchSplitter(test_fraction=1)
    with pytest.raises(ValueError, match='stride must be at least 1 or None, found 0'):
        PatchSplitter(stride=0)
    with pytest.raises(ValueError, match=r'no window of 32 x 32 fits in scene .stripes. with 24 x 20 pixels'):
        PatchSplitter()(scene)
    with pytest.raises(ValueError, match=r'no window of 13 x 13 fits in scene .tiles. with 9 tiles of 12 x 12'):
        PatchSplitter(size=13)(tiled())
    with pytest.raises(ValueError, match='has 1 labelled blocks; at least one is needed for each'):
        PatchSplitter(size=16)(scene)
    with pytest.raises(ValueError, match=r"scene 'stripes' has no groups.*use regions='blocks'"):
        PatchSplitter(size=4, regions='groups')(scene)
    with pytest.raises(ValueError, match=r'found 0 train, 0 val, \d+ test windows of 8 x 8 pixels with 5% labelled'):
        PatchSplitter(size=8, buffer=5)(scene)
    with pytest.raises(ValueError, match='no labelled pixel'):
        PatchSplitter(size=4)(Scene('bare', scene.cube))
    with pytest.raises(ValueError, match=r"unknown part 'tran'; choose from \('train', 'val', 'test'\)"):
        PatchSplitter(size=4)(scene).windows('tran')  # type: ignore[arg-type]


def test_fingerprint_tells_classes_sizes_and_windows_apart() -> None:
    split = PatchSplitter(size=8)(patch_scene())
    others = [
        replace(split, classes=(1, 2)),
        replace(split, size=7),
        replace(split, train=split.train[1:]),
        replace(split, train=split.val, val=split.train),
        replace(split, scene='another'),
    ]
    assert len({split.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_majority_of_finer_labels() -> None:
    fine = np.array([[1, 1, 2, 3], [1, 0, 4, 5], [0, 0, 7, 7], [2, 0, 9, 9]], dtype=np.uint8)
    assert majority_labels(fine, 2).tolist() == [[1, 0], [0, 7]]
    assert majority_labels(fine, 2, min_share=0.25).tolist() == [[1, 2], [0, 7]]
    assert majority_labels(fine, 2, min_share=0.8).tolist() == [[0, 0], [0, 0]]
    assert majority_labels(fine, 2).dtype == np.uint8
    assert np.array_equal(majority_labels(fine, 1), fine)
    with pytest.raises(ValueError, match=r'sides of labels \(4, 4\) must be multiples of the factor 3'):
        majority_labels(fine, 3)


class TestRealData:
    @pytest.mark.parametrize('name', ['houston18', 'jasper_ridge', 'samson', 'enmap_potsdam'])
    @pytest.mark.parametrize('size', [16, 32])
    def test_hyperspectral_scenes(self, real_data: Path, name: str, size: int) -> None:
        scene, splitter = real_scenes.MASKED[name](real_data), real_scenes.patch_splitter(name, size)
        split = splitter(scene, seed=0)
        check(scene, splitter, split)
        classes = {'houston18': 10, 'jasper_ridge': 4, 'samson': 3, 'enmap_potsdam': 6}[name]
        assert len(split.classes) == classes
        labels = scene.flat_labels()
        if size == 16:
            assert set(split.classes) <= set(labels[split.test]) & set(labels[split.pixels('val')])

    def test_labels_of_houston_on_a_coarser_grid(self, real_data: Path) -> None:
        with np.load(real_data / 'houston18_crop' / 'houston18_crop.npz') as file:
            fine = file['gt']
        strict = real_scenes.houston18(real_data).labels
        assert strict is not None
        assert np.array_equal(majority_labels(fine, 4, min_share=0.9), strict)
        dense = real_scenes.houston18_patches(real_data).labels
        assert dense is not None
        assert np.array_equal(dense[strict > 0], strict[strict > 0])
        assert (dense > 0).sum() == 5728

    def test_bark_beetle_tiles_are_the_patches(self, real_data: Path) -> None:
        scene = real_scenes.barkbeetle(real_data)
        assert (scene.shape, scene.tile_rows, scene.num_bands) == ((730 * 32, 32), 32, 12)
        with np.load(real_data / 's2_barkbeetle' / 's2_barkbeetle.npz') as file:
            patch, row, column = file['tile32'][100]
            at = slice(file['offset'][patch], file['offset'][patch + 1])
            image = file['t2'][at].reshape(*file['shape'][patch], 12)[row : row + 32, column : column + 32]
            damage = file['damage'][at].reshape(file['shape'][patch])[row : row + 32, column : column + 32]
        assert scene.labels is not None
        assert np.array_equal(scene.cube[3200:3232], image)
        assert np.array_equal(scene.labels[3200:3232], damage + 1)
        split = PatchSplitter(size=32, regions='groups')(scene, seed=0)
        check(scene, PatchSplitter(size=32), split)
        assert (split.windows('train')[:, 0] % 32 == 0).all()

    def test_water_patches_part_by_their_overlap(self, real_data: Path) -> None:
        scene = real_scenes.water12(real_data)
        split = PatchSplitter(size=32, regions='groups')(scene, seed=0)
        with np.load(real_data / 'water12_patches' / 'water12_patches.npz') as file:
            group = file['overlap_group']
        groups = [set(group[split.windows(part)[:, 0] // 128].tolist()) for part in PARTS]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 72
        assert split.classes == (1, 2)
