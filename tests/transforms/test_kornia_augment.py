"""What the augmentation does beyond its gate, which is that of the mixers and tested there."""

from __future__ import annotations

import kornia.augmentation as K
import pytest
import torch
from torch import Tensor
from toys import SIZE, Toy, aligned, mask_of
from zooms import NearestZoom, class_of, interpolating, plateaus, unaltered

from hsiaug.samples import SpecMismatchError
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms.kornia import RandomSyntheticMix
from hsiaug.transforms.kornia_augment import RandomGeneratorAugmentation


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return Toy('segmentation', 40).data


def geometry() -> list[torch.nn.Module]:
    return [K.RandomHorizontalFlip(p=0.5), K.RandomRotation90((1, 3), p=0.5), K.RandomCrop((6, 6), p=1)]


def fits(out: dict[str, Tensor]) -> bool:
    """Whether masks follow images, whatever channel kornia gives masks."""
    return aligned({**out, 'mask': out['mask'].reshape(len(out['mask']), *out['image'].shape[-2:])})


@pytest.mark.parametrize('place', [0, 2])
def test_masks_follow_images_through_the_container(batch: dict[str, Tensor], place: int) -> None:
    torch.manual_seed(place)
    zoom, children = NearestZoom(), geometry()
    children.insert(place, RandomGeneratorAugmentation(zoom, p=0.5))
    for _ in range(5):
        out = K.AugmentationSequential(*children, data_keys=None)(batch)
        assert out['image'].shape == (40, 5, 6, 6)
        assert out['mask'].dtype == torch.int64
        assert fits(out)
    assert 60 < zoom.given < 140


@pytest.mark.parametrize('layout', ['tensor', 'list', 'mask first', 'two masks'])
def test_data_keys_and_layouts_of_masks(batch: dict[str, Tensor], layout: str) -> None:
    torch.manual_seed(1)
    image, mask = batch['image'], batch['mask'].unsqueeze(1).float()
    child = RandomGeneratorAugmentation(NearestZoom(), p=0.5)
    if layout == 'mask first':
        out = K.AugmentationSequential(child, data_keys=None)({'mask': mask, 'image': image})
        altered, masks = out['image'], [out['mask']]
    elif layout == 'two masks':
        container = K.AugmentationSequential(child, data_keys=['input', 'mask', 'mask'])
        altered, first, second = container(image, mask, 2 * mask)
        masks = [first, second / 2]
    else:
        given = list(mask.split(1)) if layout == 'list' else mask
        altered, moved = K.AugmentationSequential(child, data_keys=['input', 'mask'])(image, given)
        masks = [torch.cat(moved) if isinstance(moved, list) else moved]
    kept = unaltered(image, altered)
    assert kept.any() and not kept.all()  # noqa: PT018
    for one in masks:
        assert torch.equal(mask_of(altered), one[:, 0].long())
        assert torch.equal(one[kept], mask[kept])


def test_super_resolved_samples_in_a_container() -> None:
    torch.manual_seed(2)
    data = plateaus(30)
    child = RandomGeneratorAugmentation(interpolating(data, factor=3), p=0.5)
    out = K.AugmentationSequential(child, data_keys=None)({'image': data.x, 'mask': data.y})
    kept = unaltered(data.x, out['image'])
    assert 5 < int(kept.sum()) < 25
    mask = out['mask'][:, 0]
    assert (class_of(out['image']) == mask)[~kept].float().mean() > 0.85
    assert torch.equal(mask[kept], data.y[kept])


