from pathlib import Path

import numpy as np
import pytest
import torch
from rasterio.transform import from_origin
from rasters import write_raster
from torchgeo.datasets import DatasetNotFoundError

from hsiaug.datasets import IGNORE, MixedDataset, PairFolder, PatchDataset
from hsiaug.samples import SampleSpec

RNG = np.random.default_rng(0)
CLASSES = ('water', 'forest', 'town')
STEMS = ('a', 'b.1', 'c', 'd')
IMAGES = {stem: RNG.integers(1, 4000, (6, 5, 4)).astype(np.uint16) for stem in STEMS}
MASKS = {stem: RNG.integers(0, 3, (6, 5)).astype(np.uint8) for stem in STEMS}


def save(file: Path, value: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == '.npy':
        np.save(file, value)
    elif file.suffix == '.npz':
        np.savez(file, value)
    else:
        write_raster(file, value)


def write(root: Path, images: str = 'img', masks: str = 'label', kinds: tuple[str, str] = ('.tif', '.tif')) -> Path:
    for stem in STEMS:
        save(root / images / f'{stem}{kinds[0]}', IMAGES[stem])
        save(root / masks / f'{stem}{kinds[1]}', MASKS[stem])
    return root


@pytest.mark.parametrize(
    ('images', 'masks', 'kinds'),
    [('img', 'label', ('.tif', '.tif')), ('images', 'Masks', ('.npy', '.npz')), ('image', 'labels', ('.npz', '.png'))],
)
def test_pairs_of_every_layout_and_format(tmp_path: Path, images: str, masks: str, kinds: tuple[str, str]) -> None:
    (tmp_path / 'other').mkdir()
    folder = PairFolder(write(tmp_path, images, masks, kinds), CLASSES, scale=0.5, unit='reflectance')
    assert folder.spec == SampleSpec('segmentation', 4, CLASSES, size=(6, 5), ignore_index=IGNORE, unit='reflectance')
    assert len(folder) == 4
    for index, stem in enumerate(STEMS):
        sample = folder[index]
        assert (sample['image'].dtype, sample['mask'].dtype) == (torch.float32, torch.int64)
        assert np.array_equal(sample['image'].numpy(), IMAGES[stem].transpose(2, 0, 1) * np.float32(0.5))
        assert np.array_equal(sample['mask'].numpy(), MASKS[stem])


def test_bands_and_wavelengths(tmp_path: Path) -> None:
    folder = PairFolder(write(tmp_path), CLASSES, bands=[3, 0], wavelengths=[0.4, 0.5, 0.6, 0.7])
    assert folder.spec.bands == 2
    assert folder.spec.wavelengths == pytest.approx((700, 400))
    assert np.array_equal(folder[1]['image'].numpy(), IMAGES['b.1'].transpose(2, 0, 1)[[3, 0]])
    with pytest.raises(ValueError, match=r'bands must be indices in \[0, 4\), found \[4\]'):
        PairFolder(tmp_path, CLASSES, bands=[4])
    with pytest.raises(ValueError, match='4 bands in a file, but 3 wavelengths'):
        PairFolder(tmp_path, CLASSES, wavelengths=[400, 500, 600])


def test_files_must_agree_on_what_they_say(tmp_path: Path) -> None:
    write(tmp_path, kinds=('.npz', '.npy'))
    for stem, first in (('a', 450), ('b.1', 450), ('c', 460)):
        centres = np.arange(4) * 50.0 + first
        np.savez(tmp_path / 'img' / f'{stem}.npz', cube=IMAGES[stem], wavelengths=centres, bbl=[1, 1, stem == 'a', 1])
    folder = PairFolder(tmp_path, CLASSES)
    assert folder[0]['image'].shape[0] == 4
    with pytest.raises(ValueError, match=r'b.1.npz marks the bands \[2\] as bad, the first image does not'):
        folder[1]
    with pytest.raises(ValueError, match=r'c.npz: its wavelength of band 0 is 460 nm, that of the first sample 450 nm'):
        folder[2]
    assert PairFolder(tmp_path, CLASSES, wavelengths=[1, 2, 3, 5], bands=[0, 2])[2]['image'].shape[0] == 2


def test_masks_of_another_place_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    save(tmp_path / 'label' / 'a.tif', MASKS['a'])
    write_raster(tmp_path / 'label' / 'b.1.tif', MASKS['b.1'], transform=from_origin(20, 0, 1, 1))
    folder = PairFolder(tmp_path, CLASSES)
    assert np.array_equal(folder[0]['mask'].numpy(), MASKS['a'])
    with pytest.raises(ValueError, match=r'b.1.tif and .*b.1.tif do not show one place: .* 20.0 pixels apart'):
        folder[1]


def test_names_that_file_systems_and_editors_make(tmp_path: Path) -> None:
    save(tmp_path / 'img' / 'a\N{COMBINING DIAERESIS}.npy', IMAGES['a'])
    save(tmp_path / 'label' / '\N{LATIN SMALL LETTER A WITH DIAERESIS}.npy', MASKS['a'])
    (tmp_path / 'train.txt').write_text('\ufeffa\N{COMBINING DIAERESIS}.npy\r\n', encoding='utf-8')
    assert len(PairFolder(tmp_path, CLASSES, split='train')) == 1
    write_raster(tmp_path / 'img' / 'j.jp2', IMAGES['c'], driver='JP2OpenJPEG', QUALITY='100', REVERSIBLE='YES')
    save(tmp_path / 'label' / 'j.npy', MASKS['c'])
    write_raster(tmp_path / 'img' / 'envi', IMAGES['b.1'])
    save(tmp_path / 'label' / 'envi.npy', MASKS['b.1'])
    found = [PairFolder(tmp_path, CLASSES)[k]['image'].permute(1, 2, 0).numpy() for k in range(2)]
    assert np.array_equal(found, [IMAGES['b.1'], IMAGES['c']])
    (tmp_path / 'img' / 'gone.npy').symlink_to(tmp_path / 'nowhere.npy')
    with pytest.raises(ValueError, match=r'gone.npy has no file of that stem'):
        PairFolder(tmp_path, CLASSES)


def test_nodata_is_filled_and_ignored(tmp_path: Path) -> None:
    write(tmp_path)
    value = IMAGES['a'].copy()
    value[2, 1, 3] = 65535
    (tmp_path / 'img' / 'a.tif').unlink()
    write_raster(tmp_path / 'img' / 'a.tif', value, nodata=65535)
    np.save(tmp_path / 'img' / 'c.npy', np.where(np.arange(4) == 1, np.nan, IMAGES['c']))
    (tmp_path / 'img' / 'c.tif').unlink()
    folder = PairFolder(tmp_path, CLASSES)
    one, none = folder[0], folder[2]
    kept = np.ones((6, 5), dtype=bool)
    kept[2, 1] = False
    assert one['mask'][2, 1] == IGNORE
    assert np.array_equal(one['mask'].numpy()[kept], MASKS['a'][kept])
    assert one['image'][:, 2, 1].numpy() == pytest.approx(value[kept].mean(axis=0), rel=1e-5)
    assert (none['mask'] == IGNORE).all()
    assert (none['image'] == 0).all()
    fractions = folder.class_fractions()
    assert fractions[2].tolist() == [0, 0, 0]
    assert fractions[0].numpy() == pytest.approx(np.bincount(MASKS['a'][kept], minlength=3) / 29)
    assert (
        folder.class_counts.tolist()
        == sum(
            np.bincount(m, minlength=3) for m in (MASKS['a'][kept], MASKS['b.1'].ravel(), MASKS['d'].ravel())
        ).tolist()
    )  # type: ignore[union-attr]
    given = PairFolder(tmp_path, CLASSES, nodata=float(value[0, 0, 0]))
    assert given[0]['mask'][0, 0] == IGNORE
    assert given[0]['mask'][2, 1] != IGNORE


def test_fractions_read_the_files_once(tmp_path: Path) -> None:
    folder = PairFolder(write(tmp_path), CLASSES)
    first = folder.class_fractions()
    for file in (tmp_path / 'label').iterdir():
        file.unlink()
    assert torch.equal(folder.class_fractions(), first)
    assert folder.class_counts.sum() == 4 * 30


def test_label_map_and_ignored_values(tmp_path: Path) -> None:
    write(tmp_path)
    folder = PairFolder(tmp_path, ('land', 'water'), label_map={0: 1, 2: 0}, ignore=[1])
    expected = np.array([1, IGNORE, 0])[MASKS['d']]
    assert np.array_equal(folder[3]['mask'].numpy(), expected)
    counts = np.array([(MASKS['d'] == 2).sum(), (MASKS['d'] == 0).sum()])
    assert folder.class_fractions()[3].numpy() == pytest.approx(counts / counts.sum())
    plain = PairFolder(tmp_path, CLASSES, ignore=[0])
    assert np.array_equal(plain[3]['mask'].numpy(), np.array([IGNORE, 1, 2])[MASKS['d']])
    with pytest.raises(ValueError, match=r'd.tif holds \[2\], expected \[0, 1\]; map such values .* in ignore'):
        PairFolder(tmp_path, CLASSES[:2])[3]
    with pytest.raises(ValueError, match=r'label_map must map numbers to 0..1, the classes, found \{2: 2\}'):
        PairFolder(tmp_path, ('land', 'water'), label_map={0: 1, 2: 2})
    with pytest.raises(ValueError, match=r'label_map and ignore both name \[1\]'):
        PairFolder(tmp_path, CLASSES, label_map={1: 1}, ignore=[1])


def test_splits_by_list_or_folder(tmp_path: Path) -> None:
    write(tmp_path / 'listed')
    (tmp_path / 'listed' / 'train.txt').write_text('c.tif\nimg/a.tif\n\nb.1\n')
    listed = PairFolder(tmp_path / 'listed', CLASSES, split='train')
    assert [image.stem for image, _ in listed.pairs] == ['c', 'a', 'b.1']
    assert np.array_equal(listed[0]['mask'].numpy(), MASKS['c'])
    write(tmp_path / 'inner', 'images/val', 'masks/val')
    assert len(PairFolder(tmp_path / 'inner', CLASSES, split='val')) == 4
    write(tmp_path / 'outer' / 'test')
    assert len(PairFolder(tmp_path / 'outer', CLASSES, split='test')) == 4
    with pytest.raises(DatasetNotFoundError, match=r"no split 'val': neither a list .*val.txt, nor folders"):
        PairFolder(tmp_path / 'listed', CLASSES, split='val')
    (tmp_path / 'listed' / 'val.txt').write_text('z\n')
    with pytest.raises(ValueError, match=r"'z' of the split 'val' has no file of that stem in .*img and .*label"):
        PairFolder(tmp_path / 'listed', CLASSES, split='val')


def test_lists_as_editors_and_other_tools_write_them(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / 'list').mkdir()
    (tmp_path / 'list' / 'train.txt').write_bytes(b'c\r\na.tif\r\nc\r\n')
    folder = PairFolder(tmp_path, CLASSES, split='train')
    assert [image.stem for image, _ in folder.pairs] == ['c', 'a', 'c']
    with pytest.raises(TypeError, match='PairFolder: whole numbers are expected as indices'):
        folder[0:2]  # type: ignore[index]
    (tmp_path / 'val.txt').write_text('c', encoding='utf-16')
    with pytest.raises(ValueError, match=r'val.txt is not a text in UTF-8'):
        PairFolder(tmp_path, CLASSES, split='val')
    for file in (tmp_path / 'label').iterdir():
        file.rename(file.with_suffix('.jpg'))
    with pytest.raises(ValueError, match=r"label, which holds \['a.jpg', .* masks not as JPEG"):
        PairFolder(tmp_path, CLASSES)
    with pytest.raises(DatasetNotFoundError, match=r"has no images, .* it holds \['train'\]; name .* or give split="):
        PairFolder(write(tmp_path / 'a' / 'train').parent, CLASSES)


def test_missing_partners_and_folders_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / 'label' / 'c.tif').unlink()
    with pytest.raises(ValueError, match=r'img.c.tif has no file of that stem in .*label'):
        PairFolder(tmp_path, CLASSES)
    write(tmp_path)
    (tmp_path / 'img' / 'c.tif').unlink()
    with pytest.raises(ValueError, match=r'label.c.tif has no file of that stem in .*img'):
        PairFolder(tmp_path, CLASSES)
    write(tmp_path)
    np.save(tmp_path / 'img' / 'c.npy', IMAGES['c'])
    with pytest.raises(ValueError, match=r'c.npy and .*c.tif have the same stem'):
        PairFolder(tmp_path, CLASSES)
    (tmp_path / 'img' / 'c.npy').unlink()
    (tmp_path / 'images').mkdir()
    with pytest.raises(ValueError, match=r"\['images', 'img'\] in .* could all be the images; name one with images="):
        PairFolder(tmp_path, CLASSES)
    assert len(PairFolder(tmp_path, CLASSES, images='img')) == 4
    with pytest.raises(
        DatasetNotFoundError, match=r"has no masks, no folder nowhere; it holds .*'images', 'img', 'label'"
    ):
        PairFolder(tmp_path, CLASSES, images='img', masks='nowhere')
    with pytest.raises(DatasetNotFoundError, match=r'no folder .*absent; it should hold a folder of images'):
        PairFolder(tmp_path / 'absent', CLASSES)
    (tmp_path / 'label' / 'empty').mkdir()
    (tmp_path / 'images' / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'no image files in .*empty, which holds \[\], or none'):
        PairFolder(tmp_path, CLASSES, split='empty', images='images')


