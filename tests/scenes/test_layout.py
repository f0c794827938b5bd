import warnings
from pathlib import Path

import numpy as np
import pytest

from hsiaug.scenes import SceneFileError, open_scene
from hsiaug.scenes.config import SceneConfig
from hsiaug.scenes.layout import channels_last

RNG = np.random.default_rng(0)
CUBE = RNG.random((6, 8, 4))


def test_labels_and_wavelengths_tell_the_layout(tmp_path: Path) -> None:
    first, labels = CUBE.transpose(2, 0, 1), np.ones((6, 8), dtype=int)
    assert np.array_equal(channels_last(first, None, labels.shape), CUBE)
    assert np.array_equal(channels_last(first, None, None, [400, 500, 600, 700]), CUBE)
    assert channels_last(CUBE, None, labels.shape) is CUBE
    tiles = np.stack([CUBE, CUBE])
    assert np.array_equal(channels_last(tiles.transpose(0, 3, 1, 2), None, (2, 6, 8)), tiles)
    np.savez(tmp_path / 'x.npz', cube=first, gt=labels)
    assert np.array_equal(open_scene(tmp_path / 'x.npz').cube, CUBE)


def test_what_may_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneFileError, match=r"nothing in the file says which; give layout='hwc' or layout='chw'"):
        channels_last(RNG.random((8, 8, 8)), None, (8, 8))
    with pytest.raises(SceneFileError, match='nothing in the file says'):
        channels_last(RNG.random((5, 8, 5)), None, (8, 5))  # transposed labels, or bands first
    with pytest.raises(SceneFileError, match='labels and wavelengths do not agree'):
        channels_last(CUBE, None, (6, 8), np.arange(6) + 400)
    np.save(tmp_path / 'x.npy', RNG.random((3, 64, 64)))
    with pytest.raises(SceneFileError, match=r'may be \(H, W, bands\) with 64 bands, or \(bands, H, W\) with 3'):
        open_scene(tmp_path / 'x.npy')
    assert open_scene(tmp_path / 'x.npy', layout='hwc').cube.shape == (3, 64, 64)
    assert SceneConfig(str(tmp_path / 'x.npy'), layout='chw')().cube.shape == (64, 64, 3)
    with pytest.raises(ValueError, match="unknown layout 'cwh'; choose from 'hwc', 'chw', 'hcw'"):
        open_scene(tmp_path / 'x.npy', layout='cwh')  # type: ignore[arg-type]


@pytest.mark.parametrize('shape', [(204, 512, 217), (20, 30, 200), (60, 50, 40)])
def test_a_layout_that_nothing_tells_is_said_aloud(shape: tuple[int, ...]) -> None:
    """Such as Salinas with its bands first: 204 bands of 512 x 217 pixels, or 217 bands of 204 x 512."""
    cube = np.zeros(shape, np.int8)
    with pytest.warns(UserWarning, match=r"read as the first, give layout='hwc' or layout='chw'"):
        assert channels_last(cube, None).shape == shape
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert channels_last(cube, 'chw').shape == (*shape[1:], shape[0])
        assert channels_last(cube, None, shape[1:]).shape == (*shape[1:], shape[0])
        for clear in ((145, 145, 200), (610, 340, 103), (30, 40, 5)):
            assert channels_last(np.zeros(clear, np.int8), None).shape == clear


def test_bands_between_rows_and_columns(tmp_path: Path) -> None:
    """As PRISMA stores them: rows, bands, columns."""
    stored = CUBE.transpose(0, 2, 1)
    assert np.array_equal(channels_last(stored, 'hcw'), CUBE)
    assert np.array_equal(channels_last(stored, None, (6, 8)), CUBE)
    assert np.array_equal(channels_last(stored, None, None, [400, 500, 600, 700]), CUBE)
    tiles = np.stack([CUBE, CUBE])
    assert np.array_equal(channels_last(tiles.transpose(0, 1, 3, 2), None, (2, 6, 8)), tiles)
    np.savez(tmp_path / 'x.npz', cube=stored, gt=np.ones((6, 8), dtype=int))
    assert np.array_equal(open_scene(tmp_path / 'x.npz').cube, CUBE)
    with pytest.warns(UserWarning, match="or layout='hcw' if the 66 in the middle are the bands"):
        channels_last(np.zeros((1000, 66, 900), np.int8), None)
