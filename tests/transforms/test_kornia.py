from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.datasets import NonGeoDataset
from zooms import NearestZoom

from hsiaug.ratio import Linear
from hsiaug.samples import Sample, SampleSpec, SpecMismatchError
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator
from hsiaug.transforms.kornia import RandomSyntheticMix
from hsiaug.transforms.kornia_augment import RandomGeneratorAugmentation

BANDS, SIDE = 3, 8
SYNTHETIC = 0.5  # values of the last band begin here for synthetic samples, at 0 for real ones


class Pairs(NonGeoDataset):
    """Images of noise whose mask says where the first band exceeds 0.5; the last band says who they are."""

    def __init__(
        self, length: int, synthetic: bool, transforms: Callable[[Sample], Sample] | None = None, side: int = SIDE
    ) -> None:
        rng = torch.Generator().manual_seed(100 + synthetic)
        self.images = torch.rand(length, BANDS, side, side, generator=rng)
        number = torch.arange(length) / 4096  # exact in float32
        self.images[:, 0] = self.images[:, 0].round() * 0.7 + self.images[:, 0] * 0.1  # far from the threshold
        self.images[:, -1] = (number + SYNTHETIC * synthetic)[:, None, None]
        self.transforms = transforms
        self.spec = SampleSpec('segmentation', BANDS, ('low', 'high'), size=(side, side), unit='reflectance')

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index].clone()
        sample = {'image': image, 'mask': (image[0] > 0.5).to(torch.int64)}
        return sample if self.transforms is None else self.transforms(sample)

    def batch_of(self, rows: list[int]) -> dict[str, Tensor]:
        samples = [self[i] for i in rows]
        return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}


def is_synthetic(image: Tensor) -> Tensor:
    return image[:, -1].amax(dim=(-2, -1)) > 0.75 * SYNTHETIC


def identity(image: Tensor) -> list[float]:
    return image[:, -1].amax(dim=(-2, -1)).tolist()


def assert_aligned(image: Tensor, mask: Tensor) -> None:
    assert torch.equal((image[:, 0] > 0.5).to(mask.dtype), mask.reshape(image[:, 0].shape))


@pytest.fixture(scope='module')
def real() -> Pairs:
    return Pairs(256, synthetic=False)


@pytest.fixture(scope='module')
def synthetic() -> Pairs:
    return Pairs(64, synthetic=True)


@pytest.fixture
def batch(real: Pairs) -> dict[str, Tensor]:
    return real.batch_of(list(range(128)))


def geometry() -> list[torch.nn.Module]:
    return [K.RandomHorizontalFlip(p=0.5), K.RandomRotation90((1, 3), p=0.5), K.RandomCrop((6, 6), p=1)]


@pytest.mark.parametrize('place', [0, 2, 3])
@pytest.mark.parametrize('keepdim', [True, False])
def test_masks_follow_images_through_the_container(
    batch: dict[str, Tensor], synthetic: Pairs, place: int, keepdim: bool
) -> None:
    torch.manual_seed(place)
    children = geometry()
    # After the crop the batch is smaller, and so must the source be.
    children.insert(place, RandomSyntheticMix(synthetic if place < 3 else Pairs(64, True, side=6), ratio=1))
    out = K.AugmentationSequential(*children, data_keys=None, keepdim=keepdim)({**batch, 'name': ['a'] * 128})
    assert_aligned(out['image'], out['mask'])
    assert out['mask'].dtype == torch.int64
    assert out['mask'].shape == ((128, 6, 6) if keepdim else (128, 1, 6, 6))
    assert out['name'] == ['a'] * 128
    flags = is_synthetic(out['image'])
    assert 30 < int(flags.sum()) < 98
    positions = torch.arange(128)[~flags] / 4096
    torch.testing.assert_close(
        out['image'][~flags, -1].amax(dim=(1, 2)), positions
    )  # real samples stay in their places


