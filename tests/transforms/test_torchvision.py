"""Among torchvision's transforms, which know images and masks by the types of their tensors."""

import pytest
import torch
from test_mix import batch_of
from torchvision import tv_tensors
from torchvision.transforms import v2
from toys import Toy, aligned

from hsiaug import SyntheticMix
from hsiaug.samples import SpecMismatchError


@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_masks_stay_masks_so_that_they_are_flipped_with_their_images(mode: str) -> None:
    plain = batch_of(Toy('segmentation', 8), 0, 8)
    batch = {**plain, 'image': tv_tensors.Image(plain['image']), 'mask': tv_tensors.Mask(plain['mask'])}
    mix = SyntheticMix(Toy('segmentation', 30, seed=1), 1.0, mode)  # type: ignore[arg-type]
    pipeline = v2.Compose([mix, v2.RandomHorizontalFlip(p=1), v2.RandomCrop(6)])
    out = pipeline(batch)
    assert type(out['image']) is tv_tensors.Image
    assert type(out['mask']) is tv_tensors.Mask
    assert out['image'].shape[0] == (16 if mode == 'append' else 8)
    assert out['mask'].shape[-2:] == out['image'].shape[-2:] == (6, 6)
    assert aligned(dict(out))
    assert int(out['synthetic'].sum()) == (8 if mode == 'append' else 4)
    untyped = SyntheticMix(Toy('segmentation', 30, seed=1), 1.0, mode)(plain)  # type: ignore[arg-type]
    assert type(untyped['mask']) is torch.Tensor


def test_before_mixup_of_labelled_images() -> None:
    mix = SyntheticMix(Toy('scene', 30, seed=1), 1.0, 'append')
    batch = batch_of(Toy('scene', 8), 0, 8)
    out = v2.Compose([mix, v2.RandomChoice([v2.MixUp(num_classes=3), v2.CutMix(num_classes=3)])])(batch)
    assert out['label'].shape == (16, 3)
    assert torch.allclose(out['label'].sum(1), torch.ones(16))
    assert not torch.equal(out['image'], mix.eval()(batch)['image'])
    masks = batch_of(Toy('segmentation', 8), 0, 8)
    with pytest.raises(ValueError, match='does not support'):  # why masks need ours
        v2.MixUp(num_classes=3)({**masks, 'mask': tv_tensors.Mask(masks['mask'])})


def test_boxes_are_refused() -> None:
    mix = SyntheticMix(Toy('scene', 30, seed=1), 1.0, 'append')
    batch = batch_of(Toy('scene', 4), 0, 4)
    boxes = tv_tensors.BoundingBoxes(torch.zeros(4, 4), format='XYXY', canvas_size=(8, 8))
    with pytest.raises(SpecMismatchError, match="BoundingBoxes as 'where'"):
        mix({**batch, 'where': boxes})
    with pytest.raises(SpecMismatchError, match="'boxes': real samples have it"):
        mix({**batch, 'boxes': [torch.zeros(2, 4)] * 4})