def test_other_sizes_and_bands_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    write_raster(tmp_path / 'img' / 'c.tif', IMAGES['c'][:, :, :3])
    write_raster(tmp_path / 'label' / 'd.tif', MASKS['d'][:4])
    folder = PairFolder(tmp_path, CLASSES)
    with pytest.raises(ValueError, match=r'c.tif has \(6, 5, 3\) .* the first image has \(6, 5, 4\)'):
        folder[2]
    with pytest.raises(ValueError, match=r'd.tif has \(4, 5\), its image \(6, 5\) rows and columns'):
        folder[3]
    write_raster(tmp_path / 'label' / 'd.tif', np.repeat(MASKS['d'][:, :, None], 3, axis=2))
    with pytest.raises(ValueError, match=r'0 arrays could be the mask \(2-D\)'):
        folder[3]


def pair(root: Path, image: np.ndarray, mask: np.ndarray, kinds: tuple[str, str] = ('.npy', '.npy')) -> Path:
    save(root / 'images' / f'a{kinds[0]}', image)
    save(root / 'masks' / f'a{kinds[1]}', mask)
    return root


@pytest.mark.parametrize(
    ('mask', 'ignored'),
    [
        (np.where(MASKS['a'] == 2, -1, MASKS['a'].astype(np.int16)), 2),
        (np.where(MASKS['a'] == 2, np.nan, MASKS['a']), 2),
        (np.where(MASKS['a'] == 2, 2**64 - 1, MASKS['a'].astype(np.uint64)), 2),
        (MASKS['a'][:, :, None], None),
        (MASKS['a'][None].astype(np.float32), None),
    ],
)
def test_masks_of_every_kind(tmp_path: Path, mask: np.ndarray, ignored: int | None) -> None:
    folder = PairFolder(pair(tmp_path, IMAGES['a'], mask), CLASSES)
    expected = np.where(MASKS['a'] == ignored, IGNORE, MASKS['a']) if ignored else MASKS['a']
    assert np.array_equal(folder[0]['mask'].numpy(), expected)
    assert np.array_equal(PairFolder(tmp_path, CLASSES, label_map={0: 0, 1: 1, 2: 2, -1: 1}, ignore=[7])[0]['mask'],
                          np.where(mask.reshape(6, 5) == -1, 1, expected))  # fmt: skip


