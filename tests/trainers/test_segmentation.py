from typing import Any

import pytest
import torch
from torch import Tensor
from torchgeo.datasets import NonGeoDataset
from toys import Toy, aligned, keys_of

import hsiaug.engine.stream as streams
import hsiaug.trainers.augmentation as trainer_augmentation
import hsiaug.trainers.pixelwise as pixelwise
from hsiaug.datasets import MixedDataset
from hsiaug.models import SpectralScaler
from hsiaug.samples import SampleSpec
from hsiaug.trainers import Segmenter, SegmenterConfig, predict_masks, train_segmenter
from hsiaug.trainers.augmentation import Classic, augmentation

BANDS, HEIGHT, WIDTH, IGNORE = 6, 20, 24, 255
SMALL: dict[str, Any] = {'encoder': 'mit_tiny', 'channels': 32, 'mapping': False, 'upsampling': 2, 'batch_size': 8}


class Blocks(NonGeoDataset):
    """Patches of blocks; a class is bright in its own two bands."""

    def __init__(self, n: int, seed: int = 0, offset: float = 0.0, wrong: bool = False) -> None:
        rng = torch.Generator().manual_seed(seed)
        coarse = torch.randint(3, (n, HEIGHT // 4, WIDTH // 4), generator=rng)
        self.mask = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
        own = torch.eye(3).repeat_interleave(2, 1)[self.mask].movedim(-1, 1)
        self.image = own + 0.3 * torch.randn(n, BANDS, HEIGHT, WIDTH, generator=rng) + offset
        if wrong:
            self.mask = (self.mask + 1) % 3
        self.spec = SampleSpec('segmentation', BANDS, ('a', 'b', 'c'), size=(HEIGHT, WIDTH), ignore_index=IGNORE)

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'image': self.image[index], 'mask': self.mask[index]}


def accuracy(model: Segmenter, data: Blocks) -> float:
    return float((predict_masks(model, data.image, batch_size=5) == data.mask).float().mean())


@pytest.mark.parametrize('model', ['segformer', 'pfsegnet'])
def test_training_learns_what_new_patches_hold(model: str) -> None:
    encoder = {'segformer': 'mit_tiny', 'pfsegnet': 'resnet_tiny'}[model]
    config = SegmenterConfig(**{**SMALL, 'model': model, 'encoder': encoder, 'steps': 80, 'learning_rate': 3e-3})
    found = train_segmenter(Blocks(32), config)
    assert not found.training
    assert accuracy(found, Blocks(8, seed=1)) > 0.85
    assert predict_masks(found, Blocks(3).image).dtype == torch.int64


def test_features_describe_patches() -> None:
    model = train_segmenter(Blocks(16), SegmenterConfig(**SMALL, steps=30))
    image = torch.zeros(3, BANDS, HEIGHT, WIDTH)
    for k in range(3):
        image[k, 2 * k : 2 * k + 2] = 1
    features = model.features(torch.cat([image, image + 0.02 * torch.rand(image.shape)]))
    assert features.shape == (6, 32)
    distance = torch.cdist(features, features).fill_diagonal_(torch.inf)
    assert distance.argmin(dim=1).tolist() == [3, 4, 5, 0, 1, 2]


def test_a_seed_fixes_everything_and_no_global_generator_moves() -> None:
    config = SegmenterConfig(**SMALL, steps=3, augment='classic')
    torch.manual_seed(5)
    states = []
    for seed in (0, 0, 1):
        before = torch.get_rng_state()
        states.append(train_segmenter(Blocks(10), config, seed).state_dict())
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(3)  # whatever else is drawn in between
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]['model.head.0.weight'], states[2]['model.head.0.weight'])


def test_ratio_zero_is_the_real_data_and_steps_do_not_depend_on_length() -> None:
    config = SegmenterConfig(**SMALL, steps=5)
    real, synthetic = Blocks(10), Blocks(30, seed=2, offset=50.0)
    plain = train_segmenter(real, config).state_dict()
    zero = train_segmenter(MixedDataset(real, synthetic, ratio=0.0), config).state_dict()
    assert all(torch.equal(plain[key], zero[key]) for key in plain)
    mixed = train_segmenter(MixedDataset(real, synthetic, ratio=3.0), config)
    tracked = [key for key in plain if key.endswith('num_batches_tracked')]
    assert tracked
    assert all(int(plain[key]) == int(mixed.state_dict()[key]) == 5 for key in tracked)
    # Synthetic patches, far off, have no part in the standardisation.
    assert torch.equal(mixed.scaler.offset, plain['scaler.offset'])
    standardised = mixed.standardise(real.image)
    assert torch.allclose(standardised.mean(dim=(0, 2, 3)), torch.zeros(BANDS), atol=1e-4)
    assert torch.allclose(standardised.std(dim=(0, 2, 3)), torch.ones(BANDS), atol=1e-3)


