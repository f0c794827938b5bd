"""Files as newcomers bring them: each is read right, or refused in words that say what to do."""

import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import scipy.io

from hsiaug import MixedDataset, SimulatedScene, SpectraDataset, fit_generator
from hsiaug.datasets.preview import rgb_bands
from hsiaug.scenes import (
    BadBandsError,
    BitemporalScene,
    RandomSplit,
    RareClassError,
    Scene,
    SceneFileError,
    open_library,
    open_scene,
)
from hsiaug.scenes.config import SceneConfig
from hsiaug.scenes.wavelengths import sentinel2_centres
from hsiaug.trainers import ClassifierConfig, training_data
from hsiaug.trainers.classifier import train_nn1d

RNG = np.random.default_rng(0)
CUBE = (RNG.random((6, 8, 4)) * 4000).astype(np.float32)
GT = np.arange(48).reshape(6, 8) % 3
TEXT = np.array(['', 'corn', 'alfalfa'])[GT]


@pytest.mark.parametrize(
    'held',
    [
        {'X': CUBE, 'y': GT},
        {'X': CUBE, 'Y': GT[:, :, None]},
        {'img': CUBE, 'GT': GT, 'mask': GT > 0},
        {'paviaU': CUBE, 'paviaU_gt': GT},
        {'data': CUBE, 'ground_truth': np.where(GT == 0, np.nan, GT)},
        {'cube': CUBE.transpose(2, 0, 1), 'target': GT.astype('>i2')},
        {'cube': np.asfortranarray(CUBE.astype('>f4')), 'label': np.asfortranarray(GT)},
        {'cube': CUBE, 'mask': CUBE > 0, 'y': GT},
    ],
)
@pytest.mark.parametrize('suffix', ['npz', 'mat'])
def test_usual_names_of_cube_and_labels(tmp_path: Path, held: dict[str, np.ndarray], suffix: str) -> None:
    file = tmp_path / f'x.{suffix}'
    if suffix == 'npz':
        np.savez(file, **held)
    else:
        scipy.io.savemat(file, {'scene': held})
    scene = open_scene(file)
    assert np.array_equal(scene.cube, CUBE)
    assert np.array_equal(scene.flat_labels(), GT.reshape(-1))


@pytest.mark.parametrize('text', [TEXT, TEXT.astype('S')])
def test_labels_in_words(tmp_path: Path, text: np.ndarray) -> None:
    np.savez(tmp_path / 'x.npz', cube=CUBE, gt=text)
    np.save(tmp_path / 'cube.npy', CUBE)
    np.save(tmp_path / 'gt.npy', text)
    for scene in (open_scene(tmp_path / 'x.npz'), open_scene(tmp_path / 'cube.npy', tmp_path / 'gt.npy')):
        assert scene.class_names == {1: 'alfalfa', 2: 'corn'}
        assert np.array_equal(scene.labels, np.array([0, 2, 1])[GT])


def test_tables_of_spectra(tmp_path: Path) -> None:
    table, labels = CUBE.reshape(-1, 4), GT.reshape(-1)
    np.savez(tmp_path / 'x.npz', X=table, y=labels)
    scipy.io.savemat(tmp_path / 'x.mat', {'X': table, 'y': labels})  # (1, N) there
    np.savez(tmp_path / 'wavelengths.npz', data=table, wavelengths=[400, 500, 600, 700])
    for file in ('x.npz', 'x.mat'):
        scene = open_scene(tmp_path / file)
        assert np.array_equal(scene.cube, table[:, None])
        assert np.array_equal(scene.flat_labels(), labels)
    assert open_scene(tmp_path / 'wavelengths.npz').cube.shape == (48, 1, 4)
    np.savez(tmp_path / 'x.npz', X=table, y=np.array(['', 'b', 'a'])[labels])
    assert np.array_equal(open_library(tmp_path / 'x.npz', 'y').flat_labels(), np.array([0, 2, 1])[labels])
    np.save(tmp_path / 'x.npy', table)
    with pytest.raises(SceneFileError, match=r"may be one band \(H, W\), or 48 spectra of 4 bands.*layout='hwc'"):
        open_scene(tmp_path / 'x.npy')


