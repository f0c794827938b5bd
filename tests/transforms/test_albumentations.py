from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset
from torchgeo.datasets import NonGeoDataset

from hsiaug.ratio import Linear
from hsiaug.samples import Sample, SampleSpec, SpecMismatchError
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms.albumentations import SyntheticMix, albumentations_worker_init

BANDS, SIDE = 3, 8
SYNTHETIC = 0.5  # values of the last band begin here for synthetic samples, at 0 for real ones


class Patches(NonGeoDataset):
    """Images whose first band exceeds 0.5 where the mask is 1; the last band says who they are, the label too."""

    def __init__(self, length: int, synthetic: bool, kind: str = 'segmentation', augment: Any = None) -> None:
        rng = torch.Generator().manual_seed(100 + synthetic)
        images = torch.rand(length, BANDS, SIDE, SIDE, generator=rng)
        images[:, 0] = images[:, 0].round() * 0.7 + images[:, 0] * 0.1  # far from the threshold
        images[:, -1] = (torch.arange(length) / 4096 + SYNTHETIC * synthetic)[:, None, None]  # exact in float32
        self.images, self.kind, self.augment, self.synthetic = images, kind, augment, synthetic
        classes = tuple(f'class {i}' for i in range(400 if kind == 'scene' else 2))
        self.spec = SampleSpec(kind, BANDS, classes, size=(SIDE, SIDE), unit='reflectance')  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index].clone()
        if self.kind == 'scene':
            return {'image': image, 'label': torch.tensor(index + 300 * self.synthetic)}
        sample = {'image': image, 'mask': (image[0] > 0.5).to(torch.int64)}
        if self.augment is None:
            return sample
        out = self.augment(image=image.permute(1, 2, 0).numpy(), mask=sample['mask'].numpy())
        return {'image': torch.from_numpy(out['image']).permute(2, 0, 1), 'mask': torch.from_numpy(out['mask'])}

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        sample = self[index]
        image = np.ascontiguousarray(sample['image'].permute(1, 2, 0).numpy())
        return {'image': image, **{key: value.numpy() for key, value in sample.items() if key != 'image'}}


def identity(image: np.ndarray) -> float:
    return float(image[..., -1].max())


def is_synthetic(image: np.ndarray) -> bool:
    return identity(image) >= SYNTHETIC


def assert_aligned(image: np.ndarray, mask: np.ndarray) -> None:
    assert np.array_equal(image[..., 0] > 0.5, mask.reshape(image.shape[:2]))


@pytest.fixture(scope='module')
def real() -> Patches:
    return Patches(64, synthetic=False)


@pytest.fixture(scope='module')
def synthetic() -> Patches:
    return Patches(64, synthetic=True)


@pytest.fixture(scope='module')
def scenes() -> Patches:
    return Patches(64, synthetic=True, kind='scene')


def geometry() -> list[A.BasicTransform]:
    return [A.HorizontalFlip(p=0.5), A.RandomRotate90(p=0.5), A.RandomCrop(6, 6, p=1)]


def run(transform: Callable[..., dict[str, Any]], real: Patches, n: int = 60) -> list[dict[str, Any]]:
    return [transform(**real.arrays(i % len(real))) for i in range(n)]


@pytest.mark.parametrize('place', [0, 2])
def test_masks_follow_images_through_the_pipeline(real: Patches, synthetic: Patches, place: int) -> None:
    torch.manual_seed(place)
    transforms = geometry()
    transforms.insert(place, SyntheticMix(synthetic, ratio=1))
    out = run(A.Compose(transforms, seed=0), real)
    for i, one in enumerate(out):
        assert_aligned(one['image'], one['mask'])
        assert one['image'].shape == (6, 6, BANDS)
        if not is_synthetic(one['image']):
            assert identity(one['image']) == i / 4096
    assert 15 < sum(is_synthetic(one['image']) for one in out) < 45


