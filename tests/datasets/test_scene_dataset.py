from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_scene
from rasters import write_raster
from torch.utils.data import DataLoader
from torchgeo.datasets import DatasetNotFoundError
from toys import Toy, keys_of

from hsiaug.datasets import MixedDataset, SceneDataset, SceneFolder, scene_dataset
from hsiaug.datasets.real.class_patches import class_patches
from hsiaug.samples import LeakageError, SampleSpec
from hsiaug.scenes import LabelledPatchSplitter, PatchSplitter, Scene
from hsiaug.scenes.patches import PARTS
from hsiaug.trainers import fit_generator, training_data

SPLITTER = LabelledPatchSplitter(size=8, patch=4, patch_stride=2, block=8, min_labelled=0.1)


@pytest.fixture(scope='module')
def scene() -> Scene:
    return make_scene(48, 40)


def held(n: int = 12, seed: int = 0) -> SceneDataset:
    toy = Toy('scene', n, seed)
    return SceneDataset(toy.data['image'], toy.data['label'], toy.spec)


# --- in memory ------------------------------------------------------------------------------------------------------


def test_patches_of_a_scene_hold_its_pixels(scene: Scene) -> None:
    split = SPLITTER(scene, 0)
    for part in PARTS:
        data = SceneDataset.from_scene(scene, split, part)
        corners, labels = split.patches(part)
        assert data.spec == scene.spec(split.classes, 'scene', (4, 4))
        assert data.labels.tolist() == labels.tolist()
        assert data.class_counts.tolist() == np.bincount(labels).tolist()
        for image, (row, column) in zip(data.image, corners, strict=True):
            window = scene.cube[row : row + 4, column : column + 4].transpose(2, 0, 1)
            assert np.array_equal(image.numpy(), window.astype(np.float32))
    assert isinstance(scene_dataset(scene, split, 'val'), SceneDataset)
    with pytest.raises(ValueError, match='a PatchSplit holds no labelled patches'):
        SceneDataset.from_scene(scene, PatchSplitter(size=8, block=8)(scene))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='SceneDataset: the split was made for scene'):
        SceneDataset.from_scene(make_scene(48, 40, seed=5), split)


def test_unmeasured_pixels_hold_the_mean_of_the_others(scene: Scene) -> None:
    cube = np.array(scene.cube)
    cube[::5, ::7] = np.nan
    gappy = replace(scene, cube=cube)
    data = SceneDataset.from_scene(gappy, SPLITTER(gappy, 0))
    assert torch.isfinite(data.image).all()
    (row, column), image = data.split.patches('train')[0][0], data.image[0]  # type: ignore[union-attr]
    window = cube[row : row + 4, column : column + 4].reshape(16, -1)
    filled = np.where(np.isnan(window), np.nanmean(window, axis=0), window)
    assert image.reshape(12, 16).T.numpy() == pytest.approx(filled, rel=1e-5)


def test_training_data_keeps_the_footprint_of_the_split(scene: Scene) -> None:
    split = SPLITTER(scene, 0)
    data, test = training_data(scene, split), SceneDataset.from_scene(scene, split, 'test')
    assert data.spec.kind == 'scene'
    assert (len(data.x), len(data.val_x)) == tuple(len(split.patches(part)[1]) for part in PARTS[:2])
    assert not set(keys_of(data.x)) & set(keys_of(test.image))
    assert data.provenance is not None
    assert data.provenance.split == split.fingerprint
    gan = fit_generator('patch_gan', data, {'iterations': 2})
    mixed = MixedDataset(SceneDataset.from_scene(scene, split), gan, 1.0)
    assert len(mixed) == 2 * len(data.x)
    swapped = replace(split, train=split.test_windows, test_windows=split.train)
    with pytest.raises(LeakageError, match='has seen'):
        MixedDataset(SceneDataset.from_scene(scene, swapped), gan, 1.0)


def test_samples_and_mixing() -> None:
    data, other = held(), held(24, seed=1)
    assert [int(sample['label']) for sample in data.__getitems__([1, 2])] == data.label[1:3].tolist()
    mixed = MixedDataset(data, other, 0.5, labels='uniform')
    seen = next(iter(DataLoader(mixed, batch_size=len(mixed))))
    assert seen['synthetic'].sum() == 6
    assert torch.bincount(seen['label'][seen['synthetic']]).tolist() == [2, 2, 2]
    assert set(keys_of(seen['image'])) <= {*keys_of(data.image), *keys_of(other.image)}


def test_class_patches() -> None:
    pairs = Toy('segmentation', 3)
    cut = SceneDataset(*class_patches(pairs.data['image'], pairs.data['mask'], pairs.spec, 4))
    assert cut.spec.size == (4, 4)


def test_plots_name_the_classes() -> None:
    data = held()
    figure = data.plot({**data[0], 'prediction': torch.tensor(2)}, suptitle='one')
    assert figure.axes[0].get_title() == f'{data.spec.classes[int(data.label[0])]}, predicted c'
    assert 'classes' in str(data)


# --- folders --------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
IMAGES = {
    name: {f'{name}{i}': RNG.integers(1, 4000, (6, 5, 4)).astype(np.uint16) for i in range(n)}
    for name, n in (('beach', 2), ('town', 3))
}