@pytest.mark.parametrize(
    ('held', 'message'),
    [
        ({'cube': CUBE, 'gt': np.eye(3)[GT]}, r"'gt' must be 2-D, found shape \(6, 8, 3\); of one-hot labels, save"),
        ({'cube': CUBE, 'gt': TEXT.astype(object)}, "'gt' holds Python objects, which are never read"),
        ({'cube': CUBE.astype(object)}, r'cube \(6, 8, 4\) of object.*Python objects are never read'),
        ({'cube': CUBE.astype(complex)}, r'it holds: cube \(6, 8, 4\) of complex128'),
        ({'cube': CUBE[:0]}, r'shape \(0, 8, 4\), and so no values'),
        ({'cube': CUBE[..., :0]}, r'shape \(6, 8, 0\), and so no values'),
        ({'cube': np.array(1.0)}, r'it holds: cube \(\)'),
        ({'cube': CUBE, 'gt': GT.T}, r'labels of shape \(8, 6\) do not fit .* \(transposed\?\)'),
        ({'cube': CUBE, 'gt': np.ones((12, 16), int)}, r'labels of shape \(12, 16\) do not fit a cube of 6 x 8'),
        ({'cube': RNG.random((30, 80, 70))}, r"give layout='hwc' or layout='chw'"),
        ({'cube': RNG.random((60, 20, 20))}, r"give layout='hwc' or layout='chw'"),
    ],
)  # fmt: skip
def test_what_is_refused_in_npz(tmp_path: Path, held: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / 'x.npz', **held)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        open_scene(tmp_path / 'x.npz')


def test_what_is_refused_in_mat(tmp_path: Path) -> None:
    cells = np.empty(2, dtype=object)
    cells[:] = [CUBE, GT]
    both = np.array([(CUBE, GT), (CUBE, GT)], dtype=[('cube', 'O'), ('gt', 'O')])
    for held, message in (
        ({'s': {'a': CUBE, 'b': CUBE}}, r's/a \(6, 8, 4\), s/b \(6, 8, 4\). Name one with cube_key'),
        ({'s': cells}, r's is a cell array \(1, 2\), which is not read'),
        ({'s': both}, r's is a struct array \(1, 2\), which is not read'),
        ({'cube': CUBE.astype(np.complex64)}, "'cube' holds complex numbers; save their magnitude"),
    ):
        scipy.io.savemat(tmp_path / 'x.mat', held)
        with pytest.raises(SceneFileError, match=message):
            open_scene(tmp_path / 'x.mat')


def test_arrays_that_may_be_labels_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / 'x.npz', cube=CUBE, classmap=GT)
    with pytest.warns(
        UserWarning, match=r'no labels are read; if any of classmap \(6, 8\) holds them, say so: labels_'
    ):
        assert open_scene(tmp_path / 'x.npz').labels is None
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert open_scene(tmp_path / 'x.npz', labels_key='classmap').class_ids == (1, 2)
        assert SceneConfig(str(tmp_path / 'x.npz'), labels_key='classmap')().class_ids == (1, 2)
        np.savez(tmp_path / 'x.npz', cube=CUBE, wavelengths=np.arange(4) + 400.5, x=np.arange(8.0))
        open_scene(tmp_path / 'x.npz')


def test_wavelengths_in_micrometres_and_words_unsorted_and_repeated(tmp_path: Path) -> None:
    for held, expected in (
        ([0.7, 0.5, 0.6, 0.4], [700, 500, 600, 400]),
        ([[0.5], [0.5], [0.6], [0.7]], [500, 500, 600, 700]),
        (['400 nm', '500 nm', '600 nm', '700 nm'], [400, 500, 600, 700]),
    ):
        np.savez(tmp_path / 'x.npz', cube=CUBE, wavelengths=np.array(held))
        assert open_scene(tmp_path / 'x.npz').wavelengths == pytest.approx(expected)