def test_synthetic_samples_without_weight_cannot_mislead() -> None:
    config = SegmenterConfig(**SMALL, steps=60, learning_rate=3e-3)
    scores = {
        weight: accuracy(
            train_segmenter(MixedDataset(Blocks(16), Blocks(48, 3, wrong=True), 3.0, weight=weight), config),
            Blocks(8, seed=1),
        )
        for weight in (0.0, None)
    }
    assert scores[0.0] > 0.75
    assert scores[None] < 0.4


def test_a_weight_in_the_configuration_is_that_of_the_dataset() -> None:
    sides = Blocks(8), Blocks(24, 3, wrong=True)
    states = [
        train_segmenter(MixedDataset(*sides, 2.0, weight=weight), SegmenterConfig(**SMALL, steps=4, **options))
        for weight, options in ((0.25, {}), (None, {'synthetic_weight': 0.25}), (0.5, {'synthetic_weight': 0.5}))
    ]
    first, *others = (model.state_dict() for model in states)
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    plain = train_segmenter(MixedDataset(*sides, 2.0), SegmenterConfig(**SMALL, steps=4)).state_dict()
    assert not torch.equal(plain['model.head.0.weight'], first['model.head.0.weight'])


def test_auxiliary_bn_keeps_synthetic_patches_out_of_the_statistics() -> None:
    real, far = Blocks(12), Blocks(24, 2, offset=50.0)
    options: dict[str, Any] = {**SMALL, 'model': 'pfsegnet', 'encoder': 'resnet_tiny', 'learning_rate': 1e-4}
    largest = {}
    for auxiliary in (False, True):
        config = SegmenterConfig(**{**options, 'steps': 8, 'auxiliary_bn': auxiliary})
        state = train_segmenter(MixedDataset(real, far, 2.0), config).state_dict()
        assert not any('auxiliary' in key for key in state)
        first = next(value for key, value in state.items() if key.endswith('running_mean'))
        largest[auxiliary] = float(first.abs().max())
    # A linear layer of standardised real patches comes before the first normalisation: its mean is near 0.
    assert largest[True] < 0.5
    assert largest[False] > 5
    zero = MixedDataset(real, far, 0.0)
    plain, split = (
        train_segmenter(zero, SegmenterConfig(**SMALL, steps=4, auxiliary_bn=auxiliary)).state_dict()
        for auxiliary in (False, True)
    )
    assert all(torch.equal(plain[key], split[key]) for key in plain)


