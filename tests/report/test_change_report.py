"""Reports of pairs of dates: maps of detected changes, and the table of a study."""

from dataclasses import replace

import matplotlib.colors
import numpy as np
import pytest
import torch

from hsiaug.datasets import AdaptedDataset, ChangeDataset, SampleSet, SampleSplitter
from hsiaug.report.change_maps import OUTCOMES, plot_change_maps
from hsiaug.report.fidelity_text import study_fidelity
from hsiaug.scenes import BitemporalScene, PatchSplit

COLOURS = {name: matplotlib.colors.to_rgb(colour) for name, colour in OUTCOMES.items()}


# --- maps of changes --------------------------------------------------------------------------------------------------


def two_cities() -> ChangeDataset:
    """Two cities of 4 x 8 pixels; two windows of each test. In the second more has changed."""
    rng = np.random.default_rng(0)
    pairs = []
    for changed in (1, 3):
        first, second = rng.random((2, 4, 8, 3)).astype(np.float32)
        mask = np.zeros((4, 8), dtype=np.uint8)
        mask[0, :changed] = 1
        mask[3, 7] = 255
        pairs.append((first, second, mask))
    scene = BitemporalScene.from_pairs('cities', pairs)
    corners = np.array([[0, 0], [0, 4], [4, 0], [4, 4]])
    split = PatchSplit(
        scene.fingerprint, scene.num_pixels, scene.shape, {}, 0, (1, 2), 4, corners[:0], corners[:0], corners
    )
    return ChangeDataset.from_scene(scene, split, 'test')


def test_map_of_the_city_with_most_change() -> None:
    test = two_cities()
    found = torch.zeros(4, 1, 4, 4, dtype=torch.uint8)
    found[2, 0, 0, 0] = 1  # changed
    found[3, 0, 2, 1] = 1  # not changed
    figure = plot_change_maps(test, {'real only': found, 'mixed, 3×': torch.ones_like(found)}, tile_rows=4)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ['date 1', 'date 2', 'changes', 'real only', 'mixed, 3×']
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert all(picture.shape == (4, 8, 3) for picture in pictures)

    expected = np.empty((4, 8, 3))
    expected[:] = COLOURS['unchanged']
    expected[0, :3] = COLOURS['detected']
    expected[3, 7] = COLOURS['not tested']
    np.testing.assert_allclose(pictures[2], expected)
    expected[0, 1:3] = COLOURS['missed']
    expected[2, 5] = COLOURS['false alarm']
    np.testing.assert_allclose(pictures[3], expected)
    expected[:] = COLOURS['false alarm']
    expected[0, :3] = COLOURS['detected']
    expected[3, 7] = COLOURS['not tested']
    np.testing.assert_allclose(pictures[4], expected)
    assert figure.axes[3].get_xlabel() == 'F1 40.0 %'  # 2 · 1 / (2 + 3)


def test_gaps_between_windows_are_not_tested_and_single_windows_stand_in_rows() -> None:
    test = two_cities()
    assert test.split is not None
    apart = replace(test.split, test_windows=test.split.test_windows[[0, 1, 2]])
    windows = ChangeDataset(test.image[:3], test.mask[:3], test.spec, apart)
    found = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    whole = plot_change_maps(windows, {'real only': found})  # without tiles one image: a gap at its lower right
    picture = np.asarray(whole.axes[3].images[0].get_array())
    assert picture.shape == (8, 8, 3)
    np.testing.assert_allclose(picture[4:, 4:], np.broadcast_to(COLOURS['not tested'], (4, 4, 3)))
    alone = replace(test.split, test_windows=test.split.test_windows[[0, 2]])
    windows = ChangeDataset(test.image[[0, 2]], test.mask[[0, 2]], test.spec, alone)
    rows = plot_change_maps(windows, {'real only': found[:2]}, tile_rows=4)
    assert len(rows.axes) == 2 * 4
    truths = [np.asarray(rows.axes[k].images[0].get_array()) for k in (2, 6)]
    changed = [int((truth == COLOURS['detected']).all(axis=2).sum()) for truth in truths]
    assert changed == [3, 1]  # most change first
    with pytest.raises(ValueError, match=r"'real only' has masks \(3, 1, 4, 4\), the test windows \(2, 1, 4, 4\)"):
        plot_change_maps(windows, {'real only': found})
    nowhere = plot_change_maps(ChangeDataset(test.image, test.mask, test.spec), {})
    assert len(nowhere.axes) == 4 * 3  # each is a place of its own


def test_windows_of_datasets_are_put_together_by_image() -> None:
    scene, rng = two_cities(), np.random.default_rng(0)
    changed = torch.zeros(2, 1, 6, 9, dtype=torch.int64)
    changed[0, 0, :3, :3], changed[1, 0, 0, 0] = 1, 1
    image = torch.from_numpy(rng.random((2, 2, 3, 6, 9)).astype(np.float32))
    whole = ChangeDataset(image, changed, replace(scene.spec, size=(6, 9)))
    samples = SampleSet(whole, test=ChangeDataset(image.flip(-1), changed, whole.spec), size=(3, 4))
    split = SampleSplitter(val_share=0)(samples, 0)
    test = samples.part(split, 'test')
    found = torch.zeros(8, 1, 3, 4, dtype=torch.uint8)
    found[3] = 1
    figure = plot_change_maps(test, {'real only': found})
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert all(picture.shape == (6, 8, 3) for picture in pictures)
    expected = np.empty((6, 8, 3))
    expected[:] = COLOURS['unchanged']
    expected[:3, :3] = COLOURS['missed']
    expected[3:, 4:] = COLOURS['false alarm']
    np.testing.assert_allclose(pictures[3], expected)
    read = AdaptedDataset(whole, replace(whole.spec, size=(3, 4)), 'read', tile=True)  # too large for memory
    read.survey()
    np.testing.assert_allclose(
        np.asarray(plot_change_maps(read, {'real only': found}).axes[3].images[0].get_array()), expected
    )


# --- the table of a study ---------------------------------------------------------------------------------------------


def test_table_of_pairs_of_dates_shows_real_pairs_in_brackets() -> None:
    def record(seed: int, fid: float) -> dict[str, object]:
        both = {'compared': 100, 'class_share_error': 0.01, 'real_reference': {'class_share_error': 0.003}}
        first = {'fid_image': fid, 'real_reference': {'fid_image': 1.0}, 'against_train': {'fid_image': fid / 2}}
        differences = {'unchanged': 0.25, 'real_reference': {'unchanged': 0.125}}
        return {
            'kind': 'change', 'scene': 'oscd', 'budget': 'b', 'arm': 'two-stream', 'seed': seed, 'first': first,
            'second': {}, 'both': both, 'differences': differences, 'reconstruction': None,
        }  # fmt: skip

    _, header, rows = study_fidelity([record(0, 2.0), record(1, 4.0)])
    (row,) = [dict(zip(header, row, strict=True)) for row in rows]
    assert (row['scene'], row['arm'], row['seeds']) == ('oscd', 'two-stream', '2')
    assert row['FID date 1'] == '3.00 (1.00)'
    assert row['FID date 1 to training'] == '1.50'
    assert row['FID date 2'] == row['RMSE'] == '–'
    assert row['share'] == '0.010 (0.003)'
    assert row['differences, unchanged'] == '0.25 (0.12)'
    assert study_fidelity([])[2] == []