def test_every_sample_of_the_source_can_come_as_it_is(real: Patches, synthetic: Patches) -> None:
    out = run(A.Compose([SyntheticMix(synthetic, p=1)]), real, n=500)
    assert {identity(one['image']) for one in out} == {SYNTHETIC + i / 4096 for i in range(64)}
    held = {image.numpy().tobytes() for image in synthetic.images}
    assert {np.moveaxis(one['image'], -1, 0).tobytes() for one in out} == held


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64, np.bool_, np.float32])
@pytest.mark.parametrize('trailing', [(), (1,)])
def test_masks_keep_dtype_and_layout(real: Patches, synthetic: Patches, dtype: type, trailing: tuple[int, ...]) -> None:
    arrays = real.arrays(0)
    mask = arrays['mask'].astype(dtype).reshape(SIDE, SIDE, *trailing)
    out = A.Compose([SyntheticMix(synthetic, p=1)], strict=True)(image=arrays['image'], mask=mask)
    assert out['mask'].dtype == dtype
    assert out['mask'].shape == mask.shape
    assert_aligned(out['image'], out['mask'])


@pytest.mark.parametrize(
    'label', [7, np.int64(7), np.int32(7), np.array(7), np.array([7], dtype=np.int16), torch.tensor(7), 7.0]
)
def test_labels_keep_their_type(real: Patches, scenes: Patches, label: Any) -> None:
    transform = A.Compose([SyntheticMix(scenes, p=1), A.HorizontalFlip()], strict=True)
    out = transform(image=real.arrays(0)['image'], label=label)
    assert type(out['label']) is type(label)
    assert getattr(out['label'], 'dtype', None) == getattr(label, 'dtype', None)
    assert getattr(out['label'], 'shape', None) == getattr(label, 'shape', None)
    assert int(np.asarray(out['label']).item()) == 300 + round((identity(out['image']) - SYNTHETIC) * 4096)


def test_ungated_samples_pass_as_the_same_objects(real: Patches, scenes: Patches) -> None:
    torch.manual_seed(0)
    image, label = real.arrays(0)['image'], np.array(3)
    outs = [SyntheticMix(scenes, p=0.5)(image=image, label=label) for _ in range(40)]
    kept = [out for out in outs if not is_synthetic(out['image'])]
    assert 8 < len(kept) < 32
    assert all(out['image'] is image and out['label'] is label for out in kept)


def test_additional_targets_name_masks_and_labels(real: Patches, synthetic: Patches, scenes: Patches) -> None:
    image, mask = real.arrays(0)['image'], real.arrays(0)['mask']
    out = A.Compose([SyntheticMix(synthetic, p=1), *geometry()], additional_targets={'truth': 'mask'})(
        image=image, truth=mask
    )
    assert_aligned(out['image'], out['truth'])
    out = A.Compose([SyntheticMix(scenes, p=1)], additional_targets={'y': 'label'})(image=image, y=np.array(1))
    assert out['y'].shape == ()
    assert int(out['y']) == 300 + round((identity(out['image']) - SYNTHETIC) * 4096)
    with pytest.raises(
        TypeError, match=r"found further images \['image2'\].*SyntheticMix on batches, with BitemporalAugmentation"
    ):
        A.Compose([SyntheticMix(synthetic, p=1)], additional_targets={'image2': 'image'})


@pytest.mark.parametrize(('given', 'expected'), [({'ratio': 0.25}, 0.2), ({'ratio': 5}, 5 / 6), ({'p': 0.3}, 0.3)])
@pytest.mark.parametrize('seed', [None, 1])
def test_gates_are_bernoulli_with_the_ratio_as_a_fraction(
    real: Patches, synthetic: Patches, given: dict[str, Any], expected: float, seed: int | None
) -> None:
    torch.manual_seed(3)
    n = 1500
    out = run(A.Compose([SyntheticMix(synthetic, **given)], seed=seed), real, n)
    count = sum(is_synthetic(one['image']) for one in out)
    assert abs(count - n * expected) < 4 * math.sqrt(n * expected * (1 - expected))