@pytest.mark.parametrize('held', [True, False])
def test_every_sample_is_read_once_per_epoch_in_equal_batches(monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    if not held:
        monkeypatch.setattr(streams, 'HELD_BYTES', 1)
    mixed = MixedDataset(Blocks(6), Blocks(40, seed=2), ratio=1.5, weight=0.5)
    stream = streams.Stream(mixed, mixed.spec, 0, 'cpu', keep=dict)  # type: ignore[arg-type]
    batches = [stream.take(5) for _ in range(6)]
    assert all(len(batch['image']) == len(batch['mask']) == 5 for batch in batches)
    weights, images = (torch.cat([batch[key] for batch in batches]) for key in ('weight', 'image'))
    real = [key for key, weight in zip(keys_of(images), weights.tolist(), strict=True) if weight == 1]
    epochs = [set(keys_of(images[start : start + 15])) for start in (0, 15)]
    assert [len(epoch) for epoch in epochs] == [15, 15]
    assert len(real) == 12
    assert set(real) == set(keys_of(Blocks(6).image))
    assert epochs[0] - set(real) != epochs[1] - set(real)  # each epoch draws other synthetic samples
    assert (stream.held is not None) == held


def test_class_weights_are_inverse_roots_of_pixel_counts() -> None:
    data = Blocks(4)
    data.mask[:] = 0
    data.mask[:, :5] = 1  # a quarter of the pixels
    data.mask[:, 5:10] = IGNORE
    scaler = SpectralScaler(BANDS)
    weights = pixelwise.fit_scaling(scaler, data, data.spec, weigh_classes=True)
    assert weights is not None
    assert weights[2] == 0
    assert float(weights[1] / weights[0]) == pytest.approx(2**0.5)
    assert float(2 * weights[0] + weights[1]) == pytest.approx(3)  # the mean weight of a pixel is 1


@pytest.mark.parametrize('name', ['flips', 'cutmix'])
def test_augmentation_keeps_masks_on_their_images(name: Any) -> None:
    batch = Toy('segmentation', 64).data
    batch['image'][:, :, 0, 0] = -1.0
    batch['mask'][:, 0, 0] = IGNORE
    augment = augmentation(name, (8, 8))
    assert augment is not None
    torch.manual_seed(0)
    image, mask = augment(batch['image'], batch['mask'])
    ignored = mask == IGNORE
    assert torch.equal(ignored, image[:, 0] == -1)
    assert aligned({'image': image, 'mask': mask.where(~ignored, 0)})  # -1 is below every threshold
    places = {tuple(place) for place in ignored.nonzero()[:, 1:].tolist()}
    assert places == {(0, 0), (0, 7), (7, 0), (7, 7)}
    pixels = {key for image in batch['image'] for key in keys_of(image.flatten(1).T.contiguous())}
    assert {key for image in image for key in keys_of(image.flatten(1).T.contiguous())} <= pixels
    if name == 'cutmix':  # patches hold pixels of two patches, between them all shares occur
        own = [set(keys_of(one.flatten(1).T.contiguous())) for one in batch['image']]
        shares = [
            max(sum(key in source for key in keys_of(one.flatten(1).T.contiguous())) for source in own) / 64
            for one in image
        ]
        assert min(shares) < 0.65
        assert max(shares) > 0.95


def test_classic_crops_keep_masks_on_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = torch.linspace(0, 1, 32).expand(16, 1, 32, 32)
    image = torch.cat([ramp, ramp.transpose(-1, -2)], dim=1)
    mask = (ramp[:, 0] > 0.5).long()
    mask[:, :2] = IGNORE
    torch.manual_seed(0)
    noisy, _ = Classic((32, 32))(image, mask)
    monkeypatch.setattr(trainer_augmentation, 'NOISE', 0.0)
    torch.manual_seed(0)
    found, labels = Classic((32, 32))(image, mask)
    assert float((noisy - found).std()) == pytest.approx(0.1, rel=0.02)
    assert set(labels.unique().tolist()) == {0, 1, IGNORE}
    assert len({int((one == IGNORE).sum()) for one in labels}) > 2  # crops of several sizes and places
    # Which of the two bands has the classes follows from the turn of the batch; two pixels at the border are unsure.
    counted = labels != IGNORE
    agreement = max(
        float(((found[:, band] > 0.5) == (labels == 1))[counted & ((found[:, band] - 0.5).abs() > 0.03)].float().mean())
        for band in (0, 1)
    )
    assert agreement == 1


def test_mistakes_are_named() -> None:
    config, data = SegmenterConfig(**SMALL, steps=2), Blocks(4)
    with pytest.raises(ValueError, match="unknown augment 'flip'"):
        SegmenterConfig(augment='flip')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown model 'unet'; choose from"):
        SegmenterConfig(model='unet')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='batch_size must be at least 2, found 1'):
        SegmenterConfig(model='pfsegnet', batch_size=1)
    with pytest.raises(ValueError, match='Blocks is empty'):
        train_segmenter(Blocks(0), config)
    with pytest.raises(ValueError, match="kind 'spectrum'"):
        train_segmenter(Toy('spectrum', 4), config)
    mixed = MixedDataset(data, Blocks(4, 1), 1.0, weight=0.5)
    with pytest.raises(ValueError, match='mixes samples'):
        train_segmenter(mixed, SegmenterConfig(**SMALL, augment='cutmix'))
    for options in ({'synthetic_weight': 0.5}, {'auxiliary_bn': True}):
        with pytest.raises(ValueError, match='mixes samples'):
            train_segmenter(data, SegmenterConfig(**SMALL, augment='cutmix', **options))  # type: ignore[arg-type]
    data.mask[0, 0, 0] = 3
    with pytest.raises(ValueError, match=r'in \[0, 3\) or be ignore_index=255, found \[0, 3\]'):
        train_segmenter(data, config)
    data.mask[:] = IGNORE
    with pytest.raises(ValueError, match='every pixel of 4 real patches is ignored'):
        train_segmenter(data, config)
    data = Blocks(4)
    data.image[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='1 of 4 patches hold values that are not finite'):
        train_segmenter(data, config)
    with pytest.raises(FloatingPointError, match='segformer diverged'):
        train_segmenter(Blocks(4), SegmenterConfig(**SMALL, steps=4, learning_rate=1e30))


def test_the_weights_that_validate_best_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.6, 0.6, 0.3])
    looks: list[dict[str, Tensor]] = []

    def score(network: Segmenter, *_: Any) -> float:
        assert not network.training
        looks.append({key: value.clone() for key, value in network.state_dict().items()})
        return next(scores)

    plain = train_segmenter(Blocks(10), SegmenterConfig(**SMALL, steps=7))
    monkeypatch.setattr(pixelwise, 'validation_score', score)
    found = train_segmenter(Blocks(10), SegmenterConfig(**SMALL, steps=7, keep_best=2), val=Blocks(2))
    assert len(looks) == 4  # after 2, 4, 6 and, the last, 7 steps
    assert all(torch.equal(value, looks[2][key]) for key, value in found.state_dict().items())  # later ones of equals
    assert all(torch.equal(value, looks[3][key]) for key, value in plain.state_dict().items())
    with pytest.raises(ValueError, match=r'keep_best=2 .* give val'):
        train_segmenter(Blocks(10), SegmenterConfig(**SMALL, steps=7, keep_best=2))


def test_validation_scores_what_was_predicted() -> None:
    val = Blocks(6, seed=1)
    batch = {'image': val.image, 'mask': val.mask}
    model = train_segmenter(Blocks(16), SegmenterConfig(**SMALL, steps=30))
    agreeing = {**batch, 'mask': predict_masks(model, val.image)}
    assert pixelwise.validation_score(model, agreeing, val.spec) == pytest.approx(1)
    assert pixelwise.validation_score(model, batch, val.spec) < 1
