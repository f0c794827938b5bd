from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from hsiaug.datasets import PairFolder
from hsiaug.scenes import SceneFileError, open_scene

RNG = np.random.default_rng(0)
CUBE = RNG.random((6, 8, 4)).astype(np.float32)
GT = np.arange(48).reshape(6, 8) % 3


@pytest.mark.parametrize(
    'content',
    [
        {'data': {'cube': CUBE, 'gt': GT}},
        {'outer': {'inner': {'cube': CUBE, 'gt': GT}}},
        {'cube': CUBE, 'gt': GT[:, :, None]},
        {'cube': CUBE, 'gt': GT[None]},
        {'cube': CUBE, 'gt': scipy.sparse.csc_matrix(GT)},
        {'hsi': CUBE, 'lidar': CUBE[:, :, 0], 'gt': GT.astype(np.float64)},
        {'cube': CUBE, 'gt': GT, 'labels': np.array(['a', 'b'], dtype=object)},
        {'cube': CUBE.transpose(2, 0, 1), 'gt': GT},
    ],
)
def test_what_matlab_files_hold(tmp_path: Path, content: dict[str, object]) -> None:
    scipy.io.savemat(tmp_path / 'x.mat', content, do_compression=True)
    scene = open_scene(tmp_path / 'x.mat')
    assert np.array_equal(scene.cube, CUBE)
    assert np.array_equal(scene.flat_labels(), GT.reshape(-1))


def test_fields_of_structures_are_named(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / 'x.mat', {'s': {'a': CUBE, 'b': CUBE + 1}})
    with pytest.raises(SceneFileError, match=r's/a \(6, 8, 4\), s/b \(6, 8, 4\). Name one with cube_key'):
        open_scene(tmp_path / 'x.mat')
    for key in ('s.b', 's/b'):
        assert np.array_equal(open_scene(tmp_path / 'x.mat', cube_key=key).cube, CUBE + 1)
    scipy.io.savemat(tmp_path / 'one.mat', {'cube': CUBE[:, :, 0], 'gt': GT})
    assert open_scene(tmp_path / 'one.mat').cube.shape == (6, 8, 1)


