import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from rasters import write_raster

from hsiaug.records import as_record
from hsiaug.scenes import (
    BadBandsError,
    SceneFileError,
    open_library,
    open_scene,
)
from hsiaug.scenes.config import SceneConfig

RNG = np.random.default_rng(0)
CUBE = RNG.integers(1, 4000, (6, 5, 4)).astype(np.uint16)
GT = RNG.integers(0, 3, (6, 5)).astype(np.uint8)


def write(folder: Path, kind: str) -> tuple[Path, Path]:
    cube, gt = folder / f'cube.{kind}', folder / f'gt.{kind}'
    if kind == 'mat':
        scipy.io.savemat(cube, {'paviaU': CUBE})
        scipy.io.savemat(gt, {'paviaU_gt': GT})
    elif kind == 'v73.mat':
        for file, key, value in ((cube, 'scene', CUBE), (gt, 'scene_gt', GT)):
            with h5py.File(file, 'w') as archive:
                archive[key] = value.transpose()  # as MATLAB writes it
                archive[key].attrs['MATLAB_class'] = np.bytes_(value.dtype.name)
    elif kind == 'npz':
        np.savez(cube, cube=CUBE)
        np.savez(gt, gt=GT)
    elif kind == 'npy':
        np.save(cube, CUBE)
        np.save(gt, GT)
    elif kind == 'tif':
        write_raster(cube, CUBE)
        write_raster(gt, GT)
    else:
        write_raster(cube, CUBE, interleave=kind)
        write_raster(gt, GT)
    return cube, gt


@pytest.mark.parametrize('kind', ['mat', 'v73.mat', 'npz', 'npy', 'tif', 'bsq', 'bil', 'bip'])
def test_every_format_gives_the_same_scene(tmp_path: Path, kind: str) -> None:
    cube, gt = write(tmp_path, kind)
    if kind == 'npy':
        assert GT.ndim == 2
    scene = open_scene(cube, gt)
    assert np.array_equal(scene.cube, CUBE)
    assert scene.labels is not None
    assert np.array_equal(scene.labels, GT)
    pixels = np.array([0, 7, 29])
    assert np.array_equal(scene.spectra(pixels), CUBE.reshape(-1, 4)[pixels].astype(np.float32))
    if kind in ('npy', 'bsq', 'bil', 'bip'):
        base = scene.cube
        while not isinstance(base, np.memmap) and base is not None:
            base = base.base
        assert isinstance(base, np.memmap)


def test_envi_header_gives_wavelengths_in_nm(tmp_path: Path) -> None:
    cube, _ = write(tmp_path, 'bsq')
    header = next(p for p in tmp_path.glob('cube*.hdr'))
    header.write_text(header.read_text() + 'wavelength units = micrometers\nwavelength = {0.45, 0.55, 0.65, 0.85}\n')
    scene = open_scene(cube)
    assert scene.wavelengths is not None
    assert scene.wavelengths.tolist() == pytest.approx([450, 550, 650, 850])


