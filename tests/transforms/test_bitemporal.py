import re
from pathlib import Path

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from kornia.constants import DataKey
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, random_split
from torchgeo.datamodules import LEVIRCDDataModule, OSCDDataModule
from torchgeo.datasets import NonGeoDataset

from hsiaug.samples import Sample
from hsiaug.transforms.bitemporal import BitemporalAugmentation, make_change_safe

SIDE, SHIFT = 16, torch.tensor([100.0, 200.0, 0.0])


def coordinates(n: int, side: int = SIDE) -> dict[str, Tensor]:
    """Pairs whose first two bands are x and y, the third 1; date 2 is shifted; the mask is each pixel's number."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing='ij')
    first = torch.stack([x, y, torch.ones_like(x)]).to(torch.float32)
    pair = torch.stack([first, first + SHIFT[:, None, None]])
    return {'image': pair.repeat(n, 1, 1, 1, 1), 'mask': (y * side + x).repeat(n, 1, 1, 1)}


def assert_aligned(batch: dict[str, Tensor], tolerance: float, side: int = SIDE) -> None:
    """Both dates show at every pixel the place that the mask says, within ``tolerance`` pixels of the input."""
    image, mask = batch['image'], batch['mask']
    assert mask.dtype == torch.int64
    assert mask.shape == (len(image), 1, *image.shape[-2:])
    assert image.shape[1:3] == (2, 3)
    # Bilinear interpolation of a ramp is exact, except where it mixes in the padding.
    inside = (image[:, 0, 2] > 0.999) & (image[:, 1, 2] > 0.999)
    assert inside.flatten(1).float().mean(dim=1).min() > 0.1
    places = torch.stack([mask[:, 0] % side, mask[:, 0] // side], dim=1)
    for date, shift in ((0, 0.0), (1, SHIFT[:2, None, None])):
        apart = (image[:, date, :2] - shift - places).abs().amax(dim=1)
        assert apart[inside].max() <= tolerance + 1e-3


# How far the nearest neighbour may lie from the place that an interpolated image shows, in input pixels.
GEOMETRIC = {
    'horizontal flip': (K.RandomHorizontalFlip(p=0.5), 0),
    'vertical flip': (K.RandomVerticalFlip(p=0.5), 0),
    'rotation by 90': (K.RandomRotation90((0, 3), p=1.0), 0.5),
    'rotation': (K.RandomRotation(40.0, p=1.0), 0.5),
    'affine': (K.RandomAffine(30.0, (0.1, 0.1), (0.8, 1.3), 10.0, p=1.0), 0.5),
    'shear': (K.RandomShear((-15.0, 15.0), p=1.0), 0.5),
    'translation': (K.RandomTranslate((-0.3, 0.3), (-0.3, 0.3), p=1.0), 0.5),
    'perspective': (K.RandomPerspective(0.4, p=1.0), 0.5),
    'elastic': (K.RandomElasticTransform(kernel_size=(9, 9), sigma=(4.0, 4.0), alpha=(0.5, 0.5), p=1.0), 0.5),
    'elastic, corners aligned': (
        K.RandomElasticTransform((9, 9), sigma=(4.0, 4.0), alpha=(0.5, 0.5), align_corners=True, p=1.0),
        0.5,
    ),
    'affine, corners aligned': (K.RandomAffine(30.0, scale=(0.8, 1.3), align_corners=True, p=1.0), 0.5),
    'crop': (K.RandomCrop((9, 7)), 0),
    'crop of padded': (K.RandomCrop((20, 20), pad_if_needed=True), 0),
    'resampled crop': (K.RandomCrop((9, 7), cropping_mode='resample'), 0.01),
    # torch's nearest neighbour rounds down, so it lies up to one pixel from corner-aligned interpolation.
    'resized crop': (K.RandomResizedCrop((12, 12), (0.3, 0.9), p=1.0), 1),
}
FIXED = {
    'center crop': (K.CenterCrop((8, 6)), 0),
    'smaller': (K.Resize((8, 8)), 1),
    'larger': (K.Resize((24, 24)), 1),
    'padded': (K.PadTo((20, 24)), 0),
}


@pytest.mark.parametrize('name', GEOMETRIC)
def test_both_dates_and_the_mask_move_alike_and_every_sample_its_own_way(name: str) -> None:
    augmentation, tolerance = GEOMETRIC[name]
    torch.manual_seed(0)
    own_ways = 0
    for safe in (
        BitemporalAugmentation(augmentation),
        BitemporalAugmentation.from_kornia(K.AugmentationSequential(K.VideoSequential(augmentation), data_keys=None)),
        BitemporalAugmentation(augmentation),
    ):
        moved = safe(coordinates(4))
        assert_aligned(moved, tolerance)
        own_ways += not torch.equal(moved['mask'], moved['mask'][:1].expand_as(moved['mask']))
    assert own_ways > 0, 'all samples of every batch moved alike'


@pytest.mark.parametrize('name', FIXED)
def test_changes_of_size_keep_dates_and_mask_aligned(name: str) -> None:
    augmentation, tolerance = FIXED[name]
    moved = BitemporalAugmentation(augmentation)(coordinates(4))
    assert moved['image'].shape[-2:] == augmentation.flags['size']
    assert_aligned(moved, tolerance)


def test_a_chain_of_all_sorts_stays_aligned_in_its_order() -> None:
    torch.manual_seed(0)
    safe = BitemporalAugmentation(
        K.Normalize(torch.tensor([10.0, 20.0, 0.0]), torch.tensor([2.0, 4.0, 1.0])),
        K.RandomHorizontalFlip(p=0.5),
        K.RandomCrop((12, 12)),
        K.Denormalize(torch.tensor([10.0, 20.0, 0.0]), torch.tensor([2.0, 4.0, 1.0])),
        K.RandomAffine(20.0, p=0.7),
    )
    assert [type(step) for step in safe.steps] == [
        K.VideoSequential,
        K.AugmentationSequential,
        K.VideoSequential,
        K.AugmentationSequential,
    ]
    for _ in range(4):
        assert_aligned(safe(coordinates(4)), 0.5)


def test_normalisation_takes_statistics_of_one_date() -> None:
    batch = {'image': torch.rand(3, 2, 5, 4, 4), 'mask': torch.randint(0, 2, (3, 1, 4, 4))}
    mean, std = torch.rand(5), torch.rand(5) + 0.5
    result = BitemporalAugmentation(K.Normalize(mean, std))(batch)
    expected = (batch['image'] - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(result['image'], expected)
    assert torch.equal(result['mask'], batch['mask'])


@pytest.mark.parametrize('same', [True, False])
def test_values_change_alike_in_both_dates_or_not(same: bool) -> None:
    torch.manual_seed(0)
    image = torch.full((4, 2, 3, 6, 6), 0.5)
    result = BitemporalAugmentation(K.RandomBrightness((0.6, 1.4), p=1.0), same_on_dates=same)({'image': image})
    values = result['image'][:, :, 0, 0, 0]
    assert torch.equal(values[:, 0], values[:, 1]) is same
    assert len(values[:, 0].unique()) == 4
    assert not (values == 0.5).any()


def test_erased_pixels_are_erased_in_both_dates_and_unchanged_in_the_mask() -> None:
    torch.manual_seed(0)
    batch = {'image': torch.rand(4, 2, 3, 12, 12) + 1, 'mask': torch.ones(4, 1, 12, 12, dtype=torch.int64)}
    result = BitemporalAugmentation(K.RandomErasing((0.1, 0.3), p=1.0))(batch)
    erased = result['mask'] == 0
    assert erased.flatten(1).any(dim=1).all()
    wiped = erased[:, None].expand_as(batch['image'])
    assert (result['image'][wiped] == 0).all()
    assert torch.equal(result['image'][~wiped], batch['image'][~wiped])


@pytest.mark.parametrize('dtype', [torch.int64, torch.int32, torch.uint8, torch.float32])
def test_mask_keeps_values_and_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mask = torch.tensor([0, 1, 255])[torch.randint(0, 3, (4, 1, 16, 16))].to(dtype)
    image = mask[:, None].expand(4, 2, 3, 16, 16).to(torch.float32)
    flipped = BitemporalAugmentation(K.RandomHorizontalFlip(p=0.5), K.RandomCrop((9, 9)))(
        {'image': image, 'mask': mask}
    )
    assert flipped['mask'].dtype == dtype
    assert torch.equal(flipped['image'], flipped['mask'][:, None].expand_as(flipped['image']).to(torch.float32))
    assert set(flipped['mask'].unique().tolist()) == {0, 1, 255}
    turned = BitemporalAugmentation(K.RandomAffine(45.0, p=1.0), K.Resize((25, 25)))({'image': image, 'mask': mask})
    assert turned['mask'].dtype == dtype
    assert set(turned['mask'].unique().tolist()) == {0, 1, 255}


def test_padding_can_be_marked_as_ignored() -> None:
    extra_args = {DataKey.MASK: {'resample': 'nearest', 'align_corners': None, 'fill': 255}}
    crop = K.RandomCrop((20, 20), pad_if_needed=True)
    result = BitemporalAugmentation(crop, extra_args=extra_args)(coordinates(2))
    padded = result['image'][:, 0, 2] == 0
    assert padded.any()
    assert (result['mask'][:, 0][padded] == 255).all()


@pytest.mark.parametrize('augmentation', [K.RandomCrop((9, 9)), K.RandomAffine(30.0, p=1.0), K.RandomBrightness(p=1.0)])
@pytest.mark.parametrize('lead', [(), (1,)])
def test_one_sample_is_a_batch_of_one(augmentation: nn.Module, lead: tuple[int, ...]) -> None:
    batch, safe = coordinates(1), BitemporalAugmentation(augmentation)
    torch.manual_seed(3)
    expected = safe(batch)
    torch.manual_seed(3)
    mask = batch['mask'][0].reshape(*lead, SIDE, SIDE)
    sample = safe({'image': batch['image'][0], 'mask': mask})
    assert torch.equal(sample['image'], expected['image'][0])
    assert torch.equal(sample['mask'].reshape(expected['mask'][0].shape), expected['mask'][0])
    assert sample['mask'].ndim == mask.ndim


def test_mask_without_its_own_dimension_no_mask_and_other_keys() -> None:
    batch = coordinates(4)
    flip = BitemporalAugmentation(K.RandomHorizontalFlip(p=1.0))
    squeezed = flip({**batch, 'mask': batch['mask'][:, 0], 'synthetic': torch.tensor([True, False, True, False])})
    assert torch.equal(squeezed['mask'], batch['mask'][:, 0].flip(-1))
    assert squeezed['synthetic'].tolist() == [True, False, True, False]
    alone = flip({'image': batch['image']})
    assert list(alone) == ['image']
    assert torch.equal(alone['image'], batch['image'].flip(-1))
    assert torch.equal(batch['mask'], coordinates(4)['mask']), "the caller's batch has changed"


def test_what_cannot_be_made_safe_is_refused_by_name() -> None:
    for augmentation, message in (
        (K.RandomMixUpV2(), 'RandomMixUpV2 is not a 2D augmentation of single samples'),
        (K.RandomCutMixV2(use_correct_lambda=True), 'RandomCutMixV2 is not a 2D augmentation of single samples'),
        (K.RandomRotation3D(10.0), 'RandomRotation3D is not a 2D augmentation'),
        (nn.Identity(), 'Identity is not a 2D augmentation'),
        (K.auto.RandAugment(1, 5), 'RandAugment is not a 2D augmentation'),
        (K.RandomThinPlateSpline(), 'RandomThinPlateSpline cannot move a mask'),
    ):
        with pytest.raises(TypeError, match=message):
            BitemporalAugmentation(K.RandomHorizontalFlip(), augmentation)
    flips = K.RandomHorizontalFlip(), K.RandomVerticalFlip()
    with pytest.raises(ValueError, match='VideoSequential with random_apply'):
        BitemporalAugmentation(K.VideoSequential(*flips, random_apply=1))
    with pytest.raises(ValueError, match=r"data_format 'BCTHW'; dates are the second"):
        BitemporalAugmentation(K.VideoSequential(*flips, data_format='BCTHW'))


@pytest.mark.parametrize(
    ('image', 'mask', 'message'),
    [
        ((4, 3, 8, 8), (4, 8, 8), 'image must be (B, 2, C, H, W), or (2, C, H, W) for one sample, found (4, 3, 8, 8)'),
        ((4, 3, 2, 8, 8), (4, 1, 8, 8), 'found (4, 3, 2, 8, 8)'),
        ((2, 8, 8), (1, 8, 8), 'found (2, 8, 8)'),
        # A batch of two pictures looks like one pair of dates; its mask gives it away.
        ((2, 3, 8, 8), (2, 1, 8, 8), 'mask must be (1, 8, 8) or (8, 8) beside an image (2, 3, 8, 8), found (2, 1, 8'),
        ((4, 2, 3, 8, 8), (4, 2, 8, 8), 'mask must be (4, 1, 8, 8) or (4, 8, 8)'),
        ((4, 2, 3, 8, 8), (4, 1, 8, 9), 'found (4, 1, 8, 9)'),
        ((4, 2, 3, 8, 8), (3, 1, 8, 8), 'found (3, 1, 8, 8)'),
    ],
)
def test_wrong_layouts_are_named(image: tuple[int, ...], mask: tuple[int, ...], message: str) -> None:
    batch = {'image': torch.zeros(image), 'mask': torch.zeros(mask, dtype=torch.int64)}
    with pytest.raises(ValueError, match=re.escape(message)):
        BitemporalAugmentation(K.RandomHorizontalFlip())(batch)


def test_from_kornia_keeps_children_order_and_draws_per_frame() -> None:
    normalise, crop, noise = K.Normalize(torch.zeros(3), torch.ones(3)), K.RandomCrop((8, 8)), K.RandomGaussianNoise()
    flip = K.RandomHorizontalFlip(p=0.3)
    sequential = K.AugmentationSequential(
        K.VideoSequential(normalise, crop, flip),
        K.VideoSequential(noise, normalise, same_on_frame=False),
        data_keys=None,
        keepdim=True,
        extra_args={DataKey.MASK: {'resample': 'nearest', 'align_corners': None, 'fill': 7}},
    )
    safe = BitemporalAugmentation.from_kornia(sequential)
    children = [list(step) for step in safe.steps]
    assert [[id(c) for c in step] for step in children] == [
        [id(c) for c in step] for step in ([normalise], [crop, flip], [noise, normalise])
    ]
    assert flip.p == 0.3
    assert [step.same_on_frame for step in safe.steps if isinstance(step, K.VideoSequential)] == [True, False]
    assert safe.steps[1].extra_args[DataKey.MASK]['fill'] == 7


class Pairs(NonGeoDataset):
    """As torchgeo's OSCD: one sample goes through ``transforms`` as a batch of one."""

    def __init__(self, transforms: nn.Module) -> None:
        self.transforms = transforms

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        moved = self.transforms(coordinates(1))
        return {'image': moved['image'].squeeze(0), 'mask': moved['mask'].squeeze(0)}


