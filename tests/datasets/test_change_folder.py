"""A folder per place, with two dates and a mask of what changed: every layout, by windows, and what is wrong."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rasterio.transform import from_origin
from rasters import write_raster
from real_pairs import folders, oscd, write_oscd_cities
from torch.utils.data import DataLoader, Subset
from torchgeo.datasets import DatasetNotFoundError

import hsiaug
from hsiaug import MixedDataset, adapt
from hsiaug.datasets import IGNORE, ChangeFolder, SampleSet, SampleSplitter, require_unseen_samples
from hsiaug.samples import LeakageError
from hsiaug.systems.data import data_of

SIZES = {'ayr': (13, 9), 'bern': (8, 12), 'cork': (10, 8)}
BANDS = ('B02', 'B03', 'B04', 'B08')


def pair(city: str, bands: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Both dates (2, C, H, W) uint16 and the mask (H, W)."""
    rng = np.random.default_rng(list(city.encode()))
    size = SIZES[city]
    return rng.integers(1, 4000, (2, bands, *size)).astype(np.uint16), (rng.random(size) < 0.3).astype(np.uint8)


def raster(file: Path, values: np.ndarray, **options: Any) -> None:
    write_raster(file, values.transpose(1, 2, 0), **options)


def multi_band(root: Path) -> dict[str, Any]:
    for city in SIZES:
        images, mask = pair(city)
        for date, image in zip(('2019', '2020'), images, strict=True):
            raster(root / city / f'{date}.tif', image)
        raster(root / city / 'change.tif', mask[None])
    return {'root': root}


def a_file_per_band(root: Path) -> dict[str, Any]:
    """As OSCD: masks elsewhere, in a folder beside a copy, dates among other folders, 255 for changed."""
    for city in SIZES:
        images, mask = pair(city)
        for date, image in enumerate(images, 1):
            for name, band in zip(BANDS, image, strict=True):
                raster(root / 'images' / city / f'imgs_{date}_rect' / f'S2A_{date}_{name}.tif', band[None])
                raster(root / 'images' / city / f'imgs_{date}' / f'{name}.tif', band[None, ::2])
        (root / 'labels' / city / 'cm').mkdir(parents=True)
        Image.fromarray(mask * 255).save(root / 'labels' / city / 'cm' / 'cm.png')
        raster(root / 'labels' / city / 'cm' / f'{city}-cm.tif', mask[None] + 1)
    dates = ('imgs_1_rect', 'imgs_2_rect')
    return {
        'root': root / 'images', 'masks': root / 'labels', 'dates': dates, 'mask': 'cm/cm.png',
        'label_map': {0: 0, 255: 1},
    }  # fmt: skip


def envi(root: Path) -> dict[str, Any]:
    for city in SIZES:
        images, mask = pair(city)
        for name, values in (('t1', images[0]), ('t2', images[1]), ('gt', mask[None])):
            raster(root / city / f'{name}.img', values)
    return {'root': root}


def arrays(root: Path) -> dict[str, Any]:
    for city in SIZES:
        images, mask = pair(city)
        (root / city).mkdir(parents=True)
        for name, values in (('t1', images[0]), ('t2', images[1])):
            np.save(root / city / f'{name}.npy', values.transpose(1, 2, 0))
        np.savez(root / city / 'mask.npz', mask)
    return {'root': root}


def a_folder_per_date(root: Path) -> dict[str, Any]:
    """As LEVIR-CD: A, B and masks of 0 and 255, here with the list of a split elsewhere, as it is often published."""
    for city in SIZES:
        images, mask = pair(city)
        for date, image in zip('AB', images, strict=True):
            raster(root / date / f'{city}.tif', image)
        (root / 'label').mkdir(exist_ok=True)
        Image.fromarray(mask * 255).save(root / 'label' / f'{city}.png')
    (root / 'list').mkdir()
    (root / 'list' / 'val.txt').write_text('cork.tif\nayr.tif\n')
    return {'root': root, 'label_map': {0: 0, 255: 1}}