def test_npz_brings_its_metadata(tmp_path: Path) -> None:
    tiles, gt = RNG.integers(1, 99, (3, 4, 4, 5)), RNG.integers(0, 3, (3, 4, 4))
    tiles[..., 2] = -1
    names = np.array(['unlabelled', 'roof', 'tree'])
    file = tmp_path / 'tiles.npz'
    np.savez(file, tiles=tiles, gt=gt, class_names=names, wavelength_nm=np.arange(5) + 400.0, scale=0.5, nodata=-1)
    with pytest.raises(BadBandsError, match=r'2 \(no data\)'):
        open_scene(file)
    scene = open_scene(file, on_bad_bands='drop')
    assert scene.shape == (12, 4)
    assert scene.groups is not None
    assert scene.groups[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert scene.class_names == {1: 'roof', 2: 'tree'}
    assert scene.spec().wavelengths == (400, 401, 403, 404)
    assert scene.spectra(np.array([0]))[0].tolist() == (tiles[0, 0, 0, [0, 1, 3, 4]] * 0.5).tolist()


@pytest.mark.parametrize('kind', ['mat', 'v73.mat', 'npz', 'npy', 'tif', 'bsq', 'bil', 'bip'])
def test_torn_files_are_refused(tmp_path: Path, kind: str) -> None:
    cube, _ = write(tmp_path, kind)
    whole = cube.read_bytes()
    # GDAL would fill up a raw file with zeros, so even a single missing byte counts.
    for length in {0, 3, 100, 128, 140, len(whole) // 2, len(whole) - 1}:
        if length < len(whole):
            cube.write_bytes(whole[:length])
            with pytest.raises(SceneFileError, match=r'Is it complete|holds: nothing'):
                open_scene(cube)


def test_labels_may_be_a_variable_of_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / 'both.npz'
    np.savez(file, cube=CUBE, gt=np.zeros_like(GT), finer=GT)
    for scene in (open_scene(file, 'finer'), open_scene(file, labels_key='finer')):
        assert np.array_equal(scene.labels, GT)
    assert open_scene(file).class_ids == ()


def test_what_is_not_unique_or_does_not_fit_is_not_guessed(tmp_path: Path) -> None:
    np.savez(tmp_path / 'two.npz', cube=CUBE, image=CUBE)
    with pytest.raises(SceneFileError, match=r'cube \(6, 5, 4\), image \(6, 5, 4\). Name one with cube_key'):
        open_scene(tmp_path / 'two.npz')
    assert open_scene(tmp_path / 'two.npz', cube_key='image').cube.shape == (6, 5, 4)
    np.savez(tmp_path / 'onehot.npz', cube=CUBE, gt=np.eye(3)[GT])
    with pytest.raises(SceneFileError, match=r"labels 'gt' must be 2-D, found shape \(6, 5, 3\)"):
        open_scene(tmp_path / 'onehot.npz')
    np.savez(tmp_path / 'names.npz', cube=CUBE, label=np.array(['roof', 'tree']))
    assert open_scene(tmp_path / 'names.npz').labels is None


def test_geotiff_nodata(tmp_path: Path) -> None:
    value = CUBE.copy()
    value[:, :, 1] = 65535
    value[0, 0] = 65535
    write_raster(tmp_path / 'cube.tif', value, nodata=65535)
    scene = open_scene(tmp_path / 'cube.tif', on_bad_bands='drop')
    assert scene.bands is not None
    assert scene.bands.tolist() == [0, 2, 3]
    assert scene.valid.tolist() == [False] + [True] * 29


def test_library_has_its_own_scale_but_not_a_column_of_that_name(tmp_path: Path) -> None:
    spectra = RNG.integers(1, 99, (4, 3))
    for name, column, factor in (('number', np.array(0.5), 0.5), ('text', np.array(['field'] * 4), 1.0)):
        np.savez(tmp_path / f'{name}.npz', spectra=spectra, level=np.array(list('aabb')), scale=column)
        scene = open_library(tmp_path / f'{name}.npz', 'level')
        assert np.array_equal(scene.spectra(np.arange(4)), (spectra * factor).astype(np.float32))


def test_scale_of_a_file_comes_with_its_offset(tmp_path: Path) -> None:
    np.savez(tmp_path / 'x.npz', cube=CUBE, gt=GT, scale=0.5, offset=-3)
    assert open_scene(tmp_path / 'x.npz').spectra(np.arange(30)) == pytest.approx(CUBE.reshape(-1, 4) * 0.5 - 3)
    np.savez(tmp_path / 'x.npz', cube=CUBE, gt=GT, scale=[1, 2, 3, 4], offset=[0, 30])  # it may be anything
    with pytest.warns(UserWarning, match=r'its scale is an array of shape \(4,\), which is not applied'):
        scene = open_scene(tmp_path / 'x.npz')
    assert (scene.scale, scene.offset) == (1, 0)


def test_library(tmp_path: Path) -> None:
    file = tmp_path / 'library.npz'
    np.savez(
        file, spectra=RNG.random((6, 3)), level=np.array(list('bbaacc')), field=np.array(list('xxyyzz')),
        wavelength=[0.4, 0.5, 0.6], bbl=[1, 0, 1],
    )  # fmt: skip
    scene = open_library(file, 'level', groups_key='field', good_bands_key='bbl')
    assert scene.labels is not None
    assert scene.labels[:, 0].tolist() == [2, 2, 1, 1, 3, 3]
    assert scene.class_names == {1: 'a', 2: 'b', 3: 'c'}
    assert scene.spec().wavelengths == pytest.approx((400, 600))
    assert scene.groups is not None
    assert scene.groups[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize('suffix', ['npz', 'mat'])
def test_groups_of_pixels_tiles_and_spectra(tmp_path: Path, suffix: str) -> None:
    file, of_each = tmp_path / f'x.{suffix}', np.array(['b', 'a', 'b'])
    for cube, labels, groups, expected in (
        (CUBE, GT, np.arange(30).reshape(6, 5), np.arange(30).reshape(6, 5)),
        (np.arange(120).reshape(3, 4, 5, 2), np.ones((3, 4, 5), int), of_each, np.repeat([1, 0, 1], 20).reshape(12, 5)),
        (np.arange(12).reshape(3, 4), np.array([1, 2, 1]), of_each, np.array([[1], [0], [1]])),
    ):
        arrays = {
            'cube': cube,
            'gt': labels,
            'field': groups if suffix == 'npz' else np.unique(groups, return_inverse=True)[1],
        }
        np.savez(file, **arrays) if suffix == 'npz' else scipy.io.savemat(file, arrays)
        assert np.array_equal(open_scene(file, groups_key='field').groups, expected)


def test_mistakes_are_named(tmp_path: Path) -> None:
    cube, gt = write(tmp_path, 'npz')
    with pytest.raises(FileNotFoundError, match=r'cube file .*missing.mat does not exist; in .*cube.npz'):
        open_scene(tmp_path / 'missing.mat')
    with pytest.raises(SceneFileError, match=r"holds no 'kube' for the cube; it holds: cube \(6, 5, 4\)"):
        open_scene(cube, gt, cube_key='kube')
    np.savez(tmp_path / 'wrong.npz', gt=GT.T)
    with pytest.raises(ValueError, match='transposed'):
        open_scene(cube, tmp_path / 'wrong.npz')
    np.savez(tmp_path / 'two.npz', a=CUBE, b=CUBE)
    with pytest.raises(SceneFileError, match=r'2 arrays could be the cube.*Name one with cube_key'):
        open_scene(tmp_path / 'two.npz')
    np.savez(tmp_path / 'objects.npz', cube=np.array([{}], dtype=object))
    with pytest.raises(SceneFileError, match='Python objects are never read'):
        open_scene(tmp_path / 'objects.npz')
    with pytest.raises(FileNotFoundError, match=r"'gtt' are neither a file nor a variable of .*holds: \['cube'\]"):
        open_scene(cube, 'gtt')
    with pytest.raises(ValueError, match='not both'):
        SceneConfig(path='x', benchmark='ksc')()


def test_configs_name_every_option(tmp_path: Path) -> None:
    cube, gt = write(tmp_path, 'npz')
    options = {'ignore': [2], 'wavelengths': [0.4, 0.5, 0.6, 0.7], 'bands': [0, 2], 'layout': 'hwc', 'scale': 0.5}
    config = as_record(SceneConfig, {'path': str(cube), 'labels': str(gt), **options}, 'run.json')
    scene = config()
    assert scene.class_ids == (1,)
    assert scene.spec().wavelengths == pytest.approx((400, 600))
    assert np.array_equal(scene.spectra(np.arange(30)), CUBE.reshape(-1, 4)[:, [0, 2]].astype(np.float32) / 2)
    assert as_record(SceneConfig, json.loads(json.dumps(dataclasses.asdict(config))), 'run.json') == config
    with pytest.raises(ValueError, match='wavelengths must be band centres in nm'):
        open_scene(cube, wavelengths=[400, np.nan, 600, 700])


def test_two_dates_share_scale_mask_and_good_bands(tmp_path: Path) -> None:
    for name, factor in (('a', 1e-4), ('b', 1e-4), ('other', 1e-3)):
        np.savez(tmp_path / f'{name}.npz', cube=CUBE, scale=factor, bbl=[1, 1, name == 'a', 1])
    change = (np.arange(30) % 2).reshape(6, 5)
    np.save(tmp_path / 'mask.npy', change)
    paths = [str(tmp_path / name) for name in ('a.npz', 'mask.npy', 'b.npz', 'other.npz')]
    scene = SceneConfig(*paths[:3])()
    assert np.array_equal(scene.bands, [0, 1, 3, 4, 5, 7])
    expected = np.tile(CUBE.reshape(-1, 4)[:, [0, 1, 3]], 2) * 1e-4
    assert scene.spectra(np.arange(30)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r'a.npz has the scale 0.0001, .*other.npz has 0.001; give scale'):
        SceneConfig(*paths[:2], paths[3])()


class TestRealData:
    def test_labels_beside_the_cube(self, real_data: Path) -> None:
        scene = open_scene(real_data / 'salinas_a' / 'salinas_a.npz')
        assert scene.shape == (83, 86)
        assert scene.class_ids == (1, 10, 11, 12, 13, 14)
        assert (scene.flat_labels() > 0).sum() == 5348

    def test_tiles_with_nodata_bands(self, real_data: Path) -> None:
        file = real_data / 'enmap_potsdam' / 'enmap_potsdam.npz'
        with pytest.raises(BadBandsError, match='6 of 224 bands'):
            open_scene(file)
        scene = open_scene(file, on_bad_bands='drop')
        assert scene.num_bands == 218
        labels, counts = np.unique(scene.flat_labels(), return_counts=True)
        assert dict(zip(labels.tolist(), counts.tolist(), strict=True))[5] == 91

    def test_finer_labels_are_refused(self, real_data: Path) -> None:
        with pytest.raises(ValueError, match=r'labels of shape \(512, 512\) do not fit a cube of 128 x 128'):
            open_scene(real_data / 'houston18_crop' / 'houston18_crop.npz')

    def test_library_of_a_city(self, real_data: Path) -> None:
        file = real_data / 'spectral_libraries' / 'roberts2017_santa_barbara_urban.npz'
        scene = open_library(file, 'level_2', groups_key='polygon_unit_id', good_bands_key='bbl', scale=1e-4)
        assert (scene.num_pixels, scene.num_bands, len(scene.class_ids)) == (3725, 178, 8)
        assert scene.class_names[1] == 'GV'
        assert (scene.flat_labels() == 1).sum() == 1471
        assert scene.groups is not None
        assert len(np.unique(scene.groups)) == 305
        assert scene.wavelengths is not None
        assert scene.wavelengths[[0, -1]].tolist() == pytest.approx([365.9, 2496.2])
