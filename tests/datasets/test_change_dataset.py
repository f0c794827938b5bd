from dataclasses import replace
from pathlib import Path

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from real_pairs import write_oscd
from torch.utils.data import DataLoader
from torchgeo.datasets import OSCD
from toys import Toy, toy_spec

from hsiaug.datasets import IGNORE, ChangeDataset, MixedDataset
from hsiaug.samples import SampleSpec
from hsiaug.scenes import BitemporalScene, PatchSplit, PatchSplitter, SimulatedScene
from hsiaug.scenes.patches import PARTS
from hsiaug.transforms import BitemporalAugmentation

SIDE, STORED = 40, 4


@pytest.fixture(scope='module')
def scene() -> BitemporalScene:
    """Each value tells its date, place and band; changed are every third pixel, some not measured, some ignored."""
    number = np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE, 1) + 1
    first = 10 * number + np.arange(STORED)
    second = first + 100_000
    mask = (number[..., 0] % 3 == 0).astype(np.uint8)
    mask[::9, ::4] = IGNORE
    second[::7, ::5, 2] = -1
    return BitemporalScene.from_dates(
        'numbered', first, second, mask, bands=[0, 2, 3], wavelengths=np.arange(4) * 100.0 + 500, scale=0.5,
        unit='counts', nodata=-1,
    )  # fmt: skip


@pytest.fixture(scope='module')
def split(scene: BitemporalScene) -> PatchSplit:
    return PatchSplitter(size=8)(scene, seed=1)


def test_both_dates_and_the_mask_are_of_the_same_window(scene: BitemporalScene, split: PatchSplit) -> None:
    for part in PARTS:
        dataset = ChangeDataset.from_scene(scene, split, part)
        corners = split.windows(part)
        assert len(dataset) == len(corners)
        assert dataset.split is split
        for index, (row, column) in enumerate(corners.tolist()):
            sample = dataset[index]
            assert (sample['image'].shape, sample['image'].dtype) == ((2, 3, 8, 8), torch.float32)
            assert (sample['mask'].shape, sample['mask'].dtype) == ((1, 8, 8), torch.int64)
            for r in range(8):
                for c in range(8):
                    y, x = row + r, column + c
                    number = y * SIDE + x + 1
                    if y % 7 == 0 and x % 5 == 0:
                        assert sample['mask'][0, r, c] == IGNORE
                        continue
                    ignored = y % 9 == 0 and x % 4 == 0
                    assert sample['mask'][0, r, c] == (IGNORE if ignored else int(number % 3 == 0))
                    expected = [[5 * number + band / 2 + date * 50_000 for band in (0, 2, 3)] for date in (0, 1)]
                    assert sample['image'][:, :, r, c].tolist() == expected


def test_missing_pixels_hold_the_mean_of_their_window_at_both_dates(scene: BitemporalScene, split: PatchSplit) -> None:
    dataset = ChangeDataset.from_scene(scene, split)
    valid = torch.from_numpy(scene.valid.reshape(SIDE, SIDE))
    filled = 0
    for index, (row, column) in enumerate(split.train.tolist()):
        inside = valid[row : row + 8, column : column + 8]
        image = dataset.image[index].double()
        expected = image[:, :, inside].mean(dim=2, keepdim=True).expand(2, 3, int((~inside).sum()))
        torch.testing.assert_close(image[:, :, ~inside], expected, rtol=1e-5, atol=0)
        filled += int((~inside).sum())
    assert filled > 10


def test_spec_counts_and_fractions(scene: BitemporalScene, split: PatchSplit) -> None:
    dataset = ChangeDataset.from_scene(scene, split)
    assert dataset.spec == SampleSpec(
        'change', 3, ('unchanged', 'changed'), (500.0, 700.0, 800.0), size=(8, 8), ignore_index=255, unit='counts'
    )
    counts = [[int((mask == value).sum()) for value in (0, 1)] for mask in dataset.mask]
    assert dataset.class_counts.tolist() == np.sum(counts, axis=0).tolist()
    shares = torch.tensor(counts) / torch.tensor(counts).sum(dim=1, keepdim=True)
    torch.testing.assert_close(dataset.class_fractions(), shares)
    assert "'changed': " in str(dataset)


def test_a_simulated_pair_in_one_line() -> None:
    simulated = SimulatedScene(48, 48, wavelengths=np.arange(450, 900, 100.0), dates=2)
    scene = BitemporalScene.from_simulated(simulated)
    dataset = ChangeDataset.from_scene(scene, PatchSplitter(size=8)(scene), 'test')
    split = PatchSplitter(size=8)(scene)
    assert simulated.second_date is not None
    assert simulated.change is not None
    for index, (row, column) in enumerate(split.test_windows.tolist()):
        window = np.s_[row : row + 8, column : column + 8]
        dates = np.stack([simulated.cube[window], simulated.second_date[window]])
        assert np.array_equal(dataset.image[index].numpy(), dates.transpose(0, 3, 1, 2))
        assert np.array_equal(dataset.mask[index, 0].numpy(), simulated.change[window])


