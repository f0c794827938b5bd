import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hsiaug.scenes import (
    BadBandsError,
    BitemporalScene,
    ChangeSplitter,
    PatchSplit,
    PatchSplitter,
    RareClassError,
    SimulatedScene,
    crop_to_common,
    upsample,
)
from hsiaug.scenes.change import CHANGED, UNCHANGED
from hsiaug.scenes.patches import PARTS

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
import real_scenes

NM = np.array([450.0, 550.0, 650.0])
Pair = tuple[np.ndarray, np.ndarray, np.ndarray]


def pair(height: int = 20, width: int = 24, seed: int = 0, dtype: Any = np.uint16) -> Pair:
    """Two dates of three bands and a mask: a tenth of the pixels changed, a twentieth ignored."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(1, 1000, (2, height, width, 3)).astype(dtype)
    return first, second, rng.choice([0, 1, 255], (height, width), p=[0.85, 0.1, 0.05]).astype(np.uint8)


def rare_scene(side: int = 64, blobs: int = 3) -> BitemporalScene:
    """Change in a few blobs, so that most windows hold none."""
    rng = np.random.default_rng(1)
    mask = np.zeros((side, side), dtype=np.uint8)
    for row, column in ((8, 8), (40, 20), (20, 50))[:blobs]:
        mask[row : row + 3, column : column + 4] = 1
    first, second = rng.random((2, side, side, 2), dtype=np.float32)
    return BitemporalScene.from_dates('rare', first, second, mask)


def changed_share(scene: BitemporalScene, split: PatchSplit) -> np.ndarray:
    """Share of changed pixels of each training window, counted window by window."""
    labels = scene.flat_labels().reshape(scene.shape)
    return np.array([(labels[r : r + split.size, c : c + split.size] == CHANGED).mean() for r, c in split.train])


def test_dates_mask_and_bands_of_one_place() -> None:
    first, second, mask = pair()
    scene = BitemporalScene.from_dates(
        'place', first, second, mask, wavelengths=NM, bands=[0, 2], scale=0.001, unit='reflectance'
    )
    pixels = np.arange(scene.num_pixels)
    stored = np.concatenate([first[..., [0, 2]], second[..., [0, 2]]], axis=2).reshape(-1, 4)
    np.testing.assert_allclose(scene.spectra(pixels), stored * 0.001, rtol=1e-6)
    expected = {0: UNCHANGED, 1: CHANGED, 255: 0}
    assert scene.flat_labels().tolist() == [expected[value] for value in mask.reshape(-1).tolist()]
    spec = scene.spec(scene.class_ids, size=(8, 8), ignore_index=255)
    assert (spec.kind, spec.bands, spec.classes) == ('change', 2, ('unchanged', 'changed'))
    assert spec.wavelengths == (450.0, 650.0)
    # As one image of both dates it is a scene like any other.
    assert scene.spec(kind='segmentation', size=(8, 8)).bands == 4


def test_places_of_different_sizes_keep_their_pixels() -> None:
    pairs = [pair(20, 24, 0), pair(12, 30, 1), pair(16, 16, 2)]
    scene = BitemporalScene.from_pairs('places', pairs, wavelengths=NM, nodata=0)
    assert scene.shape == (60, 30)
    assert scene.tile_rows == 20
    assert scene.groups is not None
    labels, valid = scene.flat_labels().reshape(60, 30), scene.valid.reshape(60, 30)
    for k, (first, second, mask) in enumerate(pairs):
        height, width = mask.shape
        rows = slice(20 * k, 20 * k + height)
        assert np.array_equal(scene.cube[rows, :width], np.concatenate([first, second], axis=2))
        assert np.array_equal(labels[rows, :width] == CHANGED, mask == 1)
        assert valid[rows, :width].all()
        assert (scene.groups[20 * k : 20 * (k + 1)] == k).all()
    assert valid.sum() == sum(mask.size for *_, mask in pairs)
    split = PatchSplitter(size=6, stride=2, regions='groups', min_labelled=0.8, test_fraction=0.3)(scene, seed=0)
    for part in PARTS:
        assert len(np.unique(scene.groups.reshape(-1)[split.pixels(part)])) == 1
    whole = BitemporalScene.from_pairs('places', [(*p[:2], p[2] % 2) for p in pairs], nodata=0)  # nothing is ignored
    split = PatchSplitter(size=6, stride=2, regions='groups', min_labelled=1.0, test_fraction=0.3)(whole, seed=0)
    assert all(whole.valid[split.pixels(part)].all() for part in PARTS)
    # The middle place has 4 x 13 windows inside, counted by hand, where it trains.
    trained = [k for k in range(3) if (split.train[:, 0] // 20 == k).any()]
    inside = {0: 8 * 10, 1: 4 * 13, 2: 6 * 6}
    assert len(split.train) == sum(inside[k] for k in trained)


def test_fill_and_groups_of_places() -> None:
    floats = [pair(8, 9, 0, np.float32), pair(9, 8, 1, np.float32), pair(9, 9, 2, np.float32)]
    scene = BitemporalScene.from_pairs('places', floats, groups=[4, 4, 7])
    assert np.isnan(scene.cube).any(axis=2).sum() == 2 * 9
    assert scene.valid.sum() == 72 + 72 + 81
    assert np.unique(scene.groups).tolist() == [4, 7]
    with pytest.raises(ValueError, match='images of uint16 have none of their own, so give nodata'):
        BitemporalScene.from_pairs('places', [pair(8, 9), pair(9, 8)])
    assert BitemporalScene.from_pairs('places', [pair(8, 9), pair(8, 9, 1)]).valid.all()


def test_a_band_bad_at_one_date_leaves_both() -> None:
    pairs = [pair(20, 24, 0), pair(6, 8, 1)]
    for _, second, _ in pairs:
        second[..., 1] = 5
    scene = BitemporalScene.from_pairs('places', pairs, wavelengths=NM, nodata=0)
    # Nine tenths of the second place are beyond its edge, which makes no band bad.
    assert scene.valid.mean() < 0.6
    assert scene.bad_bands() == {1: 'constant 5 at the other date', 4: 'constant 5'}
    with pytest.raises(BadBandsError, match=r'1 \(constant 5 at the other date\), 4 \(constant 5\)'):
        scene.checked()
    good = scene.checked('drop')
    assert isinstance(good, BitemporalScene)
    assert good.bands is not None
    assert good.bands.tolist() == [0, 2, 3, 5]
    assert good.spec(size=(4, 4)).wavelengths == (450.0, 650.0)
    assert good.tile_rows == scene.tile_rows
    assert good.checked() is good
    pairs[0][0][:10, :, 2] = 0
    holes = BitemporalScene.from_pairs('places', pairs, nodata=0)
    assert '% of the pixels missing' in holes.bad_bands()[2]


def test_the_simulated_scene_changes_where_its_mask_says() -> None:
    simulated = SimulatedScene(48, 48, wavelengths=np.arange(450, 1000, 50.0), dates=2, seed=3)
    scene = BitemporalScene.from_simulated(simulated)
    pixels = scene.spectra(np.arange(scene.num_pixels)).reshape(-1, 2, 11)
    assert simulated.second_date is not None
    assert np.array_equal(pixels[:, 0], simulated.cube.reshape(-1, 11))
    assert np.array_equal(pixels[:, 1], simulated.second_date.reshape(-1, 11))
    angle = torch.cosine_similarity(*torch.from_numpy(pixels).unbind(dim=1), dim=1)
    labels = scene.flat_labels()
    # Season and light move every pixel; material changes move the shape of spectra more.
    assert np.abs(pixels[:, 0] - pixels[:, 1])[labels == UNCHANGED].mean() > 0.01
    assert (1 - angle)[labels == CHANGED].median() > 2 * (1 - angle)[labels == UNCHANGED].median()
    with pytest.raises(ValueError, match=r'make it with SimulatedScene\(dates=2\)'):
        BitemporalScene.from_simulated(SimulatedScene(8, 8))


def test_mistakes_are_named() -> None:
    first, second, mask = pair()
    with pytest.raises(ValueError, match=r'20x24 and 19x24 pixels, the mask has 20x24; .*crop_to_common'):
        BitemporalScene.from_dates('place', first, second[:19], mask)
    assert BitemporalScene.from_dates('place', *crop_to_common(first, second[:19], mask)).shape == (19, 24)
    with pytest.raises(ValueError, match=r'places, pair 1: the dates have 20x24 and 20x24 pixels, the mask has 20x23'):
        BitemporalScene.from_pairs('places', [(first, second, mask), (first, second, mask[:, 1:])])
    with pytest.raises(ValueError, match=r'mask holds \[1, 2\], expected 0 .* subtract 1 if 2 means changed'):
        BitemporalScene.from_dates('place', first, second, mask % 2 + 1)
    with pytest.raises(ValueError, match=r'mask holds \[0, 1, 2, 255\], expected 0 .* give a binary mask'):
        BitemporalScene.from_dates('place', first, second, np.where(first[..., 0] > 900, 2, mask))
    with pytest.raises(ValueError, match=r'no pixel of any mask is changed \(1\).* use mask // 255 if 255 means'):
        BitemporalScene.from_dates('place', first, second, (mask == 1).astype(np.uint8) * 255)
    with pytest.raises(ValueError, match=r'no pixel of any mask is changed .* nothing to learn; check'):
        BitemporalScene.from_pairs('places', [(first, second, np.zeros_like(mask))] * 2)
    with pytest.raises(ValueError, match='the first date has 3 bands, the second 2'):
        BitemporalScene.from_dates('place', first, second[..., :2], mask)
    with pytest.raises(ValueError, match=r'all pairs need the same bands, found \[2, 3\] bands'):
        BitemporalScene.from_pairs('places', [(first, second, mask), (first[..., :2], second[..., :2], mask)])
    with pytest.raises(ValueError, match=r'dates must be \(H, W, bands\) and the mask \(H, W\), found \(20, 24\)'):
        BitemporalScene.from_dates('place', first[..., 0], second[..., 0], mask)
    with pytest.raises(ValueError, match="'places': no pairs"):
        BitemporalScene.from_pairs('places', [])
    with pytest.raises(ValueError, match='both dates need the same bands, found 6 bands in the cube'):
        BitemporalScene('place', np.concatenate([first, second], axis=2), bands=np.array([0, 1, 3, 5]))
    with pytest.raises(RareClassError, match=r'class 2 \(changed\): 0 training pixels'):
        PatchSplitter(size=8, val_fraction=0.5)(rare_scene(blobs=1), seed=0)


@pytest.mark.parametrize('share', [0.3, 0.7, 1.0])
@pytest.mark.parametrize('min_change', [0.0, 0.05])
def test_training_windows_are_balanced_and_others_are_not(share: float, min_change: float) -> None:
    scene = rare_scene()
    split = PatchSplitter(size=8, stride=2, block=16, test_fraction=0.2)(scene, seed=4)
    least = max(min_change, 1 / 64)
    before = changed_share(scene, split) >= least
    assert 0 < before.mean() < 0.3
    splitter = ChangeSplitter(8, 2, block=16, test_fraction=0.2, change_share=share, min_change=min_change)
    balanced = splitter(scene, 4)
    after = changed_share(scene, balanced) >= least
    assert after.sum() == before.sum(), 'windows with change all stay'
    assert after.mean() >= share
    one_more = after.sum() / (len(after) + 1)
    assert one_more < share, 'no window without change is left out needlessly'
    assert {tuple(c) for c in balanced.train.tolist()} <= {tuple(c) for c in split.train.tolist()}
    assert np.array_equal(balanced.val, split.val)
    assert np.array_equal(balanced.test_windows, split.test_windows)
    assert balanced.strategy['change_share'] == share
    assert f'{len(split.train) - len(balanced.train)} training windows' in balanced.dropped[-1]
    assert balanced.fingerprint != split.fingerprint
    assert splitter(scene, 4).fingerprint == balanced.fingerprint


def test_few_balanced_windows_are_part_of_more() -> None:
    scene = rare_scene()
    split = PatchSplitter(size=8, stride=2, block=16, test_fraction=0.2)(scene, seed=4)
    splitter = ChangeSplitter(8, 2, block=16, test_fraction=0.2)
    choices = [replace(splitter, max_train=count)(scene, 4) for count in (4, 9, 20)]
    assert [len(choice.train) for choice in choices] == [4, 9, 20]
    for choice in choices:
        assert (changed_share(scene, choice) >= 0.01).sum() == -(-len(choice.train) // 2)
    for small, large in itertools.pairwise(choices):
        assert {tuple(c) for c in small.train.tolist()} < {tuple(c) for c in large.train.tolist()}
    # Where enough windows hold change already, all stay.
    assert replace(splitter, change_share=0.01)(scene, 4).fingerprint == split.fingerprint
    with pytest.raises(
        ValueError, match=r'none of \d+ training windows .* has 90.00% changed pixels, the most is 18.75%'
    ):
        replace(splitter, min_change=0.9)(scene, 4)
    for wrong in ({'change_share': 0.0}, {'change_share': 1.1}, {'min_change': -0.1}, {'max_train': 0}):
        with pytest.raises(ValueError, match=f'ChangeSplitter: {next(iter(wrong))} must be '):
            replace(splitter, **wrong)


# Changed pixels of each city, as its provider counts them.
OSCD_CHANGED = {
    'aguasclaras': 4056, 'bercy': 1046, 'bordeaux': 2380, 'mumbai': 12244, 'nantes': 3449, 'paris': 458, 'pisa': 9130,
    'rennes': 4932,
}  # fmt: skip


def test_cities_are_read_whole_and_never_part_company(real_data: Path) -> None:
    cities = ('bercy', 'paris', 'rennes', 'aguasclaras')
    scene = real_scenes.oscd(real_data, cities)
    assert scene.groups is not None
    labels = scene.flat_labels()
    assert [int((labels[scene.groups.reshape(-1) == k] == CHANGED).sum()) for k in range(4)] == [
        OSCD_CHANGED[city] for city in cities
    ]
    spec = scene.spec(size=(64, 64))
    assert (spec.bands, spec.unit) == (10, 'reflectance')
    assert spec.wavelengths == (492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 1613.7, 2202.4)
    with np.load(real_data / 'oscd' / 'rennes.npz') as file:
        stored = [file[f't{date}_{pixel}'] for date in (1, 2) for pixel in ('10m', '20m')]
    rows, columns = slice(2 * 471, 2 * 471 + 339), slice(0, 563)  # its tile, which is as high as the highest city
    for date in range(2):
        assert np.array_equal(scene.cube[rows, columns, 10 * date + 6], stored[2 * date][..., 3])  # B08
        assert np.array_equal(
            scene.cube[rows, columns, 10 * date + 8], upsample(stored[2 * date + 1][..., 4], (339, 563))
        )
    for seed in range(3):
        split = real_scenes.change_splitter('oscd', 64)(scene, seed)
        parts = [set(np.unique(scene.groups.reshape(-1)[split.pixels(part)])) for part in PARTS]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) == 4
        assert all(scene.valid[split.pixels(part)].all() for part in PARTS)
    with pytest.raises(ValueError, match=r"bands \['B8b'\] are missing, found \['B02'"):
        real_scenes.oscd(real_data, cities[:1], ('B02', 'B8b'))


def test_bark_beetle_tiles_are_split_by_patches(real_data: Path) -> None:
    scene = real_scenes.barkbeetle_change(real_data)
    assert scene.shape == (730 * 32, 32)
    assert scene.spec(size=(32, 32)).bands == 12
    assert scene.groups is not None
    split = real_scenes.change_splitter('barkbeetle_change', 32)(scene, 0)
    groups = [set(np.unique(scene.groups.reshape(-1)[split.pixels(part)])) for part in PARTS]
    assert sum(map(len, groups)) == len(set.union(*groups))
    labels = scene.flat_labels()[scene.valid]
    assert (labels == CHANGED).mean() == pytest.approx(0.14, abs=0.01)
    # Damage raises the shortwave infrared (B11) at the second date.
    rise = scene.spectra(np.flatnonzero(scene.valid)).reshape(-1, 2, 12)[..., 10]
    rise = rise[:, 1] - rise[:, 0]
    assert rise[labels == CHANGED].mean() > 2 * rise[labels == UNCHANGED].mean()


def test_water_that_came_and_went_is_of_the_same_pixels(real_data: Path) -> None:
    with np.load(real_data / 'water12_patches' / 'water12_patches.npz') as file:
        heights, groups = file['dem_copernicus'], file['overlap_group']
    for first, second in real_scenes.WATER_DATES:
        assert groups[first] == groups[second]
        assert np.array_equal(heights[first], heights[second])
    scene = real_scenes.water_change(real_data)
    assert (scene.labels == CHANGED).mean() == pytest.approx(0.11, abs=0.01)
    assert real_scenes.change_splitter('water_change', 32).regions == 'groups'


@pytest.mark.parametrize('name', ['slovenia_change', 'houston18_change'])
def test_simulated_changes_show_other_land_of_their_block(real_data: Path, name: str) -> None:
    scene = real_scenes.CHANGE[name](real_data)
    changed = scene.labels == CHANGED
    assert 0.1 < changed.mean() < 0.3
    second = scene.cube[..., scene.cube.shape[2] // 2 :]
    rows, columns = (real_scenes._mirrored(length, 16) for length in scene.shape)
    assert set(rows[:16]) == set(range(16))
    assert np.array_equal(np.sort(rows), np.arange(len(rows)))
    there = second[rows][:, columns]
    kept = changed & ~changed[rows][:, columns]  # the land that is shown is still in its place
    assert kept.any()
    assert np.array_equal(second[kept], there[kept])


@pytest.mark.parametrize('make', [np.asarray, np.ndarray.tolist, torch.as_tensor])
def test_dates_are_anything_like_an_array(make: Any) -> None:
    first, second, mask = pair(dtype=np.int32)
    scene = BitemporalScene.from_dates('place', *map(make, (first, second, mask)))
    assert np.array_equal(scene.cube, np.concatenate([first, second], axis=2))
    assert np.array_equal(scene.labels, np.where(mask == 255, 0, mask + 1))


def test_masked_values_of_dates_are_not_measured() -> None:
    first, second, mask = pair()
    hidden = np.zeros(first.shape, dtype=bool)
    hidden[3, :7, 1] = True
    for change in (mask, mask == 1):
        masked = np.ma.masked_array(first, hidden), second, np.ma.masked_array(change, mask != 1)
        for scene in (BitemporalScene.from_dates('x', *masked), BitemporalScene.from_pairs('x', [masked])):
            assert np.array_equal(scene.valid, ~hidden.any(axis=2).reshape(-1))
            assert np.array_equal(scene.labels, np.where(mask == 1, CHANGED, 0))
