from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pairs import class_spectra, make_pairs, nearest_class
from weights import same

from hsiaug.engine import Run
from hsiaug.engine.data import Held
from hsiaug.functional import spectral_angle
from hsiaug.functional.orientations import turn
from hsiaug.samples import SampleSpec
from hsiaug.streams import stream_of_step
from hsiaug.systems import TrainingData
from hsiaug.systems.two_stream_diffusion.model import TwoStreamDiffusion
from hsiaug.systems.two_stream_diffusion.stages import AutoencoderStage, DiffusionStage
from hsiaug.systems.two_stream_diffusion.train import TwoStreamConfig, train_two_stream

SMALL = TwoStreamConfig(
    mask_latents=2,
    vae_channels=8,
    vae_iterations=200,
    diffusion_iterations=300,
    vae_batch_size=4,
    batch_size=8,
    vae_lr=4e-3,
)
TINY = replace(
    SMALL,
    vae_channels=4,
    unet_channels=(8, 16),
    vae_iterations=6,
    diffusion_iterations=6,
    batch_size=2,
    vae_batch_size=2,
)


@pytest.fixture(scope='module')
def pairs() -> TrainingData:
    return make_pairs()


@pytest.fixture(scope='module')
def partly(pairs: TrainingData) -> TrainingData:
    """Class c carries no label, as ground that nobody has mapped; only the image shows it."""
    y = hidden(pairs.y)
    keep = (y != 255).flatten(1).any(dim=1)
    return replace(pairs, spec=replace(pairs.spec, classes=('a', 'b')), x=pairs.x[keep], y=y[keep])


@pytest.fixture(scope='module')
def trained(partly: TrainingData) -> TwoStreamDiffusion:
    return train_two_stream(partly, SMALL, Run(1))


def hidden(mask: torch.Tensor) -> torch.Tensor:
    return torch.where(mask == 2, 255, mask)