@pytest.mark.parametrize('write', [multi_band, a_file_per_band, envi, arrays, a_folder_per_date])
def test_places_of_every_layout_whole_and_by_windows(tmp_path: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    given = write(tmp_path / 'places')
    folder = ChangeFolder(**given, scale=0.5, unit='reflectance')
    assert (folder.spec.kind, folder.spec.bands, folder.spec.unit) == ('change', 4, 'reflectance')
    assert (folder.spec.classes, folder.groups) == (('unchanged', 'changed'), list(SIZES))
    for index, city in enumerate(SIZES):
        images, mask = pair(city)
        assert np.array_equal(folder[index]['image'].numpy(), images * np.float32(0.5))
        assert np.array_equal(folder[index]['mask'].numpy(), mask[None])
    windows = pickle.loads(pickle.dumps(ChangeFolder(**given, size=(4, 3))))  # as for a worker that is spawned
    expected = [
        (city, row, column)
        for city, (height, width) in SIZES.items()
        for row in range(0, height - 3, 4)
        for column in range(0, width - 2, 3)
    ]
    assert windows.groups == [city for city, _, _ in expected]
    for sample, (city, row, column) in zip((windows[k] for k in range(len(windows))), expected, strict=True):
        place = slice(row, row + 4), slice(column, column + 3)
        assert np.array_equal(sample['image'].numpy(), pair(city)[0][:, :, *place])
        assert np.array_equal(sample['mask'][0].numpy(), pair(city)[1][place])
    with pytest.raises(IndexError):
        windows[len(expected)]


def test_bands_by_name_and_by_number(tmp_path: Path) -> None:
    given = a_file_per_band(tmp_path)
    named = ChangeFolder(**given, bands=('B08', 'B03'))
    assert named.spec.wavelengths == pytest.approx((832.8, 559.8))
    assert named.spec.wavelengths_approximate
    assert np.array_equal(named[1]['image'].numpy(), pair('bern')[0][:, [3, 1]])
    numbered = ChangeFolder(**given, bands=(3, 1), wavelengths=(400, 500, 600, 900), size=4)
    assert numbered.spec.wavelengths == (900, 500)
    assert np.array_equal(numbered[1]['image'].numpy(), pair('ayr')[0][:, [3, 1], :4, 4:8])
    with pytest.raises(ValueError, match=r"holds the bands .*, expected \['B12'\] too"):
        ChangeFolder(**given, bands=('B12',))
    with pytest.raises(ValueError, match=r'bands are given by their indices, not as \[.B08.\]'):
        ChangeFolder(**multi_band(tmp_path / 'files'), bands=('B08',))


def test_pixels_that_a_date_has_not_measured_are_ignored(tmp_path: Path) -> None:
    given = multi_band(tmp_path)
    images, mask = pair('ayr')
    images[0, 2, 3, 4], images[1, 0, 5, 6] = 0, 0
    for date, image in zip(('2019', '2020'), images, strict=True):
        raster(tmp_path / 'ayr' / f'{date}.tif', image, nodata=0)
    found = ChangeFolder(**given)[0]
    mask[3, 4] = mask[5, 6] = IGNORE
    assert np.array_equal(found['mask'][0].numpy(), mask)
    others = np.delete(images[0].reshape(4, -1), 3 * 9 + 4, axis=1)
    assert np.allclose(found['image'][0, :, 3, 4].numpy(), others.mean(axis=1))


def test_only_the_window_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for date in ('1', '2'):
        values = rng.random((3, 600, 600), dtype=np.float32)
        raster(tmp_path / 'city' / f'{date}.tif', values, tiled=True, blockxsize=64, blockysize=64)
    raster(tmp_path / 'city' / 'mask.tif', rng.integers(0, 2, (1, 600, 600), dtype=np.uint8))
    windows = adapt(ChangeFolder(tmp_path), size=32)
    assert len(windows) == 18 * 18
    tracemalloc.start()
    try:
        windows[100]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < values.nbytes / 10


def test_a_generator_learns_and_its_places_are_refused(tmp_path: Path) -> None:
    given = multi_band(tmp_path)
    cities = ChangeFolder(**given, cities=('ayr', 'bern'))
    generator = hsiaug.fit('region_paste', cities, size=4)
    real = adapt(cities, size=4)
    mixed = MixedDataset(real, generator, 0.5, evaluation=ChangeFolder(**given, cities=('cork',), size=4))
    assert mixed[len(mixed) - 1]['image'].shape == (2, 4, 4, 4)
    shifted = ChangeFolder(**given, cities=('cork', 'bern'), size=(5, 5))  # no window of it was seen as it is
    for evaluation in (shifted, adapt(Subset(ChangeFolder(**given), [2, 1]), size=5), adapt(shifted)):
        with pytest.raises(LeakageError, match=r'has seen 2 of 4 test samples, .* \[2, 3\]'):
            require_unseen_samples(generator, evaluation)
    with pytest.raises(LeakageError, match='has seen 2 of 3'):
        require_unseen_samples(generator, ChangeFolder(**given))  # whole places


def test_parts_are_drawn_by_place(tmp_path: Path) -> None:
    samples = SampleSet(ChangeFolder(**multi_band(tmp_path)), size=4)
    for seed in range(3):
        split = SampleSplitter()(samples, seed)
        groups, parts = samples.parts['train'].dataset.groups, (split.train, split.val, split.test)
        places = [{groups[row] for row in part} for part in parts]
        assert sorted(name for part in places for name in part) == list(SIZES)


def test_places_are_listed_named_or_unlabelled(tmp_path: Path) -> None:
    given = multi_band(tmp_path)
    (tmp_path / 'train.txt').write_text('cork, ayr\n')
    assert ChangeFolder(**given, split='train').cities == ['cork', 'ayr']
    assert ChangeFolder(**given, cities=('bern',)).groups == ['bern']
    assert ChangeFolder(tmp_path.parent, split=tmp_path.name).cities == list(SIZES)
    (tmp_path / 'ayr' / 'change.tif').unlink()
    assert set(ChangeFolder(**given, labelled=False)[0]) == {'image'}
    free = ChangeFolder(**given, cities=('ayr',), labelled=False)
    data = data_of(ChangeFolder(**given, cities=('bern',)), unlabelled=free, size=4)
    assert data.provenance is not None
    windows = ChangeFolder(**given, cities=('ayr',), labelled=False, size=4)
    assert torch.equal(data.unlabelled, torch.stack([windows[k]['image'] for k in range(6)]))
    with pytest.raises(LeakageError, match='has seen 2 of 2'):
        require_unseen_samples(data.provenance, ChangeFolder(**given, cities=('ayr',), labelled=False, size=5))


def test_a_folder_per_date(tmp_path: Path) -> None:
    given = a_folder_per_date(tmp_path / 'train')
    (tmp_path / 'train' / 'label').rename(tmp_path / 'train' / 'OUT')
    folder = ChangeFolder(tmp_path, split='train', dates=('B', 'A'), mask='OUT', label_map=given['label_map'])
    assert np.array_equal(folder[1]['image'].flip(0).numpy(), pair('bern')[0])
    assert np.array_equal(folder[1]['mask'][0].numpy(), pair('bern')[1])
    given |= {'mask': 'OUT'}
    assert ChangeFolder(**given, split='val').groups == ['cork', 'ayr']
    assert ChangeFolder(**given, split='val', cities=('bern', 'ayr')).groups == ['ayr']
    (tmp_path / 'train' / 'OUT' / 'bern.png').unlink()
    with pytest.raises(ValueError, match=r'A.bern.tif has no file of that stem in .*OUT, which holds'):
        ChangeFolder(**given)
    assert set(ChangeFolder(tmp_path, split='train', dates=('A', 'B'), labelled=False)[1]) == {'image'}
    (tmp_path / 'train' / 'OUT').rename(tmp_path / 'OUT')
    with pytest.raises(DatasetNotFoundError, match=r"train has no mask, called OUT; it holds \['A', 'B', 'list'\]"):
        ChangeFolder(**given, dates=('A', 'B'))


def test_places_without_a_mask_are_not_left_out_in_silence(tmp_path: Path) -> None:
    given = a_file_per_band(tmp_path)
    (tmp_path / 'images' / 'delft').mkdir()
    with pytest.warns(
        UserWarning, match='1 of 4 places of .*images have no folder in .*labels and are left out: delft'
    ):
        assert ChangeFolder(**given).cities == list(SIZES)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert ChangeFolder(**given, cities=('cork',)).cities == ['cork']


# --- what is wrong --------------------------------------------------------------------------------------------------


def no_mask(root: Path) -> None:
    (root / 'bern' / 'change.tif').unlink()


def third_date(root: Path) -> None:
    raster(root / 'cork' / '2021.tif', pair('cork')[0][0])


def no_date(root: Path) -> None:
    (root / 'cork' / '2020.tif').unlink()


def two_masks(root: Path) -> None:
    raster(root / 'ayr' / 'cm.tif', pair('ayr')[1][None])


def other_size(root: Path) -> None:
    raster(root / 'bern' / '2020.tif', pair('bern')[0][1][:, 1:])


def mask_size(root: Path) -> None:
    raster(root / 'bern' / 'change.tif', pair('bern')[1][None, :, 2:])


def other_bands(root: Path) -> None:
    raster(root / 'bern' / '2020.tif', pair('bern')[0][1][1:])


def values(root: Path) -> None:
    raster(root / 'bern' / 'change.tif', pair('bern')[1][None] * 255)


def date_elsewhere(root: Path) -> None:
    raster(root / 'bern' / '2020.tif', pair('bern')[0][1], transform=from_origin(0, 30, 1, 1))


def mask_elsewhere(root: Path) -> None:
    raster(root / 'bern' / 'change.tif', pair('bern')[1][None], transform=from_origin(0, 30, 1, 1))


def band_elsewhere(root: Path) -> None:
    for name, north in (('B02', 0), ('B03', 30)):
        raster(root / 'bern' / 'by band' / f'{name}.tif', pair('bern')[0][1][:1], transform=from_origin(0, north, 1, 1))
    (root / 'bern' / '2020.tif').unlink()


def empty_mask_folder(root: Path) -> None:
    no_mask(root)
    (root / 'bern' / 'cm').mkdir()


def folders_by_date(root: Path) -> None:
    (root / 'label').mkdir()


def nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ('spoil', 'options', 'message'),
    [
        (no_mask, {}, r'bern has no mask, called mask or .*; it holds .*2019.tif.*; name it with mask=, or give lab'),
        (empty_mask_folder, {}, r'cm has no mask, no file; it holds \[\]'),
        (folders_by_date, {}, r"two folders of images, .* found \['ayr', 'bern', 'cork'\] among .*'label'"),
        (third_date, {}, r"the dates of .*cork are not two: expected two images, .* found \['2019.tif', '2020"),
        (no_date, {}, r"the dates of .*cork are not two: .* found \['2019.tif'\]"),
        (nothing, {'dates': ('2019', '2021')}, r"expected \['2019', '2021'\] besides the mask, found \['2019.tif'\]"),
        (two_masks, {}, r'could all be the mask; name one with mask='),
        (other_size, {}, r'must be of one size, found .*bern'),
        (other_size, {'size': 4}, r'must be of one size, found \[\(8, 12\), \(7, 12\), \(8, 12\)\] of .*bern'),
        (mask_size, {}, r'bern.change.tif has \(8, 10\), its image \(8, 12\)'),
        (mask_size, {'size': 4}, r'must be of one size, found .*bern'),
        (other_bands, {}, r'bern.2020.tif has \(8, 12, 3\) .*, the first image has \(13, 9, 4\); bring all to'),
        (date_elsewhere, {}, r'bern.2019.tif and .*bern.2020.tif do not show one place: .* 30.0 pixels apart'),
        (mask_elsewhere, {}, r'bern.2019.tif and .*bern.change.tif do not show one place'),
        (band_elsewhere, {}, r'B02.tif and .*B03.tif do not show one place'),
        (values, {}, r'bern.change.tif holds \[255\], expected \[0, 1\]; map such values to a class with .*, such as'),
        (nothing, {'size': 20}, r'no place of .* is as large as size=\(20, 20\); the largest is \(13, 9\)'),
        (nothing, {'split': 'val'}, r"no split 'val': neither a list .*val.txt, nor folders of that name"),
        (nothing, {'cities': ('ayr', 'oslo')}, r"no folders \['oslo'\] in .*, which hold \['ayr', 'bern', 'cork'\]"),
        (nothing, {'masks': 'nowhere'}, 'no folder nowhere; it should hold a folder per place'),
        (nothing, {'label_map': {0: 2}}, r'label_map must map numbers to 0..1'),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_place(
    tmp_path: Path, spoil: Callable[[Path], None], options: dict[str, Any], message: str
) -> None:
    given = multi_band(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, DatasetNotFoundError), match=message):
        next(iter(DataLoader(ChangeFolder(**given, **options), batch_size=None, sampler=[1])))


# --- real data ------------------------------------------------------------------------------------------------------


def test_stored_cities_as_torchgeo_reads_them(real_data: Path, tmp_path: Path) -> None:
    root = write_oscd_cities(real_data, tmp_path, ('bercy', 'paris', 'rennes'), 130)
    masks, images = folders('train')
    given: dict[str, Any] = {
        'root': root / images, 'masks': root / masks, 'dates': ('imgs_1_rect', 'imgs_2_rect'), 'mask': 'cm/cm.png',
        'label_map': {0: 0, 255: 1}, 'bands': BANDS,
    }  # fmt: skip
    ours, torchgeos = adapt(ChangeFolder(**given), size=64), adapt(oscd(root, BANDS), size=64)
    assert len(ours) == len(torchgeos) == 12
    for k in range(12):
        assert all(torch.equal(ours[k][key], torchgeos[k][key]) for key in ('image', 'mask'))
    assert np.array_equal(ours.digests(), torchgeos.digests())
    mine, its = ours.places(), torchgeos.places()
    assert mine is not None
    assert its is not None
    assert np.array_equal(mine.key, its.key)
    assert np.array_equal(mine.box, its.box)