@pytest.mark.parametrize('suffix', ['npy', 'npz', 'mat', 'h5', 'tif', 'hdr', 'csv'])
@pytest.mark.parametrize('content', [b'', b'text', pickle.dumps([1, 2])])
def test_files_that_are_none(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f'x.{suffix}'
    file.write_bytes(content)
    with pytest.raises(SceneFileError) as caught:
        open_scene(file)
    assert 'allow_pickle' not in str(caught.value)


@pytest.mark.parametrize('suffix', ['npy', 'npz', 'mat'])
def test_torn_files(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f'x.{suffix}'
    {'npy': np.save, 'npz': lambda f, c: np.savez(f, cube=c)}.get(
        suffix, lambda f, c: scipy.io.savemat(f, {'cube': c})
    )(file, CUBE)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(SceneFileError, match='Is it complete, and of that format'):
        open_scene(file)


def test_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / 'PaviaU.npy', CUBE)
    with pytest.raises(FileNotFoundError, match=r"paviau.npy does not exist; did you mean 'PaviaU.npy'\?"):
        open_scene(tmp_path / 'paviau.npy')
    with pytest.raises(FileNotFoundError, match=r'is a folder; name one of its files: .*PaviaU.npy'):
        open_scene(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'labels file .* is a folder'):
        open_scene(tmp_path / 'PaviaU.npy', tmp_path)
    with pytest.raises(FileNotFoundError, match='nor does the folder'):
        open_scene(tmp_path / 'other' / 'x.npy')
    (tmp_path / 'dead.npy').symlink_to('gone.npy')
    with pytest.raises(FileNotFoundError, match=r'dead.npy is a link to gone.npy, which does not exist'):
        open_scene(tmp_path / 'dead.npy')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert open_scene('~/PaviaU.npy').cube.shape == CUBE.shape


def test_a_scene_is_one_line() -> None:
    scene = SimulatedScene(20, 30)
    assert repr(scene) == (
        "SimulatedScene('simulated': 20 x 30 pixels, 100 bands 400-2500 nm, 9 classes in 600 labelled pixels, float32, "
        'reflectance)'
    )
    assert repr(Scene('x', CUBE, bands=np.arange(3))) == "Scene('x': 6 x 8 pixels, 3 of 4 bands, no labels, float32)"
    two = BitemporalScene.from_simulated(SimulatedScene(20, 30, dates=2))
    assert repr(two).startswith("BitemporalScene('simulated': 20 x 30 pixels, 200 bands")


def test_bad_bands_are_one_line() -> None:
    cube = RNG.random((5, 5, 50))
    cube[..., 3:40], cube[..., 45], cube[..., 47:49] = np.arange(37), 2, np.nan
    with pytest.raises(BadBandsError, match=r': 3-39, 45 \(constant 0 and others\), 47-48 \(no data\)'):
        Scene('x', cube).checked()


def test_sentinel_2_bands_are_known_by_their_names(tmp_path: Path) -> None:
    names = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12')
    with rasterio.open(
        tmp_path / 's2.tif', 'w', driver='GTiff', width=4, height=4, count=13, dtype='uint16'
    ) as file:  # fmt: skip
        file.write(RNG.integers(1, 4000, (13, 4, 4)).astype(np.uint16))
        file.descriptions = names
    scene = open_scene(tmp_path / 's2.tif')
    spec = scene.spec(kind='segmentation', size=(4, 4))
    assert spec.wavelengths_approximate
    assert [names[band] for band in rgb_bands(13, spec.wavelengths)] == ['B04', 'B03', 'B02']
    assert sentinel2_centres(('B01', 'B02', 'B03', 'B04', 'B05', 'B06')) is None  # as well Landsat's, in HLS
    assert sentinel2_centres((None, 'B04')) is None


def test_a_generator_without_labels(tmp_path: Path) -> None:
    scene = SimulatedScene(24, 24, wavelengths=np.arange(450, 850, 50.0))
    np.save(tmp_path / 'x.npy', scene.cube)
    with pytest.raises(ValueError, match=r'scene.as_one_class\(\), in a config scene.one_class: true'):
        RandomSplit(fraction=0.3)(open_scene(tmp_path / 'x.npy'))
    one = SceneConfig(str(tmp_path / 'x.npy'), one_class=True)()
    split = RandomSplit(fraction=0.3)(one)
    with pytest.raises(RareClassError, match='fewer than two classes are left'):  # one that its labels name is no such
        RandomSplit(fraction=0.3)(replace(one, class_names={1: 'corn'}))
    data = training_data(one, split)
    gan = fit_generator('spectral_gan', data, {'conditional': False, 'iterations': 20})
    real = SpectraDataset(one, split, 'train')
    assert gan.spec.classes == ('unlabelled',)
    assert len(MixedDataset(real, gan, ratio=0.5)) == len(real) + round(0.5 * len(real))
    with pytest.raises(ValueError, match='two classes or more are needed'):
        train_nn1d(real, ClassifierConfig(steps=10))
    with pytest.raises(ValueError, match='one_class is for scenes of one date'):
        SceneConfig(simulated={'dates': 2}, one_class=True)()


def test_a_list_of_names_is_not_guessed_at(tmp_path: Path) -> None:
    cube, labels = np.random.default_rng(0).random((4, 5, 3)), np.arange(20).reshape(4, 5) % 2 + 1
    np.savez(tmp_path / 'x.npz', cube=cube, labels=labels)
    with pytest.raises(ValueError, match=r'found list; give dict\(enumerate\(names, 1\)\)'):
        open_scene(tmp_path / 'x.npz', class_names=['soil', 'wheat'])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='a mapping of class id to name, found tuple'):
        Scene('x', cube, labels, ('soil', 'wheat'))  # type: ignore[arg-type]
    names = dict(enumerate(('soil', 'wheat'), 1))
    assert open_scene(tmp_path / 'x.npz', class_names=names).class_name(2) == 'wheat'
