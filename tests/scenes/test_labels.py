import warnings
from pathlib import Path

import numpy as np
import pytest
from rasters import write_raster

from hsiaug.scenes import RandomSplit, RareClassError, Scene, open_scene
from hsiaug.scenes.config import SceneConfig
from hsiaug.scenes.labels import clean_labels

RNG = np.random.default_rng(0)
CUBE = RNG.integers(100, 9000, (20, 20, 5)).astype(np.uint16)
GT = RNG.integers(1, 4, (20, 20))


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    np.save(tmp_path / 'cube.npy', CUBE)
    return tmp_path / 'cube.npy'


@pytest.mark.parametrize('driver', ['GTiff', 'ENVI'])
@pytest.mark.parametrize(
    ('dtype', 'nodata'),
    [('uint8', 255), ('int16', -1), ('int16', -32768), ('float32', -9999.9), ('float32', np.nan), ('uint8', 0)],
)
def test_nodata_of_a_label_raster_is_no_class(cube: Path, driver: str, dtype: str, nodata: float) -> None:
    values = GT.astype(dtype)
    values[:8] = nodata
    scene = open_scene(cube, write_raster(cube.with_name('gt.tif'), values, nodata=nodata, driver=driver))
    assert scene.class_ids == (1, 2, 3)
    assert np.array_equal(scene.flat_labels().reshape(20, 20)[8:], GT[8:])
    assert not scene.flat_labels()[:160].any()
    assert RandomSplit(fraction=0.2)(scene).classes == (1, 2, 3)


@pytest.mark.parametrize('value', [-1, -7, np.nan, 2**64 - 1])
@pytest.mark.parametrize('reader', ['npy', 'npz', 'scene'])
def test_negative_and_nan_labels_are_none(cube: Path, value: float, reader: str) -> None:
    values = GT.astype(np.uint64 if value > 3 else np.float32 if np.isnan(value) else np.int16)
    values[0, :7] = value
    if reader == 'scene':
        scene = Scene('x', CUBE, values)
    else:
        file = cube.with_name(f'gt.{reader}')
        if reader == 'npy':
            np.save(file, values)
        else:
            np.savez(file, gt=values)
        scene = open_scene(cube, file)
    assert scene.class_ids == (1, 2, 3)
    assert (scene.flat_labels() == 0).sum() == 7
    assert scene.labels is not None
    assert np.issubdtype(scene.labels.dtype, np.integer)


def test_255_is_a_class_or_not_but_never_by_chance(cube: Path) -> None:
    values = GT.astype(np.uint8)
    values[:5] = 255
    file = cube.with_name('gt.npy')
    np.save(file, values)
    with pytest.raises(ValueError, match=r'255 may be a class, .* give ignore=\[255\] .*, ignore=\[\] if it is a'):
        open_scene(cube, file)
    assert open_scene(cube, file, ignore=[255]).class_ids == (1, 2, 3)
    assert open_scene(cube, file, ignore=[]).class_ids == (1, 2, 3, 255)
    assert open_scene(cube, file, class_names={255: 'cloud'}).class_ids == (1, 2, 3, 255)
    settings = {'path': str(cube), 'labels': str(file)}
    assert SceneConfig(**settings, ignore=(255, 3))().class_ids == (1, 2)
    masks = np.array([[0, 255], [255, 0]], dtype=np.uint8)  # 255 for 'yes' stays a class
    assert np.array_equal(clean_labels(masks, 'mask'), masks)


def test_a_class_that_is_nodata_is_said_aloud(cube: Path) -> None:
    file = write_raster(cube.with_name('gt.tif'), GT.astype(np.uint8), nodata=2)
    with pytest.warns(UserWarning, match=rf'2 looks like a class, .* its {(GT == 2).sum()} pixels .* ignore=\[\]'):
        scene = open_scene(cube, file)
    assert scene.class_ids == (1, 3)
    usual = write_raster(cube.with_name('usual.tif'), np.where(GT == 2, 255, GT).astype(np.uint8), nodata=255)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        assert open_scene(cube, file, ignore=[]).class_ids == (1, 2, 3)
        assert open_scene(cube, usual).class_ids == (1, 3)


def test_a_class_that_is_nowhere_measured_is_named() -> None:
    cube, labels = CUBE.astype(np.float32), GT.copy()
    labels[0, :9] = 4
    cube[0, :9] = np.nan
    with pytest.raises(RareClassError, match=r'class 4: .* 9 pixels that are not measured'):
        RandomSplit(fraction=0.2)(Scene('x', cube, labels))
    with pytest.raises(ValueError, match='no labelled pixel that is measured'):
        RandomSplit()(Scene('x', CUBE, -GT))


def test_labels_that_are_no_numbers_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r'must be integers, found dtype float64 with \[1.5\]'):
        Scene('x', CUBE, np.where(GT == 2, 1.5, GT))
    with pytest.raises(ValueError, match=r'found dtype float64 with \[1e\+20\]; name such values with ignore'):
        clean_labels(np.array([1.0, 1e20]), 'gt')
    assert clean_labels(np.array([1.0, 1e20]), 'gt', ignore=[10**20]).tolist() == [1, 0]
    with pytest.raises(ValueError, match='must be integers, found dtype complex64'):
        Scene('x', CUBE, GT.astype(np.complex64))


def test_change_masks_keep_what_does_not_count_apart_from_unchanged(tmp_path: Path) -> None:
    dates = [RNG.integers(1, 99, (20, 20, 3)) for _ in range(2)]
    for name, date in zip('ab', dates, strict=True):
        np.save(tmp_path / f'{name}.npy', date)
    mask = RNG.integers(0, 2, (20, 20)).astype(np.int16)
    mask[0], mask[1] = -1, 99
    file = write_raster(tmp_path / 'mask.tif', mask, nodata=-1)
    scene = SceneConfig(str(tmp_path / 'a.npy'), str(file), str(tmp_path / 'b.npy'), ignore=(99,))()
    assert not scene.flat_labels()[:40].any()
    assert np.array_equal(scene.flat_labels().reshape(20, 20)[2:], mask[2:] + 1)
