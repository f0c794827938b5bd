from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pairs import CLASSES, make_pairs
from torch import Tensor

from hsiaug.models.diffusion import norm_groups
from hsiaug.samples import SampleSpec
from hsiaug.systems import Generator
from hsiaug.systems.two_stream_diffusion import model as module
from hsiaug.systems.two_stream_diffusion.model import SCHEDULE, TwoStreamDiffusion

TINY: dict[str, Any] = {'downsampling': 2, 'vae_channels': 4, 'unet_channels': (8, 16), 'sampling_steps': 4}
DATA = make_pairs(20)


def make(spec: SampleSpec = DATA.spec, seed: int = 0, **settings: Any) -> TwoStreamDiffusion:
    """A generator that has seen the data but learnt nothing."""
    torch.manual_seed(seed)
    generator = TwoStreamDiffusion(spec, **{**TINY, **settings})
    generator.observe(DATA)
    return generator.eval()


def test_samples_keep_the_contract_and_the_unit() -> None:
    batch = make().sample(5, seed=0)
    assert batch['image'].shape == (5, 8, 16, 16)
    assert batch['image'].dtype == torch.float32
    assert batch['mask'].shape == (5, 16, 16)
    assert batch['mask'].dtype == torch.int64
    assert set(batch) == {'image', 'mask'}
    assert set(batch['mask'].unique().tolist()) <= {*range(len(CLASSES)), 255}
    assert int(make(ignored=False).sample(5, seed=0)['mask'].max()) < len(CLASSES)
    assert 20 < float(batch['image'].mean()) < 400  # counts, not z-scores
    assert make().sample(0)['mask'].shape == (0, 16, 16)


def test_values_stay_in_a_known_range_unless_told_otherwise() -> None:
    spec = replace(DATA.spec, value_range=(150.0, 160.0))
    image = make(spec).sample(3, seed=0)['image']
    assert 150 <= float(image.min()) <= float(image.max()) <= 160
    free = make(spec, clip=False).sample(3, seed=0)['image']
    assert torch.equal(free.clamp(150, 160), image)
    assert float(free.max()) > 160


def test_an_ignored_class_is_never_generated() -> None:
    spec = replace(DATA.spec, ignore_index=1)
    generator = make(spec, ignored=False)
    with torch.no_grad():  # a decoder that would choose class 1 everywhere
        generator.streams[1].decoder.conv_out.bias.copy_(torch.tensor([0.0, 1e3, 0.0]))
    assert set(generator.sample(3, torch.zeros(3), seed=0)['mask'].unique().tolist()) <= {0, 2}
    assert torch.equal(generator.one_hot(torch.tensor([[[1, 2]]]))[0, :, 0].T, torch.tensor([[0.0, 0, 0], [0, 0, 1]]))


