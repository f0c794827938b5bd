from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from changes import make_changes
from pairs import make_pairs, nearest_class
from torch import Tensor
from toys import aligned, keys_of, toy_spec, toy_training

from hsiaug.datasets import ChangeDataset, MixedDataset, scene_dataset
from hsiaug.engine.data import Held
from hsiaug.functional import spectral_angle
from hsiaug.functional.dates import flat_mask, in_contract, stacked_dates
from hsiaug.functional.orientations import turn
from hsiaug.losses import value_width
from hsiaug.samples import LeakageError
from hsiaug.scenes import BitemporalScene, PatchSplitter, SimulatedScene
from hsiaug.systems import Generator
from hsiaug.systems.patch_augment import PatchAugment
from hsiaug.systems.two_stream_diffusion import stages as latent_stages
from hsiaug.systems.two_stream_diffusion.model import TwoStreamDiffusion
from hsiaug.systems.two_stream_diffusion.stages import AutoencoderStage, arranged
from hsiaug.systems.two_stream_diffusion.train import TwoStreamConfig, train_two_stream
from hsiaug.trainers import fit_generator, training_data

SMALL = TwoStreamConfig(
    mask_latents=2,
    vae_channels=8,
    vae_iterations=220,
    diffusion_iterations=250,
    vae_batch_size=4,
    batch_size=8,
    vae_lr=5e-3,
)
TINY = replace(
    SMALL,
    vae_channels=4,
    unet_channels=(8, 16),
    sampling_steps=3,
    vae_iterations=3,
    diffusion_iterations=3,
    vae_batch_size=2,
    batch_size=2,
)
DATA = make_changes()


def make(**settings: Any) -> TwoStreamDiffusion:
    """A generator that has seen the data but learnt nothing."""
    torch.manual_seed(0)
    tiny = {'downsampling': 2, 'vae_channels': 4, 'unet_channels': (8, 16), 'sampling_steps': 3}
    generator = TwoStreamDiffusion(DATA.spec, **{**tiny, **settings})
    generator.observe(DATA)
    return generator.eval()


@pytest.fixture(scope='module')
def trained() -> TwoStreamDiffusion:
    return train_two_stream(DATA, SMALL)


def changed_share(batch: dict[str, Tensor]) -> float:
    return float((batch['mask'] == 1).float().mean())


# --- form -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('single_stream', [False, True])
def test_samples_keep_the_contract_and_survive_a_save(single_stream: bool, tmp_path: Path) -> None:
    generator = make(single_stream=single_stream)
    generator.adopt(DATA, 0)
    batch = generator.sample(5, seed=3)
    assert (batch['image'].shape, batch['image'].dtype) == ((5, 2, 8, 16, 16), torch.float32)
    assert (batch['mask'].shape, batch['mask'].dtype) == ((5, 1, 16, 16), torch.int64)
    assert set(batch) == {'image', 'mask'}
    assert set(batch['mask'].unique().tolist()) <= {0, 1, 255}
    assert generator.sample(0)['mask'].shape == (0, 1, 16, 16)
    loaded = Generator.from_pretrained(generator.save_pretrained(tmp_path / 'g'))
    again, other = loaded.sample(5, seed=3), loaded.sample(5, seed=4)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert not torch.allclose(batch['image'], other['image'])


def test_without_ignored_pixels_masks_are_binary() -> None:
    masks = make(ignored=False).sample(6, seed=0)['mask']
    assert set(masks.unique().tolist()) <= {0, 1}


def test_both_dates_share_the_image_branch_and_the_mask_branch_stays() -> None:
    two, one, single = make(), TwoStreamDiffusion(make_pairs(2).spec, vae_channels=4), make(single_stream=True)
    assert [vae.config.in_channels for vae in two.streams] == [8, 3]
    assert [vae.config.latent_channels for vae in two.streams] == [4, 4]
    assert [p.shape for p in two.streams[0].parameters()] == [p.shape for p in one.streams[0].parameters()]
    assert [vae.config.in_channels for vae in single.streams] == [16 + 3]
    assert single.code_shape == two.code_shape == (12, 8, 8)
    with torch.no_grad():
        x = two.normalise(DATA.x[:3])
        (mean, _), (label, _) = two.posterior(x, flat_mask(DATA.y[:3]))
        dates = [two.streams[0].encode(date).latent_dist.mean for date in x.chunk(2, dim=1)]
        assert torch.allclose(mean, torch.cat(dates, dim=1), atol=1e-5)
        image, _ = two.decode([mean, label])
        decoded = [two.streams[0].decode(date).sample for date in dates]
        assert torch.allclose(image, torch.cat(decoded, dim=1), atol=1e-5)


