"""Training of networks on patches with masks, and on pairs of dates with change masks."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torchgeo.datasets import NonGeoDataset
from toys import Toy, aligned, change_of, keys_of

import hsiaug.engine.stream as streams
import hsiaug.trainers.augmentation as trainer_augmentation
import hsiaug.trainers.pixelwise as pixelwise
from hsiaug.datasets import MixedDataset
from hsiaug.metrics import change_scores
from hsiaug.models import SpectralScaler
from hsiaug.samples import SampleSpec
from hsiaug.trainers import (
    ChangeDetector,
    ChangeDetectorConfig,
    Segmenter,
    SegmenterConfig,
    predict_changes,
    predict_masks,
    train_change_detector,
    train_segmenter,
)
from hsiaug.trainers.augmentation import Classic, augmentation
from hsiaug.trainers.change_detection import PairAugmentation

BANDS, HEIGHT, WIDTH, IGNORE = 6, 20, 24, 255


class Held(NonGeoDataset):
    """Images with masks."""

    def __init__(self, kind: Any, image: Tensor, mask: Tensor, classes: tuple[str, ...]) -> None:
        self.image, self.mask = image, mask
        self.spec = SampleSpec(kind, BANDS, classes, size=(HEIGHT, WIDTH), ignore_index=IGNORE)

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'image': self.image[index], 'mask': self.mask[index]}


def squares(n: int, high: int, rng: torch.Generator) -> Tensor:
    """(n, H, W) numbers below ``high`` in squares of 4 pixels."""
    coarse = torch.randint(high, (n, HEIGHT // 4, WIDTH // 4), generator=rng)
    return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)


class Blocks(Held):
    """Patches of blocks; a class is bright in its own two bands."""

    def __init__(self, n: int, seed: int = 0, offset: float = 0.0, wrong: bool = False) -> None:
        rng = torch.Generator().manual_seed(seed)
        mask = squares(n, 3, rng)
        own = torch.eye(3).repeat_interleave(2, 1)[mask].movedim(-1, 1)
        image = own + 0.3 * torch.randn(own.shape, generator=rng) + offset
        super().__init__('segmentation', image, (mask + wrong) % 3, ('a', 'b', 'c'))


class Pairs(Held):
    """Two noisy dates of a random scene; the second is brighter everywhere, and where it changed, another material."""

    def __init__(self, n: int, seed: int = 0, offset: float = 0.0, wrong: bool = False, season: float = 0.5) -> None:
        rng = torch.Generator().manual_seed(seed)
        before, changed = squares(n, 3, rng), squares(n, 5, rng) == 0
        after = torch.where(changed, (before + 1) % 3, before)
        spectra = torch.eye(3, BANDS)
        dates = torch.stack([spectra[before], spectra[after] + season], dim=1).movedim(-1, 2)
        image = dates + 0.1 * torch.randn(dates.shape, generator=rng) + offset
        super().__init__('change', image, (changed ^ wrong).long()[:, None], ('unchanged', 'changed'))


def accuracy(model: Segmenter, data: Held) -> float:
    return float((predict_masks(model, data.image, batch_size=5) == data.mask).float().mean())


def f1(model: ChangeDetector, data: Held) -> float:
    return change_scores(predict_changes(model, data.image, batch_size=5), data.mask, IGNORE).f1


@dataclass(frozen=True)
class Kind:
    """What is trained on samples of a kind."""

    data: Any
    make: Any  # a config, of settings
    train: Any
    predict: Any
    score: Any
    name: str  # of the training, in messages
    model: str  # that is trained
    small: dict[str, Any]
    rate: float
    normalised: dict[str, Any] = field(default_factory=dict)  # settings of a model with batch normalisation

    def config(self, **settings: Any) -> Any:
        return self.make(**{**self.small, **settings})


KINDS = {
    'segmentation': Kind(
        Blocks, SegmenterConfig, train_segmenter, predict_masks, accuracy, 'train_segmenter', 'segformer',
        {'encoder': 'mit_tiny', 'channels': 32, 'mapping': False, 'upsampling': 2, 'batch_size': 8}, 3e-3,
    ),
    'change': Kind(
        Pairs, ChangeDetectorConfig, train_change_detector, predict_changes, f1,
        'train_change_detector', 'changeformer-v3',
        {'encoder': 'mit_tiny', 'channels': 16, 'upsampling': 2, 'batch_size': 8}, 5e-3, {'model': 'changeformer-v6'},
    ),
}  # fmt: skip
SMALL = KINDS['segmentation'].small
kinds = pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)


# --- of both kinds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('segmentation', {'steps': 80}),
        ('segmentation', {'steps': 80, 'model': 'pfsegnet', 'encoder': 'resnet_tiny'}),
        ('change', {'steps': 60, 'lovasz': 0.5}),
        ('change', {'steps': 50, 'lovasz': 0.5, 'model': 'changeformer-v6'}),
        (
            'change',
            {'steps': 60, 'lovasz': 0.5, 'model': 'siamcrnn', 'encoder': 'resnet_tiny', 'channels': 32,
             'learning_rate': 1e-2},
        ),
    ],
)  # fmt: skip
def test_training_learns_what_new_samples_hold(kind: str, options: dict[str, Any]) -> None:
    of = KINDS[kind]
    found = of.train(of.data(32), of.config(**{'learning_rate': of.rate, **options}))
    assert not found.training
    assert of.score(found, of.data(8, seed=1)) > 0.85
    few = of.data(3)
    predicted = of.predict(found, few.image)
    assert (predicted.shape, predicted.dtype) == (few.mask.shape, torch.int64)


@kinds
def test_a_seed_fixes_everything_and_no_global_generator_moves(kind: Kind) -> None:
    random = {'swap_dates': True} if kind.data is Pairs else {}
    config = kind.config(steps=3, augment='classic', **random)
    torch.manual_seed(5)
    states = []
    for seed in (0, 0, 1):
        before = torch.get_rng_state()
        states.append(kind.train(kind.data(10), config, seed).state_dict())
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(3)  # whatever else is drawn in between
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    name = 'model.fuse.weight' if kind.data is Pairs else 'model.head.0.weight'
    assert not torch.equal(states[0][name], states[2][name])


@kinds
def test_ratio_zero_is_the_real_data_and_steps_do_not_depend_on_length(kind: Kind) -> None:
    config = kind.config(steps=4, **kind.normalised)
    real, synthetic = kind.data(10), kind.data(30, seed=2, offset=50.0)
    plain = kind.train(real, config).state_dict()
    zero = kind.train(MixedDataset(real, synthetic, ratio=0.0), config).state_dict()
    assert all(torch.equal(plain[key], zero[key]) for key in plain)
    mixed = kind.train(MixedDataset(real, synthetic, ratio=3.0), config)
    tracked = [key for key in plain if key.endswith('num_batches_tracked')]
    assert tracked
    assert all(int(plain[key]) == int(mixed.state_dict()[key]) == 4 for key in tracked)
    # Synthetic samples, far off, have no part in the standardisation, which is one for both dates.
    assert torch.equal(mixed.scaler.offset, plain['scaler.offset'])
    standardised = mixed.standardise(real.image)
    pixels = standardised.movedim(-3, -1).reshape(-1, BANDS)
    assert torch.allclose(pixels.mean(dim=0), torch.zeros(BANDS), atol=1e-4)
    assert torch.allclose(pixels.std(dim=0), torch.ones(BANDS), atol=1e-3)
    if kind.data is Pairs:
        assert float((standardised[:, 1] - standardised[:, 0]).mean()) > 0.5  # the seasons still differ


@kinds
def test_synthetic_samples_without_weight_cannot_mislead(kind: Kind) -> None:
    config = kind.config(steps=60, learning_rate=kind.rate)
    scores = {}
    for weight in (0.0, None):
        mixed = MixedDataset(kind.data(16), kind.data(48, 3, wrong=True), 3.0, weight=weight)
        scores[weight] = kind.score(kind.train(mixed, config), kind.data(8, seed=1))
    assert scores[0.0] > 0.75
    assert scores[None] < 0.4


@kinds
def test_class_weights_are_inverse_roots_of_pixel_counts(kind: Kind) -> None:
    data = kind.data(4)
    data.mask[:] = 0
    data.mask[..., :5, :] = 1  # a quarter of the pixels
    data.mask[..., 5:10, :] = IGNORE
    weights = pixelwise.fit_scaling(SpectralScaler(BANDS), data, data.spec, weigh_classes=True)
    assert weights is not None
    assert not weights[2:].any()
    assert float(weights[1] / weights[0]) == pytest.approx(2**0.5)
    assert float(2 * weights[0] + weights[1]) == pytest.approx(3)  # the mean weight of a pixel is 1


@kinds
def test_mistakes_are_named(kind: Kind) -> None:
    name, config, data = kind.name, kind.config(steps=2), kind.data(4)
    with pytest.raises(ValueError, match="unknown augment 'flip'"):
        kind.make(augment='flip')
    with pytest.raises(ValueError, match="unknown model 'unet'; choose from"):
        kind.make(model='unet')
    with pytest.raises(ValueError, match='batch_size must be at least 2, found 1'):
        kind.make(model={'segformer': 'pfsegnet'}.get(kind.model, 'siamcrnn'), batch_size=1)
    with pytest.raises(ValueError, match=f'{name}: {type(data).__name__} is empty'):
        kind.train(kind.data(0), config)
    with pytest.raises(ValueError, match=f"{name}: .*kind 'spectrum'"):
        kind.train(Toy('spectrum', 4), config)
    with pytest.raises(ValueError, match=f'{name}: augment=.*mixes samples'):
        kind.train(MixedDataset(data, kind.data(4, 1), 1.0, weight=0.5), kind.config(augment='cutmix'))
    classes = data.spec.num_classes
    data.mask.flatten(1)[0, 0] = classes
    with pytest.raises(ValueError, match=rf'in \[0, {classes}\) or be ignore_index=255, found \[0, {classes}\]'):
        kind.train(data, config)
    data.mask[:] = IGNORE
    with pytest.raises(ValueError, match='every pixel of 4 real patches is ignored'):
        kind.train(data, config)
    data = kind.data(4)
    data.image[1, ..., 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='1 of 4 patches hold values that are not finite'):
        kind.train(data, config)
    with pytest.raises(FloatingPointError, match=f'{kind.model} diverged'):
        kind.train(kind.data(4), kind.config(steps=4, learning_rate=1e30))


# --- of patches with masks ------------------------------------------------------------------------------------------


def test_features_describe_patches() -> None:
    model = train_segmenter(Blocks(16), SegmenterConfig(**SMALL, steps=30))
    image = torch.zeros(3, BANDS, HEIGHT, WIDTH)
    for k in range(3):
        image[k, 2 * k : 2 * k + 2] = 1
    features = model.features(torch.cat([image, image + 0.02 * torch.rand(image.shape)]))
    assert features.shape == (6, 32)
    distance = torch.cdist(features, features).fill_diagonal_(torch.inf)
    assert distance.argmin(dim=1).tolist() == [3, 4, 5, 0, 1, 2]


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
    with pytest.raises(ValueError, match="kind 'segmentation' expected, found Pairs"):
        train_segmenter(Blocks(10), SegmenterConfig(**SMALL, steps=7, keep_best=2), val=Pairs(2))


def test_validation_scores_what_was_predicted() -> None:
    val = Blocks(6, seed=1)
    batch = {'image': val.image, 'mask': val.mask}
    model = train_segmenter(Blocks(16), SegmenterConfig(**SMALL, steps=30))
    agreeing = {**batch, 'mask': predict_masks(model, val.image)}
    assert pixelwise.validation_score(model, agreeing, val.spec) == pytest.approx(1)
    assert pixelwise.validation_score(model, batch, val.spec) < 1


def test_what_mixes_samples_cannot_tell_them_apart() -> None:
    for options in ({'synthetic_weight': 0.5}, {'auxiliary_bn': True}):
        with pytest.raises(ValueError, match='mixes samples'):
            train_segmenter(Blocks(4), SegmenterConfig(**SMALL, augment='cutmix', **options))


# --- of pairs of dates ----------------------------------------------------------------------------------------------


def test_networks_of_torchgeo_train_on_sides_of_any_length() -> None:
    data = Pairs(12)
    config = ChangeDetectorConfig(model='fcsiamconc', steps=1, batch_size=4)
    assert predict_changes(train_change_detector(data, config), data.image).shape == data.mask.shape
    config = ChangeDetectorConfig(model='fcsiamdiff', steps=20, batch_size=4, learning_rate=3e-3)
    # Its running statistics want more steps than a test has: with those of the batch.
    found = train_change_detector(data, config).train()
    assert change_scores(predict_changes(found, data.image), data.mask).f1 > 0.5  # all changed would give 0.33


@pytest.mark.parametrize('held', [True, False])
def test_every_pair_is_read_once_per_epoch(monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    data = Pairs(7)
    both_dates = 7 * (data.image[0].numel() * 4 + data.mask[0].numel() * 8)
    monkeypatch.setattr(streams, 'HELD_BYTES', both_dates if held else both_dates - 1)
    stream = streams.Stream(data, data.spec, 0, 'cpu', keep=dict)
    batches = [stream.take(4) for _ in range(7)]
    keys = [key for batch in batches for key in keys_of(batch['image'])]
    assert all(sorted(keys[start : start + 7]) == sorted(keys_of(data.image)) for start in range(0, 28, 7))
    assert (stream.held is not None) == held


@pytest.mark.parametrize('name', ['flips', 'cutmix'])
def test_augmentation_moves_both_dates_and_the_mask_alike(name: Any) -> None:
    batch = Toy('change', 64).data
    assert aligned(batch)
    torch.manual_seed(0)
    image, mask = PairAugmentation(augmentation(name, (8, 8)))(batch['image'], batch['mask'])
    assert aligned({'image': image, 'mask': mask})
    moved = [not torch.equal(one, other) for one, other in zip(image, batch['image'], strict=True)]
    assert sum(moved) > 32
    assert mask.dtype == torch.int64


def test_a_swap_of_dates_changes_no_label() -> None:
    batch = Toy('change', 64).data
    torch.manual_seed(0)
    image, mask = PairAugmentation(None, swap_dates=True)(batch['image'], batch['mask'])
    assert torch.equal(mask, batch['mask'])
    swapped = (image != batch['image']).flatten(1).any(dim=1)
    assert 16 < int(swapped.sum()) < 48
    back = torch.where(swapped[:, None, None, None, None], image.flip(1), image)
    assert torch.equal(back, batch['image'])
    assert torch.equal(change_of(back), mask)


def test_nothing_that_changed_is_an_error_unless_synthetic_changes_stand_in() -> None:
    still = Pairs(4)
    still.mask[:] = 0
    config = KINDS['change'].config(steps=1)
    with pytest.raises(ValueError, match='no pixel of 4 real pairs has changed; check the masks, or mix in synthetic'):
        train_change_detector(still, config)
    mixed = MixedDataset(still, Pairs(8, 1), 1.0)
    assert isinstance(train_change_detector(mixed, config), ChangeDetector)
    with pytest.raises(ValueError, match="with class_weights='none'"):
        train_change_detector(mixed, KINDS['change'].config(steps=1, class_weights='sqrt_inverse'))


def test_settings_of_change_detectors_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match='lovasz must be at least 0, found -1'):
        ChangeDetectorConfig(lovasz=-1)
    with pytest.raises(ValueError, match="width of 'fcsiamdiff' is fixed, found 32"):
        ChangeDetectorConfig(model='fcsiamdiff', channels=32)