@pytest.mark.parametrize('layout', ['tensor', 'list', 'mask first'])
def test_data_keys_and_layouts_of_masks(batch: dict[str, Tensor], synthetic: Pairs, layout: str) -> None:
    torch.manual_seed(1)
    image, mask = batch['image'], batch['mask'].unsqueeze(1).float()
    mix = RandomSyntheticMix(synthetic, p=0.5)
    if layout == 'mask first':
        out = K.AugmentationSequential(mix, data_keys=None)({'mask': mask, 'image': image})
        mixed, mixed_mask = out['image'], out['mask']
    else:
        masks = list(mask.split(1)) if layout == 'list' else mask
        mixed, mixed_mask = K.AugmentationSequential(mix, data_keys=['input', 'mask'])(image, masks)
    mixed_mask = torch.cat(mixed_mask) if isinstance(mixed_mask, list) else mixed_mask
    flags = is_synthetic(mixed)
    assert flags.any() and not flags.all()  # noqa: PT018
    assert_aligned(mixed, mixed_mask)
    assert torch.equal(mixed[~flags], image[~flags])
    assert torch.equal(mixed_mask[~flags], mask[~flags])


def test_every_draw_of_the_source_can_come_and_draws_are_independent(
    batch: dict[str, Tensor], synthetic: Pairs
) -> None:
    torch.manual_seed(2)
    mix = RandomSyntheticMix(synthetic, p=1)
    first = mix(batch['image'])
    # As a container hands the mask over.
    assert_aligned(first, mix.transform_masks(batch['mask'].unsqueeze(1).float(), mix._params, mix.flags))
    second = mix(batch['image'])
    assert identity(first) != identity(second)
    assert len(set(identity(first))) > 40  # of 64, in 128 draws
    assert set(identity(first) + identity(second)) <= {SYNTHETIC + i / 4096 for i in range(64)}


@pytest.mark.parametrize(('given', 'expected'), [({'ratio': 0.25}, 0.2), ({'ratio': 5}, 5 / 6), ({'p': 0.3}, 0.3)])
def test_gates_are_bernoulli_with_the_ratio_as_a_fraction(
    batch: dict[str, Tensor], synthetic: Pairs, given: dict[str, float], expected: float
) -> None:
    torch.manual_seed(3)
    mix = RandomSyntheticMix(synthetic, **given, image_only=True)  # type: ignore[arg-type]
    counts = [int(is_synthetic(mix(batch['image'])).sum()) for _ in range(40)]
    n = 40 * 128
    assert abs(sum(counts) - n * expected) < 4 * math.sqrt(n * expected * (1 - expected))
    assert len(set(counts)) > 5


def test_params_replay_gate_and_samples(batch: dict[str, Tensor], synthetic: Pairs) -> None:
    torch.manual_seed(4)
    container = K.AugmentationSequential(
        K.RandomVerticalFlip(), RandomSyntheticMix(synthetic, ratio=1), K.RandomRotation90((1, 3)), data_keys=None
    )
    first = container(batch)
    params = container._params
    other = container(batch)
    assert not torch.equal(first['image'], other['image'])
    replayed = container(batch, params=params)
    assert all(torch.equal(first[key], replayed[key]) for key in first)
    mix = RandomSyntheticMix(synthetic, p=0.5)
    image = mix(batch['image'])
    assert torch.equal(mix(batch['image'], params=copy.deepcopy(mix._params)), image)


def test_a_seed_repeats_and_another_does_not(batch: dict[str, Tensor], synthetic: Pairs) -> None:
    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return RandomSyntheticMix(synthetic, p=0.5)(batch['image'])

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6))


def test_same_on_batch_gates_as_one_and_repeats_one_sample(batch: dict[str, Tensor], synthetic: Pairs) -> None:
    torch.manual_seed(7)
    container = K.AugmentationSequential(RandomSyntheticMix(synthetic, p=0.5, same_on_batch=True), data_keys=None)
    drawn = []
    for _ in range(30):
        out = container(batch)
        assert_aligned(out['image'], out['mask'])
        flags = is_synthetic(out['image'])
        assert flags.all() or torch.equal(out['image'], batch['image'])
        if flags.all():
            assert len(set(identity(out['image']))) == 1
            drawn.append(identity(out['image'])[0])
    assert 5 < len(drawn) < 25
    assert len(set(drawn)) > 3