def test_params_replay_gate_and_windows(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(4)
    child = RandomGeneratorAugmentation(NearestZoom(), ratio=1)
    container = K.AugmentationSequential(K.RandomVerticalFlip(), child, data_keys=None)
    first = container(batch)
    params = container._params
    assert not torch.equal(first['image'], container(batch)['image'])
    replayed = container(batch, params=params)
    assert all(torch.equal(first[key], replayed[key]) for key in first)
    container(batch)
    with pytest.raises(ValueError, match='replay params with image and mask'):
        container(batch['mask'].unsqueeze(1).float(), params=params, data_keys=['mask'])


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_dtypes_single_images_and_gradients(batch: dict[str, Tensor], dtype: torch.dtype) -> None:
    torch.manual_seed(10)
    child = RandomGeneratorAugmentation(NearestZoom(), p=1, keepdim=True, image_only=True)
    one = child(batch['image'][0].to(dtype))
    assert one.shape == (5, SIZE, SIZE)
    assert one.dtype == dtype
    assert torch.equal(one[:, ::2, ::2], one[:, 1::2, 1::2])  # doubled
    image = batch['image'].clone().requires_grad_()
    out = RandomGeneratorAugmentation(NearestZoom(), p=0.5)(image)
    out.sum().backward()
    assert image.grad is not None
    assert torch.equal(image.grad[:, 0, 0, 0], unaltered(batch['image'], out.detach()).float())
    assert child(batch['image'][:0]).shape == (0, 5, SIZE, SIZE)


def test_it_stands_beside_mixing_and_keeps_its_weights_to_itself(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(11)
    child = RandomGeneratorAugmentation(NearestZoom(), p=0.5)
    mix = RandomSyntheticMix(Toy('segmentation', 20, seed=1), p=0.5)
    container = K.AugmentationSequential(mix, child, data_keys=None)
    assert fits(container(batch))
    assert not list(container.parameters())
    assert not container.state_dict()
    assert repr(child) == 'RandomGeneratorAugmentation(p=0.5, generator=<NearestZoom: alters segmentation samples>)'


def test_images_altered_without_their_masks_are_an_error_at_the_next_call(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(12)
    container = K.AugmentationSequential(RandomGeneratorAugmentation(NearestZoom(), p=0.9), data_keys=['input'])
    container(batch['image'])
    with pytest.raises(ValueError, match=r'masks were not passed.*data_keys'):
        container(batch['image'])
    scenes = K.AugmentationSequential(RandomGeneratorAugmentation(NearestZoom('scene'), p=0.9), data_keys=['input'])
    assert all(not unaltered(batch['image'], scenes(batch['image'])).all() for _ in range(3))  # these have no masks
    alone = K.AugmentationSequential(
        RandomGeneratorAugmentation(NearestZoom(), p=0.9, image_only=True), data_keys=['input']
    )
    assert all(not unaltered(batch['image'], alone(batch['image'])).all() for _ in range(3))
    with pytest.raises(TypeError, match='image_only=True, but a mask was passed'):
        alone(batch['image'], batch['mask'].unsqueeze(1), data_keys=['input', 'mask'])


def test_mistakes(batch: dict[str, Tensor], data: TrainingData) -> None:
    with pytest.raises(TypeError, match='Noise has no augment'):
        RandomGeneratorAugmentation(fit_generator('noise', data), p=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'change', expected one of \('segmentation', 'scene'\)"):
        RandomGeneratorAugmentation(NearestZoom('change'), p=0.5)
    with pytest.raises(ValueError, match=r'ratio|fraction'):
        RandomGeneratorAugmentation(NearestZoom())
    pasting = RandomGeneratorAugmentation(fit_generator('region_paste', plateaus()), p=1)
    with pytest.raises(TypeError, match='RegionPaste brings in pixels of other samples with their classes'):
        pasting(plateaus().x)
    container = K.AugmentationSequential(
        RandomGeneratorAugmentation(NearestZoom(), p=1), data_keys=['input', 'bbox_xyxy']
    )
    with pytest.raises(TypeError, match='boxes cannot be altered'):
        container(batch['image'], torch.ones(40, 1, 4))
    child = RandomGeneratorAugmentation(NearestZoom(), p=1)
    child(batch['image'])
    for shape in ((40, 1, 4, 4), (1, 1, 8, 8)):
        with pytest.raises(SpecMismatchError, match=r'expected 40 of the size 8 x 8 of the images'):
            child.transform_masks(torch.zeros(shape), child._params, child.flags)