@pytest.mark.parametrize('given', [{'ratio': 0}, {'p': 0}])
def test_ratio_zero_is_bit_identical_to_no_mixing(real: Patches, synthetic: Patches, given: dict[str, Any]) -> None:
    def all_of(*first: A.BasicTransform) -> list[Any]:
        torch.manual_seed(8)
        out = run(A.Compose([*first, *geometry(), A.GaussNoise(p=0.5)], seed=4), real)
        return [*(one['image'].tobytes() + one['mask'].tobytes() for one in out), torch.rand(1).item()]

    assert all_of() == all_of(SyntheticMix(synthetic, **given))
    assert all_of() != all_of(SyntheticMix(synthetic, p=0.1))
    before = torch.get_rng_state()
    run(SyntheticMix(synthetic, **given), real)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_of_several_transforms_can_be_a_mix(real: Patches, synthetic: Patches) -> None:
    only = A.OneOf([SyntheticMix(synthetic, p=0.5)], p=1)  # which forces the chosen one
    assert all(is_synthetic(one['image']) for one in run(only, real, 20))


def test_a_schedule_is_followed(real: Patches, synthetic: Patches) -> None:
    torch.manual_seed(6)
    mix = SyntheticMix(synthetic, ratio=Linear(0, 3, 2))
    fractions = []
    for epoch in range(3):
        mix.set_epoch(epoch)
        fractions.append(np.mean([is_synthetic(one['image']) for one in run(A.Compose([mix]), real, 400)]))
    assert fractions == pytest.approx([0, 0.6, 0.75], abs=0.1)
    assert fractions[0] == 0


# --- randomness -----------------------------------------------------------------------------------------------------


def identities(transform: A.Compose, real: Patches, n: int = 60) -> list[float]:
    return [identity(one['image']) for one in run(transform, real, n)]


def test_without_a_seed_torch_decides(real: Patches, synthetic: Patches) -> None:
    mix = A.Compose([SyntheticMix(synthetic, p=0.5)])

    def stream(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return identities(mix, real)

    assert stream(1) == stream(1)
    assert stream(1) != stream(2)


def test_a_seeded_pipeline_repeats_whatever_torch_does(real: Patches, synthetic: Patches) -> None:
    def stream(seed: int) -> list[float]:
        return identities(A.Compose([SyntheticMix(synthetic, p=0.5)], seed=seed), real)

    before = torch.get_rng_state()
    assert stream(1) == stream(1)
    assert stream(1) != stream(2)
    assert torch.equal(torch.get_rng_state(), before)

    def from_state(seed: int) -> list[float]:
        transform = A.Compose([SyntheticMix(synthetic, p=0.5)])
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return identities(transform, real)

    assert from_state(1) == from_state(1)
    assert from_state(1) != from_state(2)


def test_in_a_seeded_pipeline_the_gate_does_not_follow_the_other_transforms(real: Patches, synthetic: Patches) -> None:
    # The trap: albumentations gives all children of a seeded pipeline one stream. It is mended when this fails.
    corner = np.zeros((2, 2, 1), dtype=np.float32)
    corner[0, 0] = 1
    flips = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)], seed=11)
    assert {int(flips(image=corner)['image'].argmax()) for _ in range(100)} == {0, 3}  # both flips or none

    n = 400
    out = run(A.Compose([SyntheticMix(synthetic, p=0.5), A.HorizontalFlip(p=0.5)], seed=11), real, n)
    gates = np.array([is_synthetic(one['image']) for one in out])
    flipped = []
    for one, gate in zip(out, gates, strict=True):
        number = round((identity(one['image']) - SYNTHETIC * gate) * 4096)
        original = (synthetic if gate else real).arrays(number)['image']
        flipped.append(not np.array_equal(one['image'], original))
    assert 0.4 < np.mean(gates == flipped) < 0.6
    twice = run(A.Compose([SyntheticMix(synthetic, p=0.49)], seed=11), real, n)
    assert 0.4 < np.mean(gates == [is_synthetic(one['image']) for one in twice]) < 0.6  # nor does one mix another


def epochs(dataset: Any, seed: int, persistent: bool, init: Any = None) -> list[list[list[float]]]:
    """Identities of the samples, by epoch and batch; even batches come from one worker, odd ones from the other."""
    torch.manual_seed(seed)
    loader = DataLoader(dataset, 16, num_workers=2, persistent_workers=persistent, worker_init_fn=init)
    out = []
    for _ in range(2):
        batches = [batch['image'].permute(0, 2, 3, 1).numpy() for batch in loader]
        out.append([[identity(image) for image in batch] for batch in batches])
    return out