@pytest.mark.parametrize('given', [{'ratio': 0}, {'p': 0}])
@pytest.mark.parametrize('child', [RandomSyntheticMix, RandomGeneratorAugmentation])
def test_ratio_zero_is_bit_identical_to_no_such_child(
    batch: dict[str, Tensor], synthetic: Pairs, child: Any, given: dict[str, float]
) -> None:
    def run(*first: torch.nn.Module) -> dict[str, Tensor]:
        torch.manual_seed(8)
        container = K.AugmentationSequential(*first, *geometry(), K.RandomGaussianNoise(), data_keys=None)
        out: dict[str, Tensor] = {}
        for _ in range(3):
            out = container(batch)
        return {**out, 'next draw': torch.rand(3)}

    plain, zero = run(), run(child(synthetic if child is RandomSyntheticMix else NearestZoom(), **given))
    assert all(torch.equal(plain[key], zero[key]) for key in plain)


def test_a_schedule_is_followed(batch: dict[str, Tensor], synthetic: Pairs) -> None:
    container = K.AugmentationSequential(RandomSyntheticMix(synthetic, ratio=Linear(0, 3, 2)), data_keys=None)
    fractions = []
    for epoch in range(3):
        container[0].set_epoch(epoch)
        fractions.append(sum(is_synthetic(container(batch)['image']).float().mean().item() for _ in range(10)) / 10)
    assert fractions == pytest.approx([0, 0.6, 0.75], abs=0.06)
    assert fractions[0] == 0


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_and_single_images(synthetic: Pairs, real: Pairs, dtype: torch.dtype) -> None:
    torch.manual_seed(9)
    mix = RandomSyntheticMix(synthetic, p=1, keepdim=True, image_only=True)
    image = mix(real[0]['image'].to(dtype))
    assert image.shape == (BANDS, SIDE, SIDE)
    assert image.dtype == dtype
    held = synthetic.images.to(dtype)
    assert any(torch.equal(image, one) for one in held)


def test_gradients_pass_real_samples_only(batch: dict[str, Tensor], synthetic: Pairs) -> None:
    image = batch['image'].clone().requires_grad_()
    mixed = RandomSyntheticMix(synthetic, p=0.5)(image)
    mixed.sum().backward()
    flags = is_synthetic(mixed.detach())
    assert image.grad is not None
    assert torch.equal(image.grad[:, 0, 0, 0], (~flags).float())


def test_matrix_is_the_identity_and_an_empty_batch_stays_empty(batch: dict[str, Tensor], synthetic: Pairs) -> None:
    mix = RandomSyntheticMix(synthetic, p=0.5, image_only=True)
    mix(batch['image'])
    assert torch.equal(mix.transform_matrix, torch.eye(3).expand(128, 3, 3))
    assert mix(batch['image'][:0]).shape == (0, BANDS, SIDE, SIDE)


class Transform:
    """A container as the transform of a dataset's samples."""

    def __init__(self, synthetic: Pairs) -> None:
        self.container = K.AugmentationSequential(
            RandomSyntheticMix(synthetic, ratio=1), *geometry(), data_keys=None, keepdim=True
        )

    def __call__(self, sample: Sample) -> Sample:
        out: dict[str, Any] = self.container(sample)
        return out


@pytest.mark.parametrize('persistent', [True, False])
def test_in_workers_draws_differ_by_worker_and_epoch_and_repeat_with_the_seed(
    synthetic: Pairs, persistent: bool
) -> None:
    dataset = Pairs(64, False, transforms=Transform(synthetic))

    def run(seed: int) -> list[list[list[float]]]:
        torch.manual_seed(seed)
        loader = DataLoader(dataset, batch_size=16, num_workers=2, persistent_workers=persistent)
        epochs = []
        for _ in range(2):
            batches = list(loader)
            for batch in batches:
                assert_aligned(batch['image'], batch['mask'])
            epochs.append([identity(batch['image']) for batch in batches])
        return epochs

    first = run(10)
    gates = [[value > 0.75 * SYNTHETIC for value in batch] for epoch in first for batch in epoch]
    assert len({tuple(gate) for gate in gates}) == 8  # four batches out of two workers, two epochs
    draws = [{value for value in batch if value > 0.75 * SYNTHETIC} for epoch in first for batch in epoch]
    assert len({tuple(sorted(draw)) for draw in draws}) == 8
    assert 35 < sum(map(sum, gates)) < 93
    assert run(10) == first
    assert run(11) != first