def test_make_change_safe_reaches_datasets_through_subsets_and_finds_nothing_the_second_time() -> None:
    crop = K.AugmentationSequential(K.VideoSequential(K.RandomCrop((8, 8))), data_keys=None, keepdim=True)
    plain = K.AugmentationSequential(K.RandomCrop((8, 8)), data_keys=None)
    datamodule = LEVIRCDDataModule(patch_size=8)
    usual = datamodule.aug  # torchgeo's default holds no VideoSequential
    dataset = Pairs(crop)
    datamodule.train_dataset, datamodule.val_dataset = random_split(random_split(dataset, [5, 1])[0], [4, 1])
    datamodule.test_dataset = Pairs(plain)
    assert make_change_safe(datamodule) == ['train_aug', 'val_aug', 'test_aug', 'train_dataset.transforms']
    assert datamodule.aug is usual
    assert datamodule.test_dataset.transforms is plain
    for part in (datamodule.train_dataset, datamodule.val_dataset):
        assert_aligned(next(iter(DataLoader(part, batch_size=len(part)))), 0, SIDE)
    assert make_change_safe(datamodule) == []
    batch = datamodule.train_aug(coordinates(4))
    batch['image'] = batch['image'] * 255  # torchgeo's default normalisation
    assert batch['image'].shape[-2:] == (8, 8)
    places = torch.stack([batch['mask'][:, 0] % SIDE, batch['mask'][:, 0] // SIDE], dim=1)
    torch.testing.assert_close(batch['image'][:, 0, :2], places.float(), rtol=0, atol=1e-3)


def write_oscd(root: Path, bands: tuple[str, ...], side: int = 20) -> None:
    """Three regions in OSCD's folders; band k is the pixel's number plus k, date 2 is 1000 more."""
    number = np.arange(side * side, dtype=np.int32).reshape(side, side)
    for region in ('a', 'b', 'c'):
        labels = root / 'Onera Satellite Change Detection dataset - Train Labels' / region / 'cm'
        images = root / 'Onera Satellite Change Detection dataset - Images' / region
        labels.mkdir(parents=True)
        Image.fromarray((number % 2 * 255).astype(np.uint8)).save(labels / 'cm.png')
        for date in (1, 2):
            (images / f'imgs_{date}_rect').mkdir(parents=True)
            for k, band in enumerate(bands):
                picture = Image.fromarray(number + k + 1000 * (date - 1))
                picture.save(images / f'imgs_{date}_rect' / f'{band}.tif')
        (images / 'dates.txt').write_text('date_1: 20160101\ndate_2: 20170101\n')


def test_torchgeos_oscd_datamodule_loads_aligned_batches(tmp_path: Path) -> None:
    datamodule = OSCDDataModule(root=str(tmp_path), batch_size=2, patch_size=8, val_split_pct=0.4)
    write_oscd(tmp_path, datamodule.bands)
    datamodule.setup('fit')
    assert make_change_safe(datamodule) == ['aug', 'dataset.transforms']
    batch = datamodule.aug(next(iter(datamodule.train_dataloader())))
    assert batch['image'].shape == (2, 2, 13, 8, 8)
    assert batch['mask'].shape == (2, 1, 8, 8)
    raw = batch['image'] * datamodule.std[:, None, None] + datamodule.mean[:, None, None]
    offset = torch.arange(13.0)[:, None, None] + torch.tensor([0.0, 1000.0])[:, None, None, None]
    number = (raw - offset).round()
    assert (number == number[:, :1, :1]).all(), 'dates or bands have moved apart'
    assert torch.equal(batch['mask'][:, 0], (number[:, 0, 0] % 2).long())
    assert (number[:, 0, 0, :, 1:] - number[:, 0, 0, :, :-1] == 1).all()
