from typing import Any

import pytest
import torch
from torch import Tensor
from torchgeo.datasets import NonGeoDataset
from toys import Toy, aligned, change_of, keys_of

import hsiaug.engine.stream as streams
import hsiaug.trainers.pixelwise as pixelwise
from hsiaug.datasets import MixedDataset
from hsiaug.metrics import change_scores
from hsiaug.models import SpectralScaler
from hsiaug.samples import SampleSpec
from hsiaug.trainers import ChangeDetector, ChangeDetectorConfig, predict_changes, train_change_detector
from hsiaug.trainers.augmentation import augmentation
from hsiaug.trainers.change_detection import PairAugmentation

BANDS, HEIGHT, WIDTH, IGNORE = 4, 20, 24, 255
SMALL: dict[str, Any] = {'encoder': 'mit_tiny', 'channels': 16, 'upsampling': 2, 'batch_size': 8}


class Pairs(NonGeoDataset):
    """Two noisy dates of a random scene; the second is brighter everywhere, and where it changed, another material."""

    def __init__(self, n: int, seed: int = 0, offset: float = 0.0, wrong: bool = False, season: float = 0.5) -> None:
        rng = torch.Generator().manual_seed(seed)

        def blocks(high: int) -> Tensor:
            coarse = torch.randint(high, (n, HEIGHT // 4, WIDTH // 4), generator=rng)
            return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)

        before, changed = blocks(3), blocks(5) == 0
        after = torch.where(changed, (before + 1) % 3, before)
        spectra = torch.eye(3, BANDS)
        dates = torch.stack([spectra[before], spectra[after] + season], dim=1).movedim(-1, 2)
        self.image = dates + 0.1 * torch.randn(dates.shape, generator=rng) + offset
        self.mask = (changed ^ wrong).long()[:, None]
        self.spec = SampleSpec('change', BANDS, ('unchanged', 'changed'), size=(HEIGHT, WIDTH), ignore_index=IGNORE)

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'image': self.image[index], 'mask': self.mask[index]}


def f1(model: ChangeDetector, data: Pairs) -> float:
    return change_scores(predict_changes(model, data.image, batch_size=5), data.mask, IGNORE).f1


@pytest.mark.parametrize(
    ('model', 'options'),
    [
        ('changeformer-v3', {}),
        ('changeformer-v6', {'steps': 40}),
        ('siamcrnn', {'encoder': 'resnet_tiny', 'channels': 32, 'learning_rate': 1e-2}),
    ],
)
def test_training_learns_what_new_pairs_hold(model: Any, options: dict[str, Any]) -> None:
    options = {**SMALL, 'model': model, 'steps': 60, 'learning_rate': 5e-3, 'lovasz': 0.5, **options}
    found = train_change_detector(Pairs(32), ChangeDetectorConfig(**options))
    assert not found.training
    assert f1(found, Pairs(8, seed=1)) > 0.85
    assert predict_changes(found, Pairs(3).image).shape == (3, 1, HEIGHT, WIDTH)
    assert predict_changes(found, Pairs(3).image).dtype == torch.int64


def test_networks_of_torchgeo_train_on_sides_of_any_length() -> None:
    data = Pairs(12)
    config = ChangeDetectorConfig(model='fcsiamconc', steps=1, batch_size=4)
    assert predict_changes(train_change_detector(data, config), data.image).shape == data.mask.shape
    config = ChangeDetectorConfig(model='fcsiamdiff', steps=20, batch_size=4, learning_rate=3e-3)
    # Its running statistics want more steps than a test has: with those of the batch.
    found = train_change_detector(data, config).train()
    assert change_scores(predict_changes(found, data.image), data.mask).f1 > 0.5  # all changed would give 0.33


def test_a_seed_fixes_everything_and_no_global_generator_moves() -> None:
    config = ChangeDetectorConfig(**SMALL, steps=3, augment='classic', swap_dates=True)
    torch.manual_seed(5)
    states = []
    for seed in (0, 0, 1):
        before = torch.get_rng_state()
        states.append(train_change_detector(Pairs(10), config, seed).state_dict())
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(3)  # whatever else is drawn in between
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]['model.fuse.weight'], states[2]['model.fuse.weight'])