def test_nodata_of_masks(tmp_path: Path) -> None:
    save(tmp_path / 'images' / 'a.tif', IMAGES['a'])
    (tmp_path / 'masks').mkdir()
    write_raster(tmp_path / 'masks' / 'a.tif', np.where(MASKS['a'] == 2, 200, MASKS['a']).astype(np.uint8), nodata=200)
    folder = PairFolder(tmp_path, CLASSES)
    assert np.array_equal(folder[0]['mask'].numpy(), np.where(MASKS['a'] == 2, IGNORE, MASKS['a']))
    write_raster(tmp_path / 'masks' / 'a.tif', MASKS['a'], nodata=0)
    with pytest.warns(UserWarning, match=r"0 is class 'water' and the nodata value of .*a.tif, so its pixels count as"):
        assert np.array_equal(folder[0]['mask'].numpy(), MASKS['a'])
    assert (PairFolder(tmp_path, CLASSES, ignore=[0])[0]['mask'].numpy()[MASKS['a'] == 0] == IGNORE).all()


def test_a_class_that_no_image_has_measured_is_said_aloud(tmp_path: Path) -> None:
    image = IMAGES['a'].astype(np.float32)
    image[MASKS['a'] == 1] = np.nan
    folder = PairFolder(pair(tmp_path, image, MASKS['a']), CLASSES)
    with pytest.warns(UserWarning, match=r"\['forest'\] occur in masks, but only where the images are not measured"):
        assert folder.class_counts[1] == 0