def test_augmentation_moves_dates_and_mask_alike(scene: BitemporalScene, split: PatchSplit) -> None:
    dataset = ChangeDataset.from_scene(scene, split)
    safe = BitemporalAugmentation(
        K.RandomHorizontalFlip(p=0.5), K.RandomVerticalFlip(p=0.5), K.RandomRotation90((0, 3), p=1.0),
        K.RandomCrop((6, 6)),
    )  # fmt: skip
    torch.manual_seed(0)
    moved = 0
    for batch in DataLoader(dataset, batch_size=8):
        after = safe(batch)
        first, second = (after['image'][:, date] for date in (0, 1))
        counting = after['mask'][:, 0] != IGNORE
        apart = (second - first)[counting[:, None].expand_as(first)]
        torch.testing.assert_close(apart, torch.full_like(apart, 50_000.0), rtol=0, atol=0.1)
        number = (first[:, 0] / 5).round().long()
        assert torch.equal(after['mask'][:, 0][counting], (number % 3 == 0).long()[counting])
        moved += int((first != batch['image'][:, 0, :, :6, :6]).flatten(1).any(dim=1).sum())
    assert moved > len(dataset) // 2


def test_torchgeos_oscd_is_cut_into_windows_by_cities(tmp_path: Path) -> None:
    sizes = {'a': (18, 22), 'b': (24, 16), 'c': (17, 17)}
    write_oscd(tmp_path, sizes)
    cities = OSCD(str(tmp_path), bands=('B02', 'B08', 'B11'))
    scene = BitemporalScene.from_dataset('oscd', cities, nodata=-1)
    splitter = PatchSplitter(size=8, stride=3, regions='groups', min_labelled=1.0)
    split = splitter(scene)
    counts = {'train': (3, 3), 'val': (8, 8), 'test': (8, 8)}
    shapes = [tuple(city['image'].shape[2:]) for city in cities]
    for part in PARTS:
        dataset = ChangeDataset.from_scene(scene, split, part)
        city = {int(row) // 24 for row, _ in split.windows(part)}
        assert len(city) == 1, 'three cities for three parts'
        height, width = shapes[city.pop()]
        step = counts[part][0]
        assert len(dataset) == ((height - 8) // step + 1) * ((width - 8) // step + 1)
        number = (dataset.image[:, 0, 0] - OSCD.all_bands.index('B02')) / 10
        assert torch.equal(dataset.mask[:, 0], (number % 5 == 0).long())
        assert (dataset.image[:, 1] - dataset.image[:, 0] == 1000).all()
        assert (dataset.image[:, :, 1] - dataset.image[:, :, 0] == 6).all()


def test_torchgeos_change_datasets_mix_as_they_are(tmp_path: Path) -> None:
    write_oscd(tmp_path, {'a': (8, 8), 'b': (8, 8)})
    real = OSCD(str(tmp_path), bands=('B02', 'B03', 'B04', 'B08', 'B11'))
    spec = SampleSpec('change', 5, ('unchanged', 'changed'), size=(8, 8))
    read = ChangeDataset.from_dataset(real, spec)
    mixed = MixedDataset(real, ChangeDataset(read.image + 0.5, read.mask, spec), 1.0)
    batch = next(iter(DataLoader(mixed, batch_size=4)))
    assert batch['synthetic'].tolist() == [False, False, True, True]
    assert torch.equal(batch['image'][:2], read.image)
    found = {float(value) for value in batch['image'][2:, 0, 0, 0, 0]}
    assert found <= {float(value) + 0.5 for value in read.image[:, 0, 0, 0, 0]}
    assert torch.equal(batch['mask'], torch.cat([read.mask, read.mask]))


def test_masks_that_are_no_change_masks_are_refused() -> None:
    toy = Toy('change', 7)
    toy.data['mask'] = 255 * toy.data['mask']
    with pytest.raises(ValueError, match=r'holds \[0, 255\].* use mask // 255 if 255 means changed'):
        ChangeDataset.from_dataset(toy)
    with pytest.raises(ValueError, match=r'no pixel of any of the 7 masks is changed .*mask // 255'):
        ChangeDataset.from_dataset(toy, toy_spec('change', ignore_index=255))
    with pytest.raises(ValueError, match=r'sample 0 has image \(5, 8, 8\) and mask \(8, 8\), expected \(2, C, H, W\)'):
        BitemporalScene.from_dataset('toys', Toy('segmentation', 2))


def test_scenes_and_splits_that_do_not_fit_are_named(scene: BitemporalScene, split: PatchSplit) -> None:
    simulated = SimulatedScene(40, 40, wavelengths=np.array([500.0, 600.0]))
    with pytest.raises(TypeError, match=r'has one date; put two together with BitemporalScene.from_dates'):
        ChangeDataset.from_scene(simulated, split)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'keeps the classes \(1, 2, .* split the bitemporal scene itself'):
        ChangeDataset.from_scene(scene, PatchSplitter(size=8)(simulated))
    with pytest.raises(ValueError, match='the split was made for scene'):
        ChangeDataset.from_scene(scene, replace(split, scene='another'))


def test_plot_shows_both_dates_under_one_stretch(scene: BitemporalScene, split: PatchSplit) -> None:
    dataset = ChangeDataset.from_scene(scene, split)
    sample = dataset[0]
    figure = dataset.plot({**sample, 'prediction': torch.zeros(1, 8, 8, dtype=torch.int64)}, suptitle='a pair')
    figure.canvas.draw()
    axes = [a for a in figure.axes if a.images]
    assert [a.get_title() for a in axes] == ['date 1', 'date 2', 'mask', 'prediction']
    first, second, mask, prediction = (np.asarray(a.images[0].get_array()) for a in axes)
    assert first.mean() < 0.1 < 0.9 < second.mean(), 'the second date is brighter'
    assert len(np.unique(prediction.reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(mask.reshape(-1, 3), axis=0)) == len(sample['mask'].unique())
    assert len(dataset.plot(sample, show_titles=False).axes) == 3