def test_ratio_zero_is_the_real_data_and_steps_do_not_depend_on_length() -> None:
    config = ChangeDetectorConfig(**{**SMALL, 'model': 'changeformer-v6'}, steps=4)
    real, synthetic = Pairs(10), Pairs(30, seed=2, offset=50.0)
    plain = train_change_detector(real, config).state_dict()
    zero = train_change_detector(MixedDataset(real, synthetic, ratio=0.0), config).state_dict()
    assert all(torch.equal(plain[key], zero[key]) for key in plain)
    mixed = train_change_detector(MixedDataset(real, synthetic, ratio=3.0), config)
    tracked = [key for key in plain if key.endswith('num_batches_tracked')]
    assert tracked
    assert all(int(plain[key]) == int(mixed.state_dict()[key]) == 4 for key in tracked)
    # Synthetic pairs, far off, have no part in the standardisation, which is one for both dates.
    standardised = mixed.standardise(real.image)
    assert torch.allclose(standardised.mean(dim=(0, 1, 3, 4)), torch.zeros(BANDS), atol=1e-4)
    assert torch.allclose(standardised.std(dim=(0, 1, 3, 4)), torch.ones(BANDS), atol=1e-3)
    assert float((standardised[:, 1] - standardised[:, 0]).mean()) > 0.5  # the seasons still differ


def test_synthetic_samples_without_weight_cannot_mislead() -> None:
    config = ChangeDetectorConfig(**SMALL, steps=50, learning_rate=5e-3)
    scores = {
        weight: f1(
            train_change_detector(MixedDataset(Pairs(16), Pairs(48, 3, wrong=True), 3.0, weight=weight), config),
            Pairs(8, seed=1),
        )
        for weight in (0.0, None)
    }
    assert scores[0.0] > 0.75
    assert scores[None] < 0.4


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


def test_class_weights_are_inverse_roots_of_changed_and_unchanged_pixels() -> None:
    data = Pairs(4)
    data.mask[:] = 0
    data.mask[..., :4, :] = 1
    data.mask[..., 4:, :] = 0
    scaler = SpectralScaler(BANDS)
    weights = pixelwise.fit_scaling(scaler, data, data.spec, weigh_classes=True)
    assert weights is not None
    assert float(weights[1] / weights[0]) == pytest.approx(2)  # a fifth of the pixels
    assert float(0.8 * weights[0] + 0.2 * weights[1]) == pytest.approx(1)


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


def test_mistakes_are_named() -> None:
    config, data = ChangeDetectorConfig(**SMALL, steps=2), Pairs(4)
    with pytest.raises(ValueError, match="unknown model 'unet'; choose from"):
        ChangeDetectorConfig(model='unet')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='batch_size must be at least 2, found 1'):
        ChangeDetectorConfig(model='siamcrnn', batch_size=1)
    with pytest.raises(ValueError, match='lovasz must be at least 0, found -1'):
        ChangeDetectorConfig(lovasz=-1)
    with pytest.raises(ValueError, match="width of 'fcsiamdiff' is fixed, found 32"):
        ChangeDetectorConfig(model='fcsiamdiff', channels=32)
    with pytest.raises(ValueError, match='train_change_detector: Pairs is empty'):
        train_change_detector(Pairs(0), config)
    with pytest.raises(ValueError, match="kind 'segmentation'"):
        train_change_detector(Toy('segmentation', 4), config)
    with pytest.raises(ValueError, match=r'train_change_detector: augment=.*mixes samples'):
        train_change_detector(
            MixedDataset(data, Pairs(4, 1), 1.0, weight=0.5), ChangeDetectorConfig(**SMALL, augment='cutmix')
        )
    data.mask += 1
    with pytest.raises(ValueError, match=r'in \[0, 2\) or be ignore_index=255, found \[1, 2\]'):
        train_change_detector(data, config)
    data.mask[:] = IGNORE
    with pytest.raises(ValueError, match='every pixel of 4 real patches is ignored'):
        train_change_detector(data, config)
    data = Pairs(4)
    data.image[1, 1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='1 of 4 patches hold values that are not finite'):
        train_change_detector(data, config)
    with pytest.raises(FloatingPointError, match='changeformer-v3 diverged'):
        train_change_detector(Pairs(4), ChangeDetectorConfig(**SMALL, steps=4, learning_rate=1e30))


def test_nothing_that_changed_is_an_error_unless_synthetic_changes_stand_in() -> None:
    still = Pairs(4)
    still.mask[:] = 0
    config = ChangeDetectorConfig(**SMALL, steps=1)
    with pytest.raises(ValueError, match='no pixel of 4 real pairs has changed; check the masks, or mix in synthetic'):
        train_change_detector(still, config)
    mixed = MixedDataset(still, Pairs(8, 1), 1.0)
    assert isinstance(train_change_detector(mixed, config), ChangeDetector)
    with pytest.raises(ValueError, match="with class_weights='none'"):
        train_change_detector(mixed, ChangeDetectorConfig(**SMALL, steps=1, class_weights='sqrt_inverse'))