def test_images_of_every_kind(tmp_path: Path) -> None:
    square = RNG.integers(1, 99, (8, 8, 3)).astype(np.uint8)
    mask = (square[:, :, 0] % 3).astype(np.uint8)
    folder = PairFolder(pair(tmp_path / 'first', square.transpose(2, 0, 1), mask), CLASSES)
    assert np.array_equal(folder[0]['image'].numpy(), square.transpose(2, 0, 1))
    write_raster(tmp_path / 'jpg' / 'images' / 'a.jpg', square)
    save(tmp_path / 'jpg' / 'masks' / 'a.png', mask)
    assert PairFolder(tmp_path / 'jpg', CLASSES)[0]['image'].shape == (3, 8, 8)
    for name, values in (('images', IMAGES['a']), ('masks', MASKS['a'])):
        file = write_raster(tmp_path / 'envi' / name / 'a.dat', values)
        (file.parent / 'loose.dat').write_bytes(b'no header beside it')
    header = tmp_path / 'envi' / 'images' / 'a.hdr'
    header.write_text(header.read_text() + 'reflectance scale factor = 10000\nbbl = {1, 0, 1, 1}\n')
    envi = PairFolder(tmp_path / 'envi', CLASSES)
    expected = IMAGES['a'].transpose(2, 0, 1)[[0, 2, 3]]
    assert envi[0]['image'].numpy() == pytest.approx(expected / 1e4, rel=1e-6)
    with pytest.warns(UserWarning, match='scale 1 is used as given'):
        assert np.array_equal(PairFolder(tmp_path / 'envi', CLASSES, scale=1.0)[0]['image'].numpy(), expected)


def test_mixes_as_real_side_and_as_source(tmp_path: Path) -> None:
    write(tmp_path)
    folder = PairFolder(tmp_path, CLASSES)
    patches = PatchDataset.from_dataset(folder)
    assert patches.spec == folder.spec
    assert np.array_equal(patches.mask[3].numpy(), MASKS['d'])
    doubled = PatchDataset(patches.image + 10_000, patches.mask, patches.spec)
    batch = MixedDataset(folder, doubled, 0.5).batch(range(6))
    assert batch['synthetic'].tolist() == [False] * 4 + [True] * 2
    assert torch.equal(batch['image'][:4], patches.image)
    assert (batch['image'][4:] > 10_000).all()
    as_source = MixedDataset(doubled, folder, 1.0, labels={'town': 1.0}, replacement=True).batch(range(8))
    assert (as_source['image'][4:] < 10_000).all()
    town = (patches.mask == 2).flatten(1).sum(dim=1)
    drawn = [int((patches.image == image).flatten(1).all(dim=1).int().argmax()) for image in as_source['image'][4:]]
    assert town[drawn].float().mean() > town.float().mean()
    assert len(folder.plot(folder[0]).axes) == 2