def class_angles(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Angle of the mean spectrum within each class of the masks to the true one; π/2 where there is none."""
    image, mask = batch['image'].movedim(1, -1), batch['mask']
    means = torch.stack([image[mask == k].mean(dim=0) for k in (0, 1)]).nan_to_num()
    return spectral_angle(means, class_spectra()[:2])


# --- what is learnt -------------------------------------------------------------------------------------------------


def test_autoencoders_give_pairs_back(trained: TwoStreamDiffusion) -> None:
    new = make_pairs(16, seed=1)
    back = trained.reconstruct(new.x, hidden(new.y))
    assert float((back['mask'] == hidden(new.y)).float().mean()) > 0.97
    assert float(spectral_angle(back['image'], new.x, dim=1).mean()) < 0.1
    # Little is lost of these masks, all of masks that belong to other images' places.
    entropies = [trained.mask_cross_entropy(new.x, hidden(y)) for y in (new.y, torch.rand(new.y.shape).mul(3).long())]
    assert entropies[0] < 0.15 < entropies[1]


def test_samples_look_like_the_data(partly: TrainingData, trained: TwoStreamDiffusion) -> None:
    batch = trained.sample(64, seed=0)
    torch.manual_seed(0)
    untrained = TwoStreamDiffusion(partly.spec, mask_latents=2, vae_channels=8)
    untrained.observe(partly)
    before, after = class_angles(untrained.sample(64, seed=0)), class_angles(batch)
    assert (after < before).all()
    assert float(after.mean()) < 0.5 * float(before.mean())
    seen = nearest_class(batch['image'])
    assert float((hidden(seen) == batch['mask']).float().mean()) > 0.75  # the image follows the mask
    shares = [torch.stack([(y == k).float().mean() for k in (0, 1, 255)]) for y in (partly.y, batch['mask'])]
    assert float((shares[0] - shares[1]).abs().max()) < 0.15
    # Synthetic masks leave out what real ones do.
    assert (batch['mask'][seen == 2] == 255).float().mean() > 0.7
    assert (batch['mask'][seen != 2] == 255).float().mean() < 0.2


def test_a_label_asks_for_its_class(trained: TwoStreamDiffusion) -> None:
    masks = [trained.sample(48, torch.full((48,), k), seed=1)['mask'] for k in (0, 1)]
    share = torch.stack([torch.stack([(mask == k).float().mean() for k in (0, 1)]) for mask in masks])
    assert (share.diagonal() > share.mean(dim=0) + 0.03).all()
    assert torch.equal(share.argmax(dim=0), torch.arange(2))


def test_prior_and_provenance_are_recorded(partly: TrainingData, trained: TwoStreamDiffusion) -> None:
    labelled = partly.y[partly.y != 255]
    assert torch.allclose(trained.class_prior, torch.bincount(labelled) / len(labelled))
    assert trained.provenance is not None
    assert trained.provenance.training['sad_weight'] == 0.1
    assert trained.provenance.training['unet_channels'] == [32, 64]


def test_baseline_learns_pairs_in_one_stream(pairs: TrainingData) -> None:
    config = replace(SMALL, vae_iterations=160, vae_lr=8e-3, diffusion_iterations=1).plain()
    assert (config.sad_weight, config.mask_loss) == (0.0, 'l1')
    generator = train_two_stream(pairs, config)
    back = generator.reconstruct(pairs.x, pairs.y)
    assert len(generator.streams) == 1
    assert float((back['mask'] == pairs.y).float().mean()) > 0.8


# --- how it is learnt -----------------------------------------------------------------------------------------------


def test_image_and_mask_are_turned_together() -> None:
    pairs = make_pairs(1)
    x = pairs.x + torch.arange(256.0).view(16, 16) * 1e-3  # no symmetry
    turned = [turn(x, variant) for variant in range(8)]
    assert len({t.numpy().tobytes() for t in turned}) == 8
    for variant, image in enumerate(turned):
        assert torch.equal(nearest_class(image), turn(nearest_class(x), variant))


def test_orientations_fit_the_shape(pairs: TrainingData) -> None:
    wide = TwoStreamDiffusion(replace(pairs.spec, size=(8, 16)), vae_channels=4, unet_channels=(8, 16))
    stage = AutoencoderStage(wide, Held(pairs.x[:, :, :8], pairs.y[:, :8]), TINY, 0)
    assert stage.variants == (0, 2, 4, 6)
    image, _ = stage.at(stage.samples, torch.arange(3))
    assert all(turn(image, variant).shape == image.shape for variant in stage.variants)


def test_each_stage_trains_its_own_part(pairs: TrainingData) -> None:
    runs = [
        train_two_stream(pairs, replace(TINY, ema_decay=0.0, vae_iterations=v, diffusion_iterations=d))
        for v, d in ((6, 1), (6, 6), (1, 6))
    ]
    streams = [g.streams.state_dict() for g in runs]
    assert all(torch.equal(v, streams[1][k]) for k, v in streams[0].items())
    assert not all(torch.equal(v, streams[2][k]) for k, v in streams[0].items())
    denoisers = [g.denoiser.state_dict() for g in runs]
    assert not all(torch.equal(v, denoisers[1][k]) for k, v in denoisers[0].items())


def test_codes_are_standardised_per_channel(partly: TrainingData, trained: TwoStreamDiffusion) -> None:
    samples = Held(partly.x, partly.y)
    stage = DiffusionStage(trained, samples, trained.shares_in(partly), SMALL, 0)
    mean, logvar = stage._codes(*stage.at(samples, torch.arange(len(partly.x))), 0)
    code = mean + (0.5 * logvar).exp() * torch.randn(mean.shape)
    code = ((code - trained.latent_mean) / trained.latent_std).movedim(1, 0).flatten(1)
    assert torch.allclose(code.mean(dim=1), torch.zeros(6), atol=0.05)
    assert torch.allclose(code.std(dim=1), torch.ones(6), atol=0.05)


def test_cached_codes_are_those_of_the_patches(pairs: TrainingData) -> None:
    config = replace(TINY, augment=False)
    cached, encoded = (train_two_stream(pairs, replace(config, cache_latents=on)) for on in (True, False))
    for key, value in cached.state_dict().items():
        assert torch.allclose(value, encoded.state_dict()[key], rtol=1e-4, atol=1e-5), key


def loss_of(stage: DiffusionStage, seed: int) -> float:
    rng = torch.Generator().manual_seed(seed)
    stage.given = stage.prepare(rng)
    return float(stage.objective(rng))


def test_perfect_prediction_has_no_loss(pairs: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    generator = TwoStreamDiffusion(pairs.spec, vae_channels=4, unet_channels=(8, 16))
    for prediction in ('epsilon', 'v_prediction'):
        for gamma in (None, 5.0):
            config = replace(TINY, prediction_type=prediction, min_snr_gamma=gamma, augment=False)  # type: ignore[arg-type]
            few = replace(pairs, x=pairs.x[:1], y=pairs.y[:1])
            stage = DiffusionStage(generator, Held(few.x, few.y), generator.shares_in(few), config, 0)
            stage.before_steps()
            assert stage.cache is not None
            stage.cache = stage.cache[0], torch.full_like(stage.cache[1], -60)  # no noise of the posterior
            clean = (stage.cache[0][0] - generator.latent_mean) / generator.latent_std

            def perfect(noisy: Any, time: Any, shares: Any, s: Any = stage, c: Any = clean, p: str = prediction) -> Any:
                a = s.alphas[time][:, None, None, None]
                noise = (noisy - a.sqrt() * c) / (1 - a).sqrt()
                return noise if p == 'epsilon' else a.sqrt() * noise - (1 - a).sqrt() * c

            monkeypatch.setattr(generator.denoiser, 'forward', perfect)
            assert loss_of(stage, 0) < 1e-4
            monkeypatch.setattr(generator.denoiser, 'forward', lambda noisy, *_: torch.zeros_like(noisy))
            assert loss_of(stage, 0) > 0.01


def test_average_follows_the_weights(pairs: TrainingData) -> None:
    averaged, last = (train_two_stream(pairs, replace(TINY, ema_decay=decay)) for decay in (0.5, 0.0))
    assert torch.equal(averaged.streams[0].encoder.conv_in.weight, last.streams[0].encoder.conv_in.weight)
    weights = [g.denoiser.unet.conv_in.weight for g in (averaged, last)]
    assert not torch.equal(weights[0], weights[1])
    assert torch.allclose(weights[0], weights[1], atol=0.05)


def test_pictures_of_samples_appear(pairs: TrainingData, tmp_path: Path) -> None:
    train_two_stream(pairs, TINY, Run(folder=tmp_path), preview_every=4)
    assert [file.name for file in tmp_path.iterdir()] == ['samples_4.png']


# --- bad input ------------------------------------------------------------------------------------------------------


def changed(pairs: TrainingData, **values: Any) -> TrainingData:
    y, x = pairs.y.clone(), pairs.x.clone()
    for key, value in values.items():
        if key == 'foreign':
            y[3, 0, 0] = value
        elif key == 'missing':
            y[y == value] = 255
        elif key == 'nan':
            x[value, 0, 0, 0] = torch.nan
    return replace(pairs, x=x, y=y)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'foreign': 7}, r'masks hold the values \[7\], but the 3 classes are 0 to 2 and the ignore index is 255'),
        ({'foreign': -1}, r'masks hold the values \[-1\]'),
        ({'missing': 2}, r"no training pixel of \['c'\]"),
        ({'nan': [1, 4]}, '2 of 48 images hold NaN'),
    ],
)
def test_bad_data_are_named(pairs: TrainingData, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_two_stream(changed(pairs, **change), TINY)


def test_shapes_and_kinds_are_checked(pairs: TrainingData) -> None:
    with pytest.raises(ValueError, match=r'images must be \(N, 8, 16, 16\).*found \(48, 8, 8, 16\)'):
        train_two_stream(replace(pairs, x=pairs.x[:, :, :8]), TINY)
    with pytest.raises(ValueError, match="found 'spectrum'"):
        train_two_stream(replace(pairs, spec=SampleSpec('spectrum', 8, ('a',))), TINY)
    odd = make_pairs(20, size=18)
    with pytest.raises(ValueError, match='patches of 18 x 18 pixels do not divide by 4'):
        train_two_stream(odd, TINY)


def test_ignored_patches_are_left_out_and_said(pairs: TrainingData) -> None:
    hidden = replace(pairs, x=pairs.x.clone(), y=pairs.y.clone())
    hidden.y[10:] = 255
    rest = replace(pairs, x=pairs.x[:10], y=pairs.y[:10])
    with pytest.warns(UserWarning, match='38 of 48 training patches hold ignored pixels only'):
        generator = train_two_stream(hidden, TINY)
    with pytest.warns(UserWarning, match='only 10 training patches'):
        expected = train_two_stream(rest, TINY)
    assert same(generator, expected)


def test_partly_labelled_patches_train(pairs: TrainingData) -> None:
    free = train_two_stream(make_pairs(ignored=0.6), replace(TINY, ignored=False))
    assert set(free.sample(4, seed=0)['mask'].unique().tolist()) <= {0, 1, 2}
    kept = train_two_stream(make_pairs(ignored=0.6), TINY)
    assert set(kept.sample(4, seed=0)['mask'].unique().tolist()) <= {0, 1, 2, 255}


@pytest.mark.parametrize(
    ('field', 'value'),
    [('batch_size', 0), ('ema_decay', 1.0), ('kl_weight', -1.0), ('min_snr_gamma', 0.0), ('precision', '16')],
)
def test_bad_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        TwoStreamConfig(**{field: value})


def test_settings() -> None:
    paper = TwoStreamConfig.paper()
    assert (paper.sad_weight, paper.downsampling, paper.kl_weight) == (0.1, 4, 1e-6)
    assert (paper.prediction_type, paper.class_conditional, paper.sampler) == ('epsilon', False, 'ddpm')
    assert (paper.sampling_steps, paper.mask_loss, paper.vae_channels) == (1000, 'cross_entropy', 128)
    assert (paper.min_snr_gamma, paper.unet_attention, paper.augment) == (None, True, False)
    assert TwoStreamConfig(unet_channels=[8, 16]) == TwoStreamConfig(unet_channels=(8, 16))  # type: ignore[arg-type]


@pytest.mark.parametrize('prediction_type', ['v_prediction', 'epsilon'])
def test_min_snr_weight_of_a_step_by_hand(pairs: TrainingData, prediction_type: Any) -> None:
    """A step of one patch: its loss over that without weights is the weight at the time that was drawn."""
    times: list[torch.Tensor] = []
    torch.manual_seed(0)
    generator = TwoStreamDiffusion(
        pairs.spec, mask_latents=2, vae_channels=4, unet_channels=(8, 16), prediction_type=prediction_type
    )
    generator.denoiser.register_forward_pre_hook(lambda _, inputs: times.append(inputs[1]))
    few, stages = replace(pairs, x=pairs.x[:8], y=pairs.y[:8]), {}
    for gamma in (5.0, None):
        config = replace(TINY, batch_size=1, min_snr_gamma=gamma, prediction_type=prediction_type)
        stages[gamma] = DiffusionStage(generator, Held(few.x, few.y), generator.shares_in(few), config, 0)
        stages[gamma].before_steps()

    @torch.no_grad()
    def loss(gamma: float | None, step: int) -> float:
        return loss_of(stages[gamma], stream_of_step(0, 'diffusion', step))

    betas = torch.linspace(0.0015**0.5, 0.0155**0.5, 1000, dtype=torch.float64) ** 2
    capped = set()
    for step in range(12):
        found = loss(5.0, step) / loss(None, step)
        assert torch.equal(times[-1], times[-2])
        alpha = float((1 - betas)[: int(times[-1]) + 1].prod())
        snr = alpha / (1 - alpha)
        assert found == pytest.approx(min(snr, 5) / (snr + (prediction_type == 'v_prediction')), rel=1e-3)
        capped.add(snr > 5)
    assert capped == {True, False}  # both sides of γ were met