@pytest.mark.parametrize('sampler', ['dpm++', 'ddpm'])
def test_seed_decides_and_chunks_do_not_matter(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make(sampler=sampler)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    whole, again, other = (generator.sample(7, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(whole['image'], again['image'])
    assert not torch.allclose(whole['image'], other['image'])
    monkeypatch.setattr(module, 'CHUNK', 3)
    parts = generator.sample(7, seed=3)
    assert torch.allclose(parts['image'], whole['image'], rtol=1e-4)
    assert float((parts['mask'] == whole['mask']).float().mean()) > 0.99


@pytest.mark.parametrize('single_stream', [False, True])
def test_saved_generator_gives_the_same_bits(single_stream: bool, tmp_path: Path) -> None:
    generator = make(single_stream=single_stream, prediction_type='v_prediction', class_conditional=not single_stream)
    generator.set_sampler('ddpm', 3)
    generator.adopt(DATA, 0)
    loaded = Generator.from_pretrained(generator.save_pretrained(tmp_path / 'generator'))
    assert isinstance(loaded, TwoStreamDiffusion)
    assert (loaded.sampler, loaded.sampling_steps) == ('ddpm', 3)
    assert loaded.settings == generator.settings
    assert loaded.provenance == generator.provenance
    first, second = (g.sample(4, seed=1) for g in (generator, loaded))
    assert torch.equal(first['image'], second['image'])
    assert torch.equal(first['mask'], second['mask'])


def test_schedule_interpolates_square_roots() -> None:
    from diffusers import DDPMScheduler

    betas = DDPMScheduler(**SCHEDULE).betas
    assert len(betas) == 1000
    assert float(betas[0]) == pytest.approx(0.0015, rel=1e-5)
    assert float(betas[-1]) == pytest.approx(0.0155, rel=1e-5)
    at = 300 / 999
    assert float(betas[300]) == pytest.approx((0.0015**0.5 * (1 - at) + 0.0155**0.5 * at) ** 2, rel=1e-4)


@pytest.mark.parametrize('prediction', ['epsilon', 'v_prediction'])
@pytest.mark.parametrize(('sampler', 'steps'), [('dpm++', 20), ('ddpm', 1000)])
def test_samplers_reach_a_known_distribution(prediction: Any, sampler: Any, steps: int) -> None:
    generator = make(prediction_type=prediction, class_conditional=False)
    mean, spread = 0.7, 0.4
    alphas = torch.cumprod(1 - torch.linspace(0.0015**0.5, 0.0155**0.5, 1000) ** 2, dim=0)

    def best(code: Tensor, time: Tensor, shares: Tensor) -> Tensor:
        """The least-squares prediction where codes are independent and normal."""
        a = alphas[time.long()][:, None, None, None]
        noise = (1 - a).sqrt() * (code - a.sqrt() * mean) / (a * spread**2 + 1 - a)
        clean = (code - (1 - a).sqrt() * noise) / a.sqrt()
        return noise if prediction == 'epsilon' else a.sqrt() * noise - (1 - a).sqrt() * clean

    generator.denoiser.forward = best  # type: ignore[method-assign]
    generator.set_sampler(sampler, steps)
    streams = [torch.Generator().manual_seed(i) for i in range(10)]
    start = torch.randn((10, *generator.code_shape), generator=torch.Generator().manual_seed(0))
    code = generator._denoise(start, torch.zeros(10, 3), streams)
    assert float(code.mean()) == pytest.approx(mean, abs=0.03)
    assert float(code.std()) == pytest.approx(spread, rel=0.06)


def test_codes_are_decoded_by_their_own_stream_after_their_scale_is_put_back() -> None:
    generator = make(image_latents=3, mask_latents=2)
    generator.latent_mean.copy_(torch.arange(5.0)[:, None, None])
    generator.latent_std.copy_(torch.arange(1.0, 6)[:, None, None])
    generator._denoise = lambda code, *_: code  # type: ignore[method-assign]
    rng = torch.Generator().manual_seed(5)
    batch = generator._draw(torch.zeros(2, dtype=torch.int64), rng)
    rng.manual_seed(5)
    generator._shares(torch.zeros(2, dtype=torch.int64), rng)
    code = torch.randn((2, 5, 8, 8), generator=rng) * generator.latent_std + generator.latent_mean
    with torch.no_grad():
        image, logits = (vae.decode(c).sample for vae, c in zip(generator.streams, code.split([3, 2], 1), strict=True))
    assert torch.allclose(batch['image'], image * generator.band_std + generator.band_mean)
    chosen = logits.argmax(dim=1)
    assert logits.shape[1] == 4  # three classes, and what does not count
    assert torch.equal(batch['mask'], torch.where(chosen == 3, 255, chosen))


def test_normalisation_is_that_of_the_bands() -> None:
    x = make().normalise(DATA.x)
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(8), atol=1e-3)
    constant = replace(DATA, x=DATA.x.clone())
    constant.x[:, 2] = 7.0
    generator = make()
    generator.observe(constant)
    assert torch.isfinite(generator.normalise(constant.x)).all()


def test_labels_draw_the_shares_of_training_patches_that_hold_the_class() -> None:
    generator = make()
    shares = generator.mixtures
    assert torch.allclose(shares, torch.stack([(DATA.y == k).flatten(1).float().mean(dim=1) for k in range(3)], dim=1))
    draws = generator._shares(torch.full((20_000,), 1), torch.Generator().manual_seed(0))
    expected = (shares * shares[:, 1:2]).sum(dim=0) / shares[:, 1].sum()
    assert (draws[:, 1] > 0).all()
    assert torch.allclose(draws.mean(dim=0), expected, atol=0.01)
    labels = torch.multinomial(shares.mean(dim=0), 20_000, replacement=True, generator=torch.Generator().manual_seed(1))
    even = generator._shares(labels, torch.Generator().manual_seed(0))
    assert torch.allclose(even.mean(dim=0), shares.mean(dim=0), atol=0.01)  # all patches equally often
    with pytest.raises(ValueError, match='not trained yet'):
        TwoStreamDiffusion(DATA.spec, **TINY).sample(1)


def test_only_so_many_shares_are_kept_but_each_class_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'MAX_MIXTURES', 5)
    rare = replace(DATA, y=torch.zeros_like(DATA.y))
    rare.y[17], rare.y[18] = 1, 2
    generator = make()
    generator.observe(rare)
    assert len(generator.mixtures) == 5
    assert (generator.mixtures.sum(dim=0) > 0).all()


def test_guidance_goes_beyond_the_condition() -> None:
    generator = make(guidance_scale=3.0)
    code, time = torch.randn(2, *generator.code_shape), torch.tensor([10, 500])
    shares = generator.mixtures[:2]
    with torch.no_grad():
        guided = generator._predict(code, time, shares)
        given, none = (generator.denoiser(code, time, s) for s in (shares, torch.zeros_like(shares)))
    assert not torch.allclose(given, none, atol=1e-4)
    assert torch.allclose(guided, none + 3 * (given - none), atol=1e-5)


def test_pairs_of_any_numbers_go_through_the_autoencoders_and_others_are_refused() -> None:
    generator = make()
    expected = generator.reconstruct(DATA.x[:3], DATA.y[:3])
    found = generator.reconstruct(DATA.x[:3].double(), DATA.y[:3].to(torch.uint8))
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    for image, mask in ((DATA.x[:2, 1:], DATA.y[:2]), (DATA.x[:0], DATA.y[:0]), (DATA.x[:2], DATA.y[:2, 1:])):
        for measure in (generator.reconstruct, generator.mask_cross_entropy):
            with pytest.raises(ValueError, match=r"images \('n', 8, 16, 16\) with masks are needed, found"):
                measure(image, mask)


def test_both_kinds_have_the_same_denoiser() -> None:
    two, one = make(), make(single_stream=True)
    assert two.code_shape == one.code_shape
    assert [p.shape for p in two.denoiser.parameters()] == [p.shape for p in one.denoiser.parameters()]
    assert (len(two.streams), len(one.streams)) == (2, 1)
    assert one.streams[0].config.in_channels == 8 + 3 + 1
    assert make(single_stream=True, ignored=False).streams[0].config.in_channels == 8 + 3
    assert one.sample(2, seed=0)['mask'].shape == (2, 16, 16)


def test_ignored_pixels_enter_as_nothing() -> None:
    generator = make()
    mask = torch.tensor([[[0, 255], [2, 1]]])
    hot = generator.one_hot(mask)
    assert hot[0, :, 0, 1].sum() == 0
    assert torch.equal(hot.sum(dim=1)[0], torch.tensor([[1.0, 0], [1, 1]]))
    assert torch.equal(hot.argmax(dim=1)[mask != 255], mask[mask != 255])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'downsampling': 3}, 'downsampling must be 1, 2, 4 or 8, found 3'),
        ({'downsampling': 8, 'unet_channels': (8, 16, 16)}, r'patches of 16 x 16 pixels do not divide by 32'),
        ({'prediction_type': 'sample'}, "choose from \\('epsilon', 'v_prediction'\\)"),
        ({'sampler': 'ddim'}, "unknown sampler 'ddim'"),
        ({'sampling_steps': 2000}, r'must be in \[1, 1000\], found 2000'),
        ({'vae_channels': 6}, 'multiples of 4'),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="kind 'segmentation' or 'change', found 'spectrum'"):
        make(SampleSpec('spectrum', 8, CLASSES))


def test_groups_divide_all_channels() -> None:
    assert norm_groups((128, 256, 512)) == 32  # latent diffusion's
    assert norm_groups((16, 48)) == 4
    assert norm_groups((12, 24)) == 1
