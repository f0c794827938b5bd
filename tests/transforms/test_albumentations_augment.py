"""What the augmentation does beyond its gate, which is that of the mixers and tested there."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from toys import SIZE, Toy, mask_of
from zooms import NearestZoom, class_of, interpolating, plateaus

from hsiaug.ratio import Linear
from hsiaug.samples import Sample, SpecMismatchError
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms.albumentations_augment import GeneratorAugmentation


def arrays(sample: Sample) -> dict[str, np.ndarray]:
    image = np.ascontiguousarray(sample['image'].permute(1, 2, 0).numpy())
    return {'image': image, **{key: value.numpy() for key, value in sample.items() if key != 'image'}}


TOY = Toy('segmentation', 40)


def fits(out: dict[str, Any], key: str = 'mask') -> bool:
    image = torch.from_numpy(np.ascontiguousarray(out['image'])).permute(2, 0, 1)
    return bool(torch.equal(mask_of(image), torch.from_numpy(out[key].reshape(image.shape[1:]).astype(np.int64))))


def altered(transform: Any, n: int = 60) -> list[bool]:
    given = [arrays(TOY[i % 40]) for i in range(n)]
    return [not np.array_equal(transform(**one)['image'], one['image']) for one in given]


@pytest.mark.parametrize('place', [0, 2])
def test_masks_follow_images_through_the_pipeline(place: int) -> None:
    torch.manual_seed(place)
    zoom = NearestZoom()
    transforms: list[Any] = [A.HorizontalFlip(p=0.5), A.RandomRotate90(p=0.5), A.RandomCrop(6, 6, p=1)]
    transforms.insert(place, GeneratorAugmentation(zoom, p=0.5))
    pipeline = A.Compose(transforms, seed=0)
    for i in range(40):
        out = pipeline(**arrays(TOY[i]))
        assert out['image'].shape == (6, 6, 5)
        assert fits(out)
    assert 8 < zoom.given < 32


@pytest.mark.parametrize('dtype', [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize('trailing', [(), (1,)])
def test_masks_keep_dtype_and_layout_and_may_have_other_names(dtype: type, trailing: tuple[int, ...]) -> None:
    given = arrays(TOY[0])
    mask = given['mask'].astype(dtype).reshape(SIZE, SIZE, *trailing)
    pipeline = A.Compose([GeneratorAugmentation(NearestZoom(), p=1)], additional_targets={'truth': 'mask'}, strict=True)
    out = pipeline(image=given['image'], mask=mask, truth=mask)
    for key in ('mask', 'truth'):
        assert out[key].dtype == dtype
        assert out[key].shape == mask.shape
        assert fits(out, key)
    assert np.array_equal(out['image'][::2, ::2], out['image'][1::2, 1::2])  # doubled
    out = GeneratorAugmentation(NearestZoom('scene'), p=1)(image=given['image'], label=7, name='field 3')
    assert (out['label'], out['name']) == (7, 'field 3')


def test_super_resolved_samples_in_a_pipeline() -> None:
    data = plateaus(12)
    pipeline = A.Compose([GeneratorAugmentation(interpolating(data, factor=2), p=1)], seed=1)
    outs = [pipeline(**arrays({'image': x, 'mask': y})) for x, y in zip(data.x, data.y, strict=True)]
    images = torch.stack([torch.from_numpy(out['image']).permute(2, 0, 1) for out in outs])
    masks = torch.stack([torch.from_numpy(out['mask']) for out in outs])
    assert (class_of(images) == masks).float().mean() > 0.85
    assert (class_of(images) == data.y).float().mean() < 0.7


def test_ratio_zero_draws_nothing_and_a_schedule_is_followed() -> None:
    before = torch.get_rng_state()
    assert not any(altered(GeneratorAugmentation(NearestZoom(), p=0)))
    assert torch.equal(torch.get_rng_state(), before)
    transform = GeneratorAugmentation(NearestZoom(), ratio=Linear(0, 1e9, 1))
    assert not any(altered(transform))
    transform.set_epoch(1)
    assert all(altered(transform))


def test_replay_and_saved_form() -> None:
    given = arrays(TOY[0])
    first = A.ReplayCompose([GeneratorAugmentation(NearestZoom(), p=1)])
    out = first(**given)
    draw = first.transforms[0].params['draw']
    again = first.transforms[0].apply_with_params({'draw': draw}, **given)
    assert np.array_equal(out['image'], again['image'])
    assert np.array_equal(out['mask'], again['mask'])
    transform = GeneratorAugmentation(NearestZoom(), ratio=0.5)
    assert repr(transform) == 'GeneratorAugmentation(ratio=0.5, generator=<NearestZoom: alters segmentation samples>)'
    saved = A.to_dict(A.Compose([transform]))
    assert set(map(type, saved['transform']['transforms'][0].values())) <= {str, float}
    restored = A.from_dict(saved, nonserializable={'GeneratorAugmentation': GeneratorAugmentation(NearestZoom(), p=1)})
    assert fits(restored(**given))
    logged = A.Compose([GeneratorAugmentation(NearestZoom(), p=1)], save_applied_params=True)(**given)
    assert set(logged['applied_transforms'][0][1]) == {'draw', 'shape'}


def test_mistakes(data: TrainingData) -> None:
    with pytest.raises(TypeError, match='Noise has no augment'):
        GeneratorAugmentation(fit_generator('noise', data), p=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r'ratio|fraction'):
        GeneratorAugmentation(NearestZoom(), ratio=1, p=0.5)
    transform, given = GeneratorAugmentation(NearestZoom(), p=1), arrays(TOY[0])
    with pytest.raises(ValueError, match=r"have \['image', 'mask'\], found \['image'\]"):
        transform(image=given['image'])
    with pytest.raises(ValueError, match=r"found \['image', 'keypoints', 'mask'\]"):
        transform(**given, keypoints=np.zeros((1, 2)))
    with pytest.raises(TypeError, match=r'dtype uint8, expected float32 in the unit of the generator \(reflectance\)'):
        transform(image=given['image'].astype(np.uint8), mask=given['mask'])
    with pytest.raises(SpecMismatchError, match=r'mask of shape \(4, 8\) with an image of shape \(8, 8, 5\)'):
        transform(image=given['image'], mask=given['mask'][:4])
    pasting = GeneratorAugmentation(fit_generator('region_paste', plateaus()), p=1)
    with pytest.raises(TypeError, match='RegionPaste brings in pixels of other samples with their classes'):
        pasting(image=plateaus().x[0].movedim(0, -1).numpy(), mask=plateaus().y[0].numpy())
    with pytest.raises(TypeError, match=r"one image, found further images \['image2'\]"):
        A.Compose([transform], additional_targets={'image2': 'image'})