@pytest.mark.parametrize('persistent', [True, False])
@pytest.mark.parametrize('pipeline_seed', [None, 3])
def test_in_workers_draws_differ_by_worker_and_epoch_and_repeat_with_the_seed(
    synthetic: Patches, persistent: bool, pipeline_seed: int | None
) -> None:
    augment = A.Compose([SyntheticMix(synthetic, p=0.5)], seed=pipeline_seed)
    dataset = Patches(64, False, augment=augment)
    first = epochs(dataset, 5, persistent)
    batches = [batch for epoch in first for batch in epoch]
    gates = [tuple(value >= SYNTHETIC for value in batch) for batch in batches]
    draws = [tuple(value for value in batch if value >= SYNTHETIC) for batch in batches]
    assert len(set(gates)) == len(set(draws)) == 8  # two workers with two batches each, two epochs
    assert 35 < sum(map(sum, gates)) < 93
    assert epochs(dataset, 5, persistent) == first
    assert epochs(dataset, 6, persistent) != first


def test_a_schedule_reaches_workers_that_live_on(synthetic: Patches) -> None:
    mix = SyntheticMix(synthetic, ratio=Linear(0, 1e9, 1))
    loader = DataLoader(Patches(16, False, augment=A.Compose([mix])), 8, num_workers=2, persistent_workers=True)
    for epoch, expected in enumerate([False, True]):
        mix.set_epoch(epoch)
        images = torch.cat([batch['image'] for batch in loader])
        assert [is_synthetic(image.permute(1, 2, 0).numpy()) for image in images] == [expected] * 16


class Flips(NonGeoDataset):
    """Which samples a pipeline of albumentations' own flips."""

    def __init__(self, pipeline: A.Compose) -> None:
        self.pipeline = pipeline

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Sample:
        image = np.zeros((2, 2, 1), dtype=np.float32)
        image[0, 0] = 1
        return {'image': torch.from_numpy(self.pipeline(image=image)['image']).permute(2, 0, 1)}


@pytest.mark.parametrize('persistent', [True, False])
def test_worker_init_mends_the_streams_of_a_whole_pipeline(persistent: bool) -> None:
    def stream(seed: int, init: Any) -> list[tuple[int, ...]]:
        dataset = Subset(Flips(A.Compose([A.HorizontalFlip(p=0.5)])), range(64))
        torch.manual_seed(seed)
        loader = DataLoader(dataset, 16, num_workers=2, persistent_workers=persistent, worker_init_fn=init)
        return [tuple(batch['image'][:, 0, 0, 0].int().tolist()) for _ in range(2) for batch in loader]

    trap = stream(1, None)
    assert trap[0] == trap[1]  # both workers: when this fails, albumentations has mended it
    mended = stream(1, albumentations_worker_init)
    assert len(set(mended)) == 8
    assert stream(1, albumentations_worker_init) == mended
    assert stream(2, albumentations_worker_init) != mended


def test_worker_init_says_where_it_belongs(synthetic: Patches) -> None:
    with pytest.raises(RuntimeError, match='worker_init_fn'):
        albumentations_worker_init(0)
    with pytest.raises(ValueError, match='found no albumentations pipeline among the attributes of Patches'):
        next(iter(DataLoader(synthetic, num_workers=1, worker_init_fn=albumentations_worker_init)))


# --- bad input ------------------------------------------------------------------------------------------------------


def test_targets_that_a_synthetic_sample_lacks_are_refused(real: Patches, synthetic: Patches, scenes: Patches) -> None:
    arrays = real.arrays(0)
    mix = SyntheticMix(synthetic, p=1)
    with pytest.raises(ValueError, match=r"have \['image', 'mask'\], found \['image'\]"):
        mix(image=arrays['image'])
    with pytest.raises(ValueError, match=r"have \['image', 'mask'\], found \['image', 'label', 'mask'\]"):
        mix(**arrays, label=3)
    with pytest.raises(ValueError, match=r"found \['image', 'mask', 'masks'\]"):
        mix(**arrays, masks=[arrays['mask']])
    with pytest.raises(ValueError, match=r"have \['image', 'label'\], found \['image', 'mask'\]"):
        SyntheticMix(scenes, p=1)(**arrays)
    assert mix(**arrays, name='field 3')['name'] == 'field 3'