def test_each_date_is_normalised_by_itself_and_put_back_in_its_place() -> None:
    generator = make()
    x = generator.normalise(DATA.x)
    assert x.shape == (48, 16, 16, 16)
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(16), atol=1e-4)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(16), atol=1e-3)
    with torch.no_grad():  # a decoder of nothing leaves the mean of each date
        for parameter in generator.streams[0].decoder.conv_out.parameters():
            parameter.zero_()
    image = generator.sample(2, seed=0)['image']
    assert torch.allclose(image, DATA.x.mean(dim=(0, 3, 4))[None, :, :, None, None].expand_as(image), rtol=1e-4)


def test_stacking_dates_is_undone() -> None:
    batch = in_contract(stacked_dates(DATA.x), flat_mask(DATA.y), DATA.spec)
    assert torch.equal(batch['image'], DATA.x)
    assert torch.equal(batch['mask'], DATA.y)
    assert torch.equal(stacked_dates(DATA.x)[:, 8:], DATA.x[:, 1])
    one = make_pairs(2)
    assert stacked_dates(one.x) is one.x
    assert torch.equal(in_contract(one.x, flat_mask(one.y), one.spec)['mask'], one.y)


def test_the_spectral_angle_is_that_of_each_date(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, seen = make(), list[tuple[Tensor, ...]]()
    actual = latent_stages.spectral_reconstruction

    def spy(*images: Any) -> Tensor:
        seen.append(images)
        return actual(*images)

    monkeypatch.setattr(latent_stages, 'spectral_reconstruction', spy)
    stage = AutoencoderStage(generator, Held(DATA.x, DATA.y), TINY, 0)
    stage.advance(torch.Generator())
    found, target, mean, std, width, _ = seen[0]
    assert width == pytest.approx(value_width(DATA.x), rel=1e-4)  # L1 is that of values from 0 to 1
    assert found.shape == target.shape == (2, 8, 2, 16, 16)
    spectra = target * std + mean  # (n, C, 2, H, W) in counts
    known = {row.round(decimals=1).numpy().tobytes() for row in turned(DATA.x)}
    assert {row.movedim(1, 0).round(decimals=1).contiguous().numpy().tobytes() for row in spectra} <= known
    angles = spectral_angle(found * std + mean, spectra, dim=1)
    dates = [spectral_angle((found * std + mean)[:, :, k], spectra[:, :, k], dim=1) for k in (0, 1)]
    assert torch.allclose(angles, torch.stack(dates, dim=1))


def turned(x: Tensor) -> Tensor:
    return torch.cat([turn(x, variant) for variant in range(8)]).contiguous()


# --- augmentation ---------------------------------------------------------------------------------------------------


def test_both_dates_and_the_mask_move_together_and_a_swap_changes_no_label() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.randint(3, (4, 2, 8, 8), generator=rng)  # one band per date
    mask = (image[:, 0] != image[:, 1]).long()
    results = [arranged(image, mask, variant) for variant in range(16)]
    assert len({moved.numpy().tobytes() for moved, _ in results}) == 16
    for variant, (moved, label) in enumerate(results):
        assert torch.equal((moved[:, 0] != moved[:, 1]).long(), label)
        assert torch.equal(label, turn(mask, variant % 8))
        first = turn(image[:, variant // 8], variant % 8)  # from 8 on the second date comes first
        assert torch.equal(moved[:, 0], first)


def test_swapped_dates_are_trained_on_only_where_asked_for() -> None:
    generator = make()
    samples = Held(DATA.x, DATA.y)
    assert AutoencoderStage(generator, samples, TINY, 0).variants == tuple(range(8))
    assert AutoencoderStage(generator, samples, replace(TINY, swap_dates=True), 0).variants == tuple(range(16))
    both = replace(TINY, swap_dates=True, augment=False)
    assert AutoencoderStage(generator, samples, both, 0).variants == (0, 8)
    cached, encoded = (train_two_stream(DATA, replace(both, cache_latents=on)) for on in (True, False))
    assert all(torch.isfinite(g.sample(1, seed=0)['image']).all() for g in (cached, encoded))
    with pytest.raises(ValueError, match=r"swap_dates is for pairs of dates \(kind 'change'\), found kind 'segm"):
        train_two_stream(make_pairs(20), both)


# --- what is learnt -------------------------------------------------------------------------------------------------


def test_triplets_are_learnt(trained: TwoStreamDiffusion) -> None:
    new = make_changes(24, seed=5)
    back = trained.reconstruct(new.x, new.y)
    assert back['image'].shape == new.x.shape
    assert float((back['mask'] == new.y).float().mean()) > 0.97
    assert float(spectral_angle(back['image'], new.x, dim=2).mean()) < 0.12
    batch = trained.sample(64, seed=0)
    assert abs(changed_share(batch) - changed_share({'mask': DATA.y})) < 0.12
    assert float((batch['mask'] == 255).float().mean()) < 0.01  # no training pixel was ignored


def test_dates_differ_where_the_mask_says_so(trained: TwoStreamDiffusion) -> None:
    def differences(batch: dict[str, Tensor]) -> list[float]:
        """Mean difference of normalised dates where nothing changed, and where something did."""
        first, second = trained.normalise(batch['image']).chunk(2, dim=1)
        gap, mask = (second - first).abs().mean(dim=1), batch['mask'][:, 0]
        return [float(gap[mask == k].mean()) for k in (0, 1)]

    new = make_changes(24, seed=5)
    real, back = differences({'image': DATA.x, 'mask': DATA.y}), differences(trained.reconstruct(new.x, new.y))
    synthetic = differences(trained.sample(64, seed=1))
    assert synthetic[1] > 1.4 * synthetic[0]
    assert 0.5 < back[0] / real[0] < 1.6
    assert back[1] > 0.6 * real[1]
    assert 0.6 < synthetic[0] / real[0] < 1.6  # neither sterile nor noisy
    assert synthetic[1] > 0.35 * real[1]


def test_asking_for_more_change_gives_more(trained: TwoStreamDiffusion) -> None:
    masks = [trained.sample_shares(48, (1 - share, share), seed=1) for share in (0.02, 0.2, 0.45)]
    found = [changed_share(batch) for batch in masks]
    assert found[0] < 0.6 * found[1]
    assert found[1] < 0.8 * found[2]
    assert torch.equal(trained.sample_shares(48, torch.tensor([[0.8, 0.2]] * 48), seed=1)['mask'], masks[1]['mask'])
    few, many = (trained.sample(64, torch.full((64,), k), seed=2) for k in (0, 1))
    assert changed_share(many) > changed_share(few) + 0.05


def test_the_second_date_shows_another_class_where_changed(trained: TwoStreamDiffusion) -> None:
    batch = trained.sample_shares(48, (0.75, 0.25), seed=3)
    season = DATA.x[:, 1].mean(dim=(0, 2, 3)) - DATA.x[:, 0].mean(dim=(0, 2, 3))
    first, second = nearest_class(batch['image'][:, 0]), nearest_class(batch['image'][:, 1] - season[:, None, None])
    other, mask = first != second, batch['mask'][:, 0] == 1
    assert float(other[mask].float().mean()) > 1.5 * float(other[~mask].float().mean())


# --- data and provenance --------------------------------------------------------------------------------------------


def test_a_bitemporal_scene_trains_and_is_guarded(tmp_path: Path) -> None:
    simulated = SimulatedScene(48, 48, wavelengths=np.arange(450, 900, 100.0), dates=2, change=0.2)
    scene = BitemporalScene.from_simulated(simulated)
    split, other = (PatchSplitter(size=8)(scene, seed=seed) for seed in (0, 1))
    real = scene_dataset(scene, split)
    assert isinstance(real, ChangeDataset)
    data = training_data(scene, split)
    assert data.spec == real.spec
    assert torch.equal(data.x, real.image)
    assert torch.equal(data.y, real.mask)
    assert torch.equal(data.val_y, ChangeDataset.from_scene(scene, split, 'val').mask)
    streams = {'vae_iterations': 1, 'diffusion_iterations': 1, 'vae_channels': 4, 'sampling_steps': 2}
    for name, settings in (
        ('patch_augment', {'kind': 'copy_paste'}),
        ('two_stream_diffusion', streams),
        ('change_editing', {'painter': streams, 'clusters': 3}),
    ):
        generator = fit_generator(name, data, settings)
        mixed = MixedDataset(real, generator, ratio=1.0, seed=0)
        assert len(mixed) == 2 * len(real)
        sample = mixed[len(mixed) - 1]
        assert sample['image'].shape == real[0]['image'].shape
        assert sample['mask'].shape == real[0]['mask'].shape
        loaded = Generator.from_pretrained(generator.save_pretrained(tmp_path / name))
        with pytest.raises(LeakageError, match='evaluation pixels'):
            MixedDataset(ChangeDataset.from_scene(scene, other), loaded, ratio=1.0)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r'images must be \(N, 2, 8, 16, 16\) with masks \(N, 1, 16, 16\), found'):
        train_two_stream(replace(DATA, x=DATA.x[:, 0]), TINY)
    with pytest.raises(ValueError, match=r"no training pixel of \['changed'\]"):
        train_two_stream(replace(DATA, y=torch.zeros_like(DATA.y)), TINY)
    generator = make()
    for shares, message in (
        ((0.5, 0.4, 0.1), r'must be \(2,\)'),
        ((1.2, -0.2), 'not be negative'),
        ((0.5, 0.1), 'add up'),
    ):
        with pytest.raises(ValueError, match=message):
            generator.sample_shares(3, shares, seed=0)
    with pytest.raises(ValueError, match='class_conditional=True'):
        make(class_conditional=False).sample_shares(1, (0.5, 0.5), seed=0)
    with pytest.raises(ValueError, match='not trained yet'):
        TwoStreamDiffusion(DATA.spec).sample_shares(1, (0.5, 0.5), seed=0)


# --- classic augmentation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['duplicate', 'flips', 'crops', 'noise', 'cutmix'])
def test_augmented_pairs_stay_aligned(kind: str) -> None:
    data = toy_training('change')
    batch = fit_generator('patch_augment', data, {'kind': kind}).sample(30, seed=1)
    if kind in ('duplicate', 'flips', 'cutmix'):
        assert aligned(batch)
    if kind == 'noise':
        source = {key: k for k, key in enumerate(keys_of(data.y))}
        rows = [source[key] for key in keys_of(batch['mask'])]
        spread = (batch['image'] - data.x[rows]).std(dim=(0, 3, 4))
        assert torch.allclose(spread, 0.1 * data.x.std(dim=(0, 3, 4)), rtol=0.1)


def test_copied_changes_go_into_the_second_date_and_the_mask() -> None:
    data = toy_training('change')
    data.y[:, :, :, 4:] = 0
    batch = fit_generator('patch_augment', data, {'kind': 'copy_paste'}).sample(60, seed=2)
    rows = {key: k for k, key in enumerate(keys_of(data.x[:, 0]))}
    pasted = 0
    for image, mask in zip(batch['image'], batch['mask'][:, 0], strict=True):
        own = rows[image[0].numpy().tobytes()]  # the first date stays
        moved = (image[1] != data.x[own, 1]).any(dim=0)
        assert bool((mask[moved] == 1).all())
        assert torch.equal(mask[~moved], torch.maximum(mask, data.y[own, 0])[~moved])
        fits = [
            bool(((data.y[k, 0] == 1) & (data.x[k, 1] == image[1]).all(dim=0))[moved].all()) for k in range(len(data.x))
        ]
        assert any(fits)  # all that is new comes from the changes of one pair
        pasted += int(moved.any())
    assert pasted > 40
    assert changed_share(batch) > 1.2 * changed_share({'mask': data.y})


def test_copies_of_changes_need_changes() -> None:
    data = toy_training('change')
    with pytest.raises(ValueError, match='nothing changed in any of the 12 training pairs'):
        fit_generator('patch_augment', replace(data, y=torch.zeros_like(data.y)), {'kind': 'copy_paste'})
    with pytest.raises(ValueError, match=r"'copy_paste' is for pairs of dates"):
        PatchAugment(toy_spec('segmentation'), kind='copy_paste')
