"""Any dataset in the sample contract, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from real_pairs import BarkBeetles, oscd, write_geotiffs, write_oscd_cities
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import GridGeoSampler, RandomBatchGeoSampler

from hsiaug import MixedDataset, adapt, fit
from hsiaug.datasets import DataArrayImage, GeoSamples, PairFolder, PatchDataset, SpectraDataset
from hsiaug.datasets.own.adapted import AdaptedDataset
from hsiaug.samples import LeakageError, SpecMismatchError
from hsiaug.scenes import PatchSplitter, Scene, Split

SENTINEL = (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1610, 2190)


class Samples(Dataset[dict[str, Any]]):
    """Samples made by a function of their number."""

    def __init__(self, make: Callable[[int], dict[str, Any]], length: int = 6, **says: Any) -> None:
        self.make, self.length = make, length
        vars(self).update(says)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.make(index)


def image(index: int, bands: int = 4, size: tuple[int, ...] = (8, 8)) -> Tensor:
    return torch.rand((bands, *size), generator=torch.Generator().manual_seed(index))


def mask(index: int, size: tuple[int, int] = (8, 8)) -> Tensor:
    values = torch.zeros(size, dtype=torch.int64)
    values[: 1 + index % 4] = 1
    return values


def pairs(index: int) -> dict[str, Any]:
    return {'image': image(index), 'mask': mask(index)}


CLASSES = ('grass', 'tree')


# --- torchgeo's keys ------------------------------------------------------------------------------------------------


def test_masks_with_a_channel_integers_and_other_keys_come_out_in_the_contract() -> None:
    raw = Samples(
        lambda i: {
            'image': (1000 * image(i)).to(torch.int16), 'mask': mask(i)[None].to(torch.uint8), 'crs': 'EPSG:1',
            'bounds': (0, 1), 'wavelength': torch.tensor([0.45, 0.55, 0.65, 0.85]),
        },
        classes=list(CLASSES), unit='counts', ignore_index=255,
    )  # fmt: skip
    adapted = adapt(raw)
    sample = adapted[5]
    assert set(sample) == {'image', 'mask'}
    assert (sample['image'].dtype, sample['mask'].dtype, sample['mask'].shape) == (torch.float32, torch.int64, (8, 8))
    assert torch.equal(sample['image'], (1000 * image(5)).to(torch.int16).float())
    spec = adapted.spec
    assert (spec.kind, spec.bands, spec.size, spec.classes) == ('segmentation', 4, (8, 8), CLASSES)
    assert spec.wavelengths == pytest.approx((450, 550, 650, 850))
    assert (spec.unit, spec.ignore_index) == ('counts', 255)
    assert adapted.class_counts.tolist() == [int((torch.stack([mask(i) for i in range(6)]) == k).sum()) for k in (0, 1)]
    with pytest.raises(IndexError):
        adapted[6]
    assert torch.equal(adapted[-1]['image'], sample['image'])


def test_two_dates_are_stacked_and_need_no_names_of_classes() -> None:
    raw = Samples(lambda i: {'image1': image(i), 'image2': image(i + 50), 'mask': mask(i)})
    adapted = adapt(raw)
    assert adapted.spec.kind == 'change'
    assert adapted.spec.classes == ('unchanged', 'changed')
    assert torch.equal(adapted[2]['image'], torch.stack([image(2), image(52)]))
    assert adapted[2]['mask'].shape == (1, 8, 8)
    assert len(set(adapted.digests()[2].tolist())) == 2  # one of each date
    found = adapted.survey()
    stacked = torch.stack([adapted[i]['image'] for i in range(6)]).flatten(1, 2).double()
    assert np.allclose(found.sums[0] / found.values, stacked.mean(dim=(0, 2, 3)).numpy())


def test_a_list_of_samples_is_a_dataset() -> None:
    samples = [pairs(index) for index in range(6)]
    adapted = adapt(samples, classes=CLASSES)
    assert (adapted.name, len(adapted), adapted.spec.kind) == ('list', 6, 'segmentation')
    assert torch.equal(adapted[4]['image'], samples[4]['image'])
    mixed = MixedDataset(adapted, fit('region_paste', samples, classes=CLASSES), ratio=1)
    assert mixed[11]['image'].shape == (4, 8, 8)
    pooled = adapt([samples[:2], Samples(pairs)], classes=CLASSES)
    assert len(pooled) == 8


def test_labels_and_spectra() -> None:
    scenes = adapt(Samples(lambda i: {'image': image(i), 'label': i % 2}), classes=CLASSES)
    assert (scenes.spec.kind, scenes[3]['label'].item(), scenes.class_counts.tolist()) == ('scene', 1, [3, 3])
    spectra = adapt(Samples(lambda i: {'image': image(i)[:, 0, 0], 'label': torch.tensor([i % 2])}), classes=CLASSES)
    assert (spectra.spec.kind, spectra.spec.size, spectra[3]['label'].ndim) == ('spectrum', None, 0)


def test_a_spec_of_its_own_is_kept_and_changed_where_asked(scene: Scene, split: Split) -> None:
    real = SpectraDataset(scene, split)
    assert adapt(real).spec == real.spec
    assert adapt(Subset(real, range(9)), unit='radiance').spec.unit == 'radiance'
    assert adapt(adapt(real)) is not real
    adapted = adapt(real)
    assert adapt(adapted) is adapted


def test_pooled_scenes_and_datasets(scene: Scene) -> None:
    split = PatchSplitter(size=4)(scene, 0)
    one, two = (PatchDataset.from_scene(scene, split, part) for part in ('train', 'val'))
    for together in ([one, two], ConcatDataset([one, two]), [Subset(one, range(len(one))), adapt(two)]):
        pooled = adapt(together)
        assert pooled.spec == one.spec
        assert len(pooled) == len(one) + len(two)
        assert torch.equal(pooled[len(one)]['image'], two.image[0])
    other = Samples(lambda i: {'image': image(i, scene.num_bands, (4, 4)), 'mask': mask(i, (4, 4))}, classes=CLASSES)
    with pytest.raises(SpecMismatchError, match='classes'):
        adapt([one, other])
    with pytest.raises(ValueError, match='at least one dataset is needed, found an empty list'):
        adapt([])


def test_tiles_cover_images_of_any_size_and_know_their_places() -> None:
    sizes = [(8, 8), (9, 17), (5, 30), (7, 6)]
    raw = Samples(lambda i: {'image': image(i, 4, sizes[i]), 'mask': mask(i, sizes[i])}, 4, classes=CLASSES)
    adapted, state = adapt(raw, size=(4, 6)), torch.get_rng_state()
    assert len(adapt(raw, size=(4, 6), stride=2)) > 2 * len(adapted)
    with pytest.raises(ValueError, match='stride=2 is for tiles; give their size= too'):
        adapt(raw, stride=2)
    corners = [(i, r, c) for i, (h, w) in enumerate(sizes) for r in range(0, h - 3, 4) for c in range(0, w - 5, 6)]
    assert len(adapted) == len(corners) == 2 * 1 + 2 * 2 + 1 * 5 + 1 * 1
    for sample, (row, top, left) in zip((adapted[k] for k in range(len(adapted))), corners, strict=True):
        assert torch.equal(sample['image'], raw[row]['image'][:, top : top + 4, left : left + 6])
        assert torch.equal(sample['mask'], raw[row]['mask'][top : top + 4, left : left + 6])
    assert torch.equal(torch.get_rng_state(), state)
    places = adapted.places()
    assert places is not None
    assert places.box[-1].tolist() == [0, 4, 0, 6]
    assert len(np.unique(places.key)) == 4
    small = AdaptedDataset(raw, adapted.spec, 'small', tile=True)
    small.survey(most=100)
    assert small.survey().images is None  # too large to be held: read and cut anew
    assert torch.equal(small[4]['image'], adapted[4]['image'])
    adapted[4]['image'].zero_()  # the caller's own, though tiles are held
    assert torch.equal(small[4]['image'], adapted[4]['image'])


def test_geospatial_datasets_come_by_a_sampler(tmp_path: Path) -> None:
    def raster(name: str, values: np.ndarray) -> None:
        (tmp_path / name).mkdir()
        profile = {'driver': 'GTiff', 'count': len(values), 'height': 32, 'width': 32, 'dtype': values.dtype}
        transform = rasterio.transform.from_origin(500_000, 5_000_000, 10, 10)
        with rasterio.open(tmp_path / name / 'a.tif', 'w', crs='EPSG:32633', transform=transform, **profile) as file:
            file.write(values)

    number = np.arange(32 * 32, dtype=np.float32).reshape(1, 32, 32)
    raster('images', np.concatenate([number, number + 5000]))
    raster('masks', (number % 2).astype(np.uint8))

    class Images(RasterDataset):
        filename_glob = '*.tif'

    class Masks(RasterDataset):
        filename_glob = '*.tif'
        is_image = False

    both = Images(tmp_path / 'images') & Masks(tmp_path / 'masks')
    samples = GeoSamples(both, GridGeoSampler(both, size=8, stride=8))
    adapted = adapt(samples, classes=('even', 'odd'))
    assert len(adapted) == 16
    assert adapted.spec.bands == 2
    for sample in (adapted[0], adapted[15]):
        assert torch.equal(sample['mask'], (sample['image'][0] % 2).long())
    places = adapted.places()
    assert places is not None
    assert len(np.unique(places.key)) == 1
    assert len({tuple(box) for box in places.box}) == 16
    with pytest.raises(TypeError, match='gives batches'):
        GeoSamples(both, RandomBatchGeoSampler(both, size=8, batch_size=2, length=4))
    with pytest.raises(TypeError, match='a GeoDataset is expected'):
        GeoSamples(Samples(pairs), [0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match='indexed by place and time'):
        adapt(both)


def test_an_xarray_of_one_image() -> None:
    xarray = pytest.importorskip('xarray')
    values = np.random.default_rng(0).random((10, 12, 3)).astype(np.float32)
    coordinates = {'wavelength': ('band', [0.45, 0.55, 0.85], {'units': 'um'}), 'y': np.arange(10), 'x': np.arange(12)}
    array = xarray.DataArray(values, dims=('y', 'x', 'band'), coords=coordinates, attrs={'units': 'reflectance'})
    labelled = adapt(DataArrayImage(array, values[:, :, 0] > 0.5, CLASSES), size=5)
    assert labelled.spec.wavelengths == pytest.approx((450, 550, 850))
    assert labelled.spec.unit == 'reflectance'
    assert len(labelled) == 4
    assert np.array_equal(labelled[3]['image'].numpy(), values[5:10, 5:10].transpose(2, 0, 1))
    free = adapt(array, size=5, spec=labelled.spec, labelled=False)
    assert torch.equal(free[3]['image'], labelled[3]['image'])
    truth = xarray.DataArray(values[:, :, 0] > 0.5, dims=('y', 'x'))
    turned = DataArrayImage(array, truth.transpose('x', 'y'), CLASSES)[0]
    assert np.array_equal(turned['mask'].numpy(), truth.values)
    with pytest.raises(ValueError, match='the mask of a DataArray holds NaN'):
        DataArrayImage(array, truth.where(truth), CLASSES)
    with pytest.raises(ValueError, match='a coordinate named as one of'):
        adapt(array.drop_vars('wavelength'), size=5, spec=labelled.spec, labelled=False)
    both = xarray.Dataset({'labels': truth, 'radiance': array})
    with pytest.raises(
        TypeError, match=r"holds arrays by name \(labels \('y', 'x'\).*adapt\(dataset\['radiance'\], size="
    ):
        adapt(both, size=5)
    with pytest.raises(TypeError, match=r'Dataset holds arrays by name \(here none\)'):
        adapt(xarray.Dataset(), size=5)
    with pytest.raises(TypeError, match=r"MixedDataset: .*DataArray of dimensions \('y', 'x', 'band'\) is one image"):
        MixedDataset(array, labelled)


# --- what is wrong --------------------------------------------------------------------------------------------------


def broken(index: int) -> dict[str, Any]:
    if index == 4:
        raise OSError('tile 4 lies on a lost tape')
    return pairs(index)


def longer(index: int) -> dict[str, Any]:
    if index > 3:
        raise IndexError('list index out of range')
    return pairs(index)


def changed_at(row: int, **changes: Any) -> Callable[[int], dict[str, Any]]:
    def make(index: int) -> dict[str, Any]:
        sample = pairs(index)
        sample |= changes if index == row else {}
        return {key: value for key, value in sample.items() if value is not None}

    return make


def waves(index: int) -> dict[str, Any]:
    return {**pairs(index), 'wavelength': torch.tensor([450.0, 550, 650, 850 if index < 3 else 900])}


WRONG: dict[str, tuple[Any, str]] = {
    'sizes': (
        lambda i: {'image': image(i, 4, (8, 8 + i // 4)), 'mask': mask(i, (8, 8 + i // 4))},
        r'images of 2 sizes: 8 x 8 \(4, first sample 0\), 8 x 9 \(2, first sample 4\); give size=',
    ),
    'bands': (changed_at(2, image=image(2, 5)), r'sample 2: its image \(5, 8, 8\) is none of 4 bands'),
    'mask alone': (changed_at(3, image=None), "sample 3: .* found a dictionary with .'mask'"),
    'image alone': (changed_at(3, mask=None), "sample 3 has no 'mask'"),
    'mask of another size': (changed_at(1, mask=mask(1, (8, 7))), r'sample 1: its mask has \(8, 7\), its image'),
    'values': (changed_at(5, mask=mask(5) + 1), r'mask of sample 5 holds \[2\], expected 0 to 1 \(grass, tree\)'),
    'not finite': (changed_at(0, image=image(0) / 0), 'sample 0 holds NaN or infinite values in image; fill them'),
    'fractions': (changed_at(2, mask=mask(2) + 0.5), 'sample 2: whole numbers are expected in its mask'),
    'raises': (broken, 'sample 4 cannot be read: OSError: tile 4 lies on a lost tape$'),
    'longer': (longer, 'sample 4 is missing, although the dataset claims to have 6: list index out of range$'),
    'wavelength': (waves, 'sample 3: its wavelength of band 3 is 900 nm, that of the first sample 850'),
}


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('name', WRONG)
def test_what_is_wrong_names_the_sample(name: str, workers: int) -> None:
    make, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        adapt(Samples(make, classes=CLASSES), workers=workers).survey()
    assert 'Traceback' not in str(caught.value)  # of a worker


def test_what_cannot_be_inferred_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"does not say which classes its masks mean .* give classes=\['...', ...\]"):
        adapt(Samples(pairs))
    with pytest.raises(ValueError, match='a spec is needed'):
        adapt(Samples(pairs), labelled=False)
    with pytest.raises(ValueError, match='4 bands but 3 wavelengths'):
        adapt(Samples(pairs, classes=CLASSES), wavelengths=[1, 2, 3])
    with pytest.raises(ValueError, match='no image is as large as size='):
        len(adapt(Samples(pairs, classes=CLASSES), size=9))


def test_what_is_no_dataset_is_said() -> None:
    with pytest.raises(ValueError, match='Samples is empty: at least one sample is needed'):
        adapt(Samples(pairs, 0))

    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    for wrong in (Endless(), 3, DataLoader(Samples(pairs))):
        with pytest.raises(TypeError, match='a map-style dataset expected'):
            adapt(wrong)
    with pytest.raises(TypeError, match='found tuple of 2'):
        adapt(Samples(lambda i: (image(i), mask(i))))  # type: ignore[arg-type, return-value]


# --- real data ------------------------------------------------------------------------------------------------------


def test_torchgeos_oscd_on_real_cities(real_data: Path, tmp_path: Path) -> None:
    raw = oscd(write_oscd_cities(real_data, tmp_path, ('bercy', 'paris'), 96), ('B02', 'B03', 'B04', 'B08'))
    adapted = adapt(raw, size=32, unit='digital number')
    assert (adapted.spec.kind, adapted.spec.bands, len(adapted)) == ('change', 4, 18)
    stored = np.load(real_data / 'oscd' / 'bercy.npz')
    expected = stored['t2_10m'][32:64, 64:96].transpose(2, 0, 1).astype(np.float32)
    assert np.array_equal(adapted[5]['image'][1].numpy(), expected)
    assert np.array_equal(adapted[5]['mask'][0].numpy(), stored['cm'][32:64, 64:96])


def test_bark_beetles_are_cut_as_they_were_counted(real_data: Path, tmp_path: Path) -> None:
    raw = BarkBeetles(real_data, range(160))
    with pytest.raises(ValueError, match=r'images of \d+ sizes: .* give size= to cut .* at most 33'):
        adapt(raw).survey()
    adapted = adapt(raw, size=32, wavelengths=SENTINEL, unit='reflectance')
    tiles = np.load(real_data / 's2_barkbeetle' / 's2_barkbeetle.npz')['tile32']
    found = adapted.survey()
    assert np.array_equal(np.column_stack([found.rows, found.corners]), tiles)
    assert adapted.spec.classes == ('undamaged', 'damaged')
    mixed = MixedDataset(adapted, Subset(adapted, range(100)), ratio=0.1)
    assert mixed[len(mixed) - 1]['image'].shape == (2, 12, 32, 32)
    folder = PairFolder(write_geotiffs(raw, tmp_path, (0, 1, 2), SENTINEL, 32), raw.classes)
    read = adapt(folder)
    assert read.spec == folder.spec
    assert torch.allclose(read[1]['image'], raw[1]['image1'][:, :32, :32])


@pytest.mark.parametrize('size', [2.5, '16', (4, 'x')])
def test_sizes_are_numbers(size: Any) -> None:
    with pytest.raises(ValueError, match='size must be a whole number'):
        adapt([pairs(i) for i in range(3)], classes=CLASSES, size=size)


def test_a_mask_of_nan_says_so() -> None:
    sample = pairs(0)
    sample['mask'] = torch.where(sample['mask'] == 1, torch.nan, sample['mask'].float())
    with pytest.raises(ValueError, match=r'in its mask, found torch.float32 with NaN; give such pixels the ignore'):
        adapt([sample], classes=CLASSES)


def test_the_samples_of_an_evaluation_may_be_a_list() -> None:
    samples = [pairs(i) for i in range(6)]
    with pytest.raises(LeakageError, match='has seen 2 of 2 test samples'):
        MixedDataset(
            adapt(samples, classes=CLASSES), fit('region_paste', samples, classes=CLASSES), evaluation=samples[:2]
        )