def test_dtypes_and_shapes_that_do_not_fit_are_named(real: Patches, synthetic: Patches, scenes: Patches) -> None:
    image, mask = real.arrays(0)['image'], real.arrays(0)['mask']
    mix = A.Compose([SyntheticMix(synthetic, p=1)])
    with pytest.raises(TypeError, match=r'dtype uint8, expected float32 in the unit of the source \(reflectance\)'):
        mix(image=(image * 255).astype(np.uint8), mask=mask)
    for tensors in ({'image': torch.from_numpy(image), 'mask': mask}, {'image': image, 'mask': torch.from_numpy(mask)}):
        with pytest.raises(TypeError, match=r"numpy array is expected as '(image|mask)', found Tensor"):
            SyntheticMix(synthetic, p=1)(**tensors)
    with pytest.raises(SpecMismatchError, match=r'shape \(8, 8, 2\), expected \(8, 8, 3\)'):
        mix(image=image[..., :2].copy(), mask=mask)
    with pytest.raises(SpecMismatchError, match=r'shape \(4, 8, 3\), expected \(8, 8, 3\)'):
        mix(image=image[:4], mask=mask[:4])
    with pytest.raises(SpecMismatchError, match='label of dtype uint8, which cannot hold'):
        SyntheticMix(scenes, p=1)(image=image, label=np.uint8(3))
    for label in ('water', [3], np.array([0, 1])):
        with pytest.raises(TypeError, match='expected one class number'):
            SyntheticMix(scenes, p=1)(image=image, label=label)


def test_spectra_and_pairs_of_dates_are_sent_to_the_module(synthetic: Patches, data: TrainingData) -> None:
    source = copy.copy(synthetic)
    source.spec = SampleSpec('change', BANDS, ('no', 'yes'), size=(SIDE, SIDE))
    with pytest.raises(TypeError, match=r"'change'.*hsiaug\.transforms\.SyntheticMix"):
        SyntheticMix(source, ratio=1)
    with pytest.raises(TypeError, match=r"'spectrum'.*hsiaug\.transforms\.SyntheticMix"):
        SyntheticMix(fit_generator('noise', data), ratio=1)


@pytest.mark.parametrize('given', [{}, {'ratio': 1, 'p': 0.5}, {'p': -0.1}, {'ratio': float('nan')}])
def test_ratio_or_p_and_in_range(synthetic: Patches, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'ratio|fraction'):
        SyntheticMix(synthetic, **given)


# --- saved form -----------------------------------------------------------------------------------------------------


def test_a_pipeline_is_described_and_saved_without_its_source(real: Patches, synthetic: Patches) -> None:
    mix = SyntheticMix(synthetic, ratio=0.5)
    assert repr(mix) == 'SyntheticMix(ratio=0.5, source=<Patches: 64 segmentation samples>)'
    pipeline = A.Compose([mix, A.HorizontalFlip(p=0)])
    assert 'SyntheticMix(ratio=0.5, source=<Patches: 64 segmentation samples>)' in repr(pipeline)
    saved = A.to_dict(pipeline)
    described = saved['transform']['transforms'][0]
    assert described['description'] == repr(mix)
    assert described['p'] == pytest.approx(1 / 3)
    assert set(map(type, described.values())) <= {str, float}
    with pytest.raises(ValueError, match='name SyntheticMix you need to pass'):
        A.from_dict(saved)
    restored = A.from_dict(saved, nonserializable={'SyntheticMix': SyntheticMix(synthetic, p=1)})
    assert is_synthetic(restored(**real.arrays(0))['image'])


def test_applied_parameters_are_logged_without_the_sample(real: Patches, synthetic: Patches) -> None:
    out = A.Compose([SyntheticMix(synthetic, p=1)], save_applied_params=True)(**real.arrays(0))
    ((name, params),) = out['applied_transforms']
    assert name == 'SyntheticMix'
    assert set(params) == {'draw', 'shape'}