def write(root: Path, suffix: str = '.npy') -> Path:
    for name, images in IMAGES.items():
        (root / name).mkdir(parents=True)
        for stem, value in images.items():
            if suffix == '.npy':
                np.save(root / name / f'{stem}.npy', value)
            else:
                write_raster(root / name / f'{stem}{suffix}', value)
    return root


@pytest.mark.parametrize('suffix', ['.npy', '.tif', '.png'])
def test_a_folder_per_class(tmp_path: Path, suffix: str) -> None:
    (write(tmp_path, suffix) / 'town' / 'readme.txt').write_text('no image')
    folder = SceneFolder(tmp_path, scale=0.5, unit='reflectance', wavelengths=[400, 500, 600, 700])
    wavelengths = (400.0, 500.0, 600.0, 700.0)
    assert folder.spec == SampleSpec('scene', 4, ('beach', 'town'), wavelengths, size=(6, 5), unit='reflectance')
    assert folder.labels.tolist() == [0, 0, 1, 1, 1]
    assert folder.class_counts.tolist() == [2, 3]
    stored = [value for images in IMAGES.values() for value in images.values()]
    for index, value in enumerate(stored):
        assert np.array_equal(folder[index]['image'].numpy(), value.transpose(2, 0, 1) * np.float32(0.5))
    data = SceneDataset.from_dataset(folder)
    assert (data.spec, data.labels.tolist()) == (folder.spec, [0, 0, 1, 1, 1])
    as_source = MixedDataset(held_like(data), folder, 1.0, labels={'town': 1.0}, replacement=True).batch(range(4))
    assert as_source['label'][2:].tolist() == [1, 1]


def held_like(data: SceneDataset) -> SceneDataset:
    return SceneDataset(data.image[:2] + 1, data.label[:2], data.spec)


def test_splits_chosen_classes_and_bands(tmp_path: Path) -> None:
    write(tmp_path / 'train')
    folder = SceneFolder(tmp_path, classes=('town', 'beach'), split='train', bands=[3, 1])
    assert folder.labels.tolist() == [0, 0, 0, 1, 1]
    assert np.array_equal(folder[0]['image'].numpy(), IMAGES['town']['town0'].transpose(2, 0, 1)[[3, 1]])
    assert SceneFolder(tmp_path, classes=('town',), split='train').spec.classes == ('town',)


def test_jpeg_and_nodata(tmp_path: Path) -> None:
    (tmp_path / 'a').mkdir()
    picture = np.full((16, 16, 3), 90, dtype=np.uint8)
    write_raster(tmp_path / 'a' / 'x.jpg', picture)
    image = SceneFolder(tmp_path)[0]['image']
    assert image.shape == (3, 16, 16)
    assert (image - 90).abs().max() <= 2
    value = IMAGES['town']['town0'].copy()
    value[2, 1] = 65535
    (tmp_path / 'b' / 'c').mkdir(parents=True)
    write_raster(tmp_path / 'b' / 'c' / 'x.tif', value, nodata=65535)
    filled = SceneFolder(tmp_path / 'b')[0]['image']
    kept = np.ones((6, 5), dtype=bool)
    kept[2, 1] = False
    assert filled[:, 2, 1].numpy() == pytest.approx(value[kept].mean(axis=0), rel=1e-5)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / 'town' / 'z.npy', np.zeros((6, 5, 3), dtype=np.uint16))
    folder = SceneFolder(tmp_path)
    with pytest.raises(ValueError, match=r'z.npy has \(6, 5, 3\) .* the first image has \(6, 5, 4\)'):
        folder[5]
    np.save(tmp_path / 'town' / 'z.npy', np.zeros((7, 5, 4), dtype=np.uint16))
    with pytest.raises(ValueError, match=r'z.npy has \(7, 5, 4\)'):
        SceneDataset.from_dataset(folder)
    (tmp_path / 'wood').mkdir()
    with pytest.raises(ValueError, match=r"in the class folders \['wood'\] of .*; leave these out of classes"):
        SceneFolder(tmp_path)
    with pytest.raises(DatasetNotFoundError, match=r"no folders \['sea'\] in .*'beach', 'town', 'wood'"):
        SceneFolder(tmp_path, classes=('town', 'sea'))
    with pytest.raises(DatasetNotFoundError, match=r'no folder .*absent; it should hold a folder per class'):
        SceneFolder(tmp_path, split='absent')
    with pytest.raises(ValueError, match='no images with'):
        SceneFolder(tmp_path / 'wood')
    with pytest.raises(ValueError, match='SceneFolder: 4 bands in a file, but 2 wavelengths'):
        SceneFolder(tmp_path, classes=('town',), wavelengths=[400, 500])


def test_real_pictures(real_data: Path) -> None:
    folder = SceneFolder(real_data / 'rsscn7', scale=1 / 255)
    assert (folder.spec.bands, folder.spec.size, len(folder)) == (3, (400, 400), 84)
    assert folder.class_counts.tolist() == [12] * 7
    image = folder[0]['image']
    assert 0 <= float(image.min()) < float(image.max()) <= 1