def test_images_mixed_without_their_masks_are_an_error_at_the_next_call(
    batch: dict[str, Tensor], synthetic: Pairs
) -> None:
    container = K.AugmentationSequential(RandomSyntheticMix(synthetic, p=0.9), data_keys=['input'])
    container(batch['image'])
    with pytest.raises(ValueError, match=r'masks were not passed.*data_keys'):
        container(batch['image'])
    whole = K.AugmentationSequential(RandomSyntheticMix(synthetic, p=0.9), data_keys=['input', 'mask'])
    for _ in range(3):
        whole(batch['image'], batch['mask'].unsqueeze(1))
    alone = K.AugmentationSequential(RandomSyntheticMix(synthetic, p=0.9, image_only=True), data_keys=['input'])
    assert all(is_synthetic(alone(batch['image'])).any() for _ in range(3))
    with pytest.raises(TypeError, match='image_only=True, but a mask was passed'):
        alone(batch['image'], batch['mask'].unsqueeze(1), data_keys=['input', 'mask'])


@pytest.mark.parametrize(
    ('spec', 'kind'),
    [
        (SampleSpec('scene', 3, ('a', 'b'), size=(8, 8)), 'scene'),
        (SampleSpec('spectrum', 3, ('a', 'b')), 'spectrum'),
        (SampleSpec('change', 3, ('no', 'yes'), size=(8, 8)), 'change'),
    ],
)
def test_other_kinds_are_sent_to_the_module(synthetic: Pairs, spec: SampleSpec, kind: str) -> None:
    source = copy.copy(synthetic)
    source.spec = spec
    with pytest.raises(TypeError, match=rf"'{kind}'.*hsiaug\.transforms\.SyntheticMix"):
        RandomSyntheticMix(source, ratio=1)