@pytest.mark.parametrize('name', ['a.mat', 'a.h5', 'a.hdf5'])
@pytest.mark.parametrize('shape', [(6, 8, 4), (5, 8, 5)])
def test_hdf5_of_others_is_not_turned(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    cube, labels = RNG.random(shape), np.ones(shape[:2], dtype=int)
    with h5py.File(tmp_path / name, 'w') as file:
        file['scene/cube'], file['scene/gt'] = cube, labels
        file['note'] = 'text'
    scene = open_scene(tmp_path / name)
    assert np.array_equal(scene.cube, cube)
    assert scene.class_ids == (1,)


def test_attributes_of_netcdf_and_of_airborne_products(tmp_path: Path) -> None:
    file, stored = tmp_path / 'masks' / 'x.h5', (CUBE * 5000).astype(np.int16)
    stored[0, 0] = -9999
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    with h5py.File(file, 'w') as archive:
        cube, labels = archive.create_dataset('cube', data=stored), archive.create_dataset('gt', data=GT.astype('u1'))
        cube.attrs.update(_FillValue=np.int16([-9999]), scale_factor=1e-4, add_offset=0.1)
        labels.attrs['_FillValue'] = np.uint8(2)
        archive['another'] = CUBE
    (tmp_path / 'images' / 'x.h5').write_bytes(file.read_bytes())
    scene, expected = open_scene(file), (stored * 1e-4 + 0.1).reshape(-1, 4)
    assert (~scene.valid).sum() == 1
    assert scene.class_ids == (1,)
    assert scene.spectra(np.arange(1, 48)) == pytest.approx(expected[1:], rel=1e-5)
    pair = PairFolder(tmp_path, ['a', 'b'])[0]
    assert pair['image'].permute(1, 2, 0).reshape(-1, 4)[1:].numpy() == pytest.approx(expected[1:], rel=1e-5)
    assert np.array_equal(pair['mask'] == 255, (GT == 2) | (np.arange(48).reshape(6, 8) == 0))
    with h5py.File(file, 'r+') as archive:
        archive['cube'].attrs['Scale_Factor'] = 1e4
    with pytest.raises(SceneFileError, match=r'Scale_Factor of 10000, which some .* give scale, such as 0.0001'):
        open_scene(file)
    with pytest.warns(UserWarning, match='scale 0.01 is used as given'):
        assert open_scene(file, scale=0.01).scale == 0.01


def test_text_units_and_bad_bands_in_hdf5(tmp_path: Path) -> None:
    file, names = tmp_path / 'x.h5', np.array(['', 'oak', 'ash'], dtype=object)[GT]
    with h5py.File(file, 'w') as archive:
        archive['cube'], archive['gt'] = CUBE, names
        archive['wavelength'] = [4500.0, 5500, 6500, 8500]
        archive['wavelength'].attrs['units'] = [b'Angstrom']  # as NumPy's bytes in a list, or as text
    scene = open_scene(file)
    assert scene.wavelengths.tolist() == [450, 550, 650, 850]
    assert scene.class_names == {1: 'ash', 2: 'oak'}
    assert np.array_equal(scene.labels == 2, GT == 1)
    with h5py.File(file, 'r+') as archive:
        archive['bbl'] = [1, 1, 0]
    with pytest.raises(SceneFileError, match=r'\(bbl\) has 3 values for 4 or 6 or 8 bands, 2 of them good; give bands'):
        open_scene(file)
    with h5py.File(file, 'w') as archive:
        archive['cube'] = np.zeros((6, 8), dtype=[('a', 'f4')])
    with pytest.raises(SceneFileError, match=r"nothing; cube \(6, 8\) of \('a',\) is not read"):
        open_scene(file)


@pytest.mark.parametrize('attributes', [True, False])
def test_hdf5_of_matlab_is_turned(tmp_path: Path, attributes: bool) -> None:
    file = tmp_path / 'm.mat'
    with h5py.File(file, 'w', userblock_size=512) as archive:
        archive['cube'], archive['gt'] = CUBE.transpose(), GT.T.astype(np.float64)
        if attributes:
            for name in ('cube', 'gt'):
                archive[name].attrs['MATLAB_class'] = np.bytes_('double')
    if not attributes:
        with file.open('r+b') as stream:
            stream.write(b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM')
    scene = open_scene(file)
    assert np.array_equal(scene.cube, CUBE)
    assert np.array_equal(scene.labels, GT)


def test_sparse_labels_of_matlab_73(tmp_path: Path) -> None:
    matrix = scipy.sparse.csc_matrix(GT)
    with h5py.File(tmp_path / 'm.mat', 'w') as archive:
        archive['cube'] = CUBE.transpose()
        archive['cube'].attrs['MATLAB_class'] = np.bytes_('single')
        group = archive.create_group('gt')
        group.attrs['MATLAB_sparse'] = np.uint64(6)
        group['data'], group['ir'], group['jc'] = matrix.data, matrix.indices, matrix.indptr
    assert np.array_equal(open_scene(tmp_path / 'm.mat').labels, GT)


def test_nothing_outside_an_hdf5_file_is_read(tmp_path: Path) -> None:
    (tmp_path / 'secret.bin').write_bytes(bytes(range(192)))
    with h5py.File(tmp_path / 'other.h5', 'w') as other:
        other['cube'] = CUBE
    layout = h5py.VirtualLayout((6, 8, 4), 'f4')
    layout[:] = h5py.VirtualSource(str(tmp_path / 'other.h5'), 'cube', (6, 8, 4))
    for name in ('external', 'link', 'soft', 'virtual'):
        with h5py.File(tmp_path / f'{name}.h5', 'w') as file:
            if name == 'external':
                file.create_dataset('cube', (6, 8, 4), 'u1', external=[(str(tmp_path / 'secret.bin'), 0, 192)])
            elif name == 'link':
                file['cube'] = h5py.ExternalLink(str(tmp_path / 'other.h5'), '/cube')
            elif name == 'soft':
                file['far'] = h5py.ExternalLink(str(tmp_path / 'other.h5'), '/')
                file['cube'] = h5py.SoftLink('/far/cube')
            else:
                file.create_virtual_dataset('cube', layout)
        with pytest.raises(SceneFileError, match=r'cube .* never (followed|read)'):
            open_scene(tmp_path / f'{name}.h5')


def test_what_declares_far_more_than_it_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hsiaug.records.PLAUSIBLE_BYTES', 1 << 20)
    with h5py.File(tmp_path / 'sparse.h5', 'w') as file:
        file.create_dataset('cube', (20_000, 20_000, 20), 'u1', chunks=(100, 100, 20))
    with h5py.File(tmp_path / 'chunk.h5', 'w') as file:
        file.create_dataset('cube', (8, 8, 4), 'u1', maxshape=(None, None, 4), chunks=(16_000, 16_000, 4))
    scipy.io.savemat(tmp_path / 'zeros.mat', {'cube': np.zeros((256, 256, 64), dtype=np.uint8)}, do_compression=True)
    for name in ('sparse.h5', 'chunk.h5', 'zeros.mat'):
        with pytest.raises(SceneFileError, match=r'declares .* MiB of values and holds'):
            open_scene(tmp_path / name)


def test_members_that_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / 'x.h5', 'w') as file:
        file['cube'] = CUBE
        file.create_dataset('huge', (2**40,), 'f8', chunks=(1024,))
    assert np.array_equal(open_scene(tmp_path / 'x.h5').cube, CUBE)