class Bare(NonGeoDataset):
    """A folder of samples made elsewhere, without a spec."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return {key: value + 0 for key, value in self.sample.items()}


def test_a_source_without_a_spec_is_looked_at(synthetic: Pairs, batch: dict[str, Tensor]) -> None:
    out = K.AugmentationSequential(RandomSyntheticMix(Bare(synthetic[3]), p=1), data_keys=None)(batch)
    assert_aligned(out['image'], out['mask'])
    assert torch.equal(out['image'], synthetic[3]['image'].expand(128, -1, -1, -1))
    image = torch.zeros(BANDS, SIDE, SIDE)
    for sample, message in [
        ({'image': image, 'label': torch.tensor(1)}, "kind 'scene'"),
        ({'image': torch.zeros(2, *image.shape), 'mask': torch.zeros(1, SIDE, SIDE).long()}, "kind 'change'"),
        ({'image': image}, 'no layout of the sample contract'),
    ]:
        with pytest.raises(TypeError, match=message):
            RandomSyntheticMix(Bare(sample), p=1)


def test_shapes_that_do_not_fit_are_named(batch: dict[str, Tensor], synthetic: Pairs) -> None:
    mix = RandomSyntheticMix(synthetic, p=1)
    with pytest.raises(SpecMismatchError, match=r'found images of shape \(3, 4, 4\).*expected \(3, 8, 8\)'):
        mix(batch['image'][..., :4, :4])
    with pytest.raises(SpecMismatchError, match=r'found images of shape \(2, 8, 8\).*expected \(3, 8, 8\)'):
        mix(batch['image'][:, :2])
    with pytest.raises(SpecMismatchError, match=r'found masks of shape \(2, 8, 8\).*expected \(1, 8, 8\)'):
        K.AugmentationSequential(RandomSyntheticMix(synthetic, p=1), data_keys=['input', 'mask'])(
            batch['image'], torch.zeros(128, 2, SIDE, SIDE)
        )


@pytest.mark.parametrize('key', ['bbox_xyxy', 'keypoints'])
def test_boxes_and_keypoints_are_refused(batch: dict[str, Tensor], synthetic: Pairs, key: str) -> None:
    value = torch.ones(128, 1, 4 if key == 'bbox_xyxy' else 2)
    container = K.AugmentationSequential(RandomSyntheticMix(synthetic, p=0.5), data_keys=['input', key])
    with pytest.raises(TypeError, match='synthetic samples have no'):
        container(batch['image'], value)


@pytest.mark.parametrize('key', ['class', 'label', 'label_prob'])
def test_labels_are_refused_that_would_stay_those_of_replaced_images(
    batch: dict[str, Tensor], synthetic: Pairs, key: str
) -> None:
    container = K.AugmentationSequential(RandomSyntheticMix(synthetic, p=0.5), data_keys=None)
    nested = K.AugmentationSequential(container, data_keys=['input', 'mask', 'class'])
    with pytest.raises(TypeError, match=r'class labels .* cannot be replaced'):
        container({**batch, key: torch.zeros(128)})
    with pytest.raises(TypeError, match=r'class labels .* cannot be replaced'):
        nested(batch['image'], batch['mask'], torch.zeros(128))
    idle = K.AugmentationSequential(RandomSyntheticMix(synthetic, p=0.0), data_keys=None)
    assert torch.equal(idle({**batch, key: torch.zeros(128)})['image'], batch['image'])


@pytest.mark.parametrize('given', [{}, {'ratio': 1, 'p': 0.5}, {'p': 1.5}, {'ratio': -1}, {'p': True}])
def test_ratio_or_p_and_in_range(synthetic: Pairs, given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r'ratio|fraction'):
        RandomSyntheticMix(synthetic, **given)  # type: ignore[arg-type]


def test_a_live_generator_of_spectra_is_refused_and_modules_stay_out_of_the_state(
    data: TrainingData, synthetic: Pairs
) -> None:
    generator = fit_generator('noise', data)
    with pytest.raises(TypeError, match="kind 'spectrum'"):
        RandomSyntheticMix(generator, ratio=1)


class Live(torch.nn.Module):
    """A generator of patches, with a weight that an optimiser must not find."""

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.pairs, self.spec, self.provenance = pairs, pairs.spec, None
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.register_buffer('class_prior', torch.tensor([0.5, 0.5]))

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        rows = torch.randint(len(self.pairs), (n,), generator=torch.Generator().manual_seed(seed or 0))
        batch = self.pairs.batch_of(rows.tolist())
        batch = {key: value.to(self.device) for key, value in batch.items()}
        return {**batch, 'image': batch['image'] * self.scale}

    @property
    def device(self) -> torch.device:
        return self.scale.device


def test_a_live_generator_mixes_and_stays_out_of_parameters_and_state(
    batch: dict[str, Tensor], synthetic: Pairs
) -> None:
    torch.manual_seed(12)
    mix = RandomSyntheticMix(Live(synthetic), ratio=1)
    container = K.AugmentationSequential(mix, *geometry(), data_keys=None)
    out = container(batch)
    assert_aligned(out['image'], out['mask'])
    assert 30 < int(is_synthetic(out['image']).sum()) < 98
    assert not list(mix.parameters())
    assert not mix.state_dict()
    assert not list(mix.children())


@pytest.mark.gpu
def test_on_a_gpu_the_gate_is_that_of_the_cpu_and_a_live_generator_moves(
    batch: dict[str, Tensor], synthetic: Pairs
) -> None:
    outs = []
    for device in ('cpu', 'cuda'):
        torch.manual_seed(13)
        live = Live(synthetic)
        container = K.AugmentationSequential(RandomSyntheticMix(live, p=0.5), data_keys=None).to(device)
        out = container({key: value.to(device) for key, value in batch.items()})
        assert out['image'].device.type == out['mask'].device.type == live.scale.device.type == device
        outs.append({key: value.cpu() for key, value in out.items()})
    assert all(torch.equal(outs[0][key], outs[1][key]) for key in outs[0])


def test_repr_names_the_source_and_not_its_data(synthetic: Pairs) -> None:
    assert repr(RandomSyntheticMix(synthetic, ratio=0.5)) == (
        'RandomSyntheticMix(ratio=0.5, source=<Pairs: 64 segmentation samples>, same_on_batch=False)'
    )
    live = RandomSyntheticMix(Live(synthetic), p=0.25)
    assert 'p=0.25, source=<Live: segmentation samples, drawn live>' in repr(live)


def test_ranks_that_are_seeded_alike_draw_their_own_samples(synthetic: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    for rank in (0, 0, 1):
        monkeypatch.setattr('hsiaug.transforms.gated_kornia.world', lambda rank=rank: (rank, 2))
        torch.manual_seed(0)
        seeds.append(int(RandomSyntheticMix(synthetic, p=1).forward_parameters((4, 5, 8, 8))['seed'][0]))
    assert seeds[0] == seeds[1] != seeds[2]


class Wide(Pairs):
    """Images and classes that small dtypes cannot hold."""

    def __init__(self, labels: list[int], level: float = 1.0) -> None:
        super().__init__(16, synthetic=True)
        self.labels, self.level = torch.tensor(labels), level
        del self.spec

    def __getitem__(self, index: int) -> Sample:
        mask = self.labels[torch.arange(SIDE * SIDE) % len(self.labels)].reshape(SIDE, SIDE)
        return {'image': self.images[index] * self.level, 'mask': mask}


@pytest.mark.parametrize(
    ('labels', 'dtype', 'kept'),
    [
        ([0, 1, 300], torch.uint8, False),
        ([0, 1, -100], torch.uint8, False),
        ([0, 1, 255], torch.int8, False),
        ([0, 1, 2], torch.bool, False),
        ([0, 70000], torch.int16, False),
        ([0, 1, 255], torch.uint8, True),
        ([0, 1], torch.bool, True),
        ([0, -100, 300], torch.int16, True),
        ([0, 70000], torch.int64, True),
    ],
)
@pytest.mark.parametrize('listed', [False, True])
def test_masks_whose_dtype_cannot_hold_the_classes_are_refused(
    labels: list[int], dtype: torch.dtype, kept: bool, listed: bool
) -> None:
    inner = K.AugmentationSequential(RandomSyntheticMix(Wide(labels), p=1), data_keys=['input', 'mask'])
    container = K.AugmentationSequential(inner, K.RandomHorizontalFlip(p=1), data_keys=['input', 'mask'])
    masks: Any = torch.zeros(2, 1, SIDE, SIDE, dtype=dtype)
    given = list(masks) if listed else masks
    if kept:
        out = container(torch.zeros(2, BANDS, SIDE, SIDE), given)[1]
        found = torch.stack(list(out)) if listed else out
        assert found.dtype == dtype
        assert sorted(found.unique().tolist()) == sorted(labels)
    else:
        with pytest.raises(SpecMismatchError, match=rf'masks of dtype {dtype}, which cannot hold.*give int64'):
            container(torch.zeros(2, BANDS, SIDE, SIDE), given)


def test_radiance_beyond_float16_is_refused_and_not_infinite() -> None:
    mix = RandomSyntheticMix(Wide([0, 1], level=9e4), p=1, image_only=True)
    image = torch.zeros(4, BANDS, SIDE, SIDE)
    with pytest.raises(SpecMismatchError, match=r'images of dtype torch.float16, which cannot hold.*mix in float32'):
        mix(image.half())
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert torch.isfinite(mix(image.to(dtype))).all()
    held = Wide([0, 1], level=9e4)
    held.images[:] = torch.inf  # what is infinite already was not made so
    with pytest.raises(ValueError, match='hold NaN or infinite values'):
        RandomSyntheticMix(held, p=1, image_only=True)(image.half())
