from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from hsiaug.systems.unmixing_fusion.abundances.config import AbundanceConfig, abundance_model
from hsiaug.systems.unmixing_fusion.abundances.diffusion import AbundanceDiffusion, noise_betas
from hsiaug.systems.unmixing_fusion.abundances.train import DiffusionTraining


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope='module')
def diffusion() -> AbundanceDiffusion:
    torch.manual_seed(0)
    return AbundanceDiffusion(3, 16, 2, channels=(8, 16), sampling_steps=4).eval()


def test_a_denoiser_that_knows_the_map_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AbundanceDiffusion(3, 16, 0, channels=(8, 16))
    truth = (4 * torch.randn(2, 3, 16, 16, generator=rng())).softmax(dim=1)
    truth = torch.where(truth < 0.05, 0, truth)  # with exact zeros
    truth = truth / truth.sum(dim=1, keepdim=True)
    model.observe(truth, torch.zeros(2, dtype=torch.int64), torch.tensor([0.5, 0.5]))
    clean = model.standardise(truth)
    times = list[int]()

    def exact(noisy: Tensor, time: Tensor, index: Tensor) -> Tensor:
        times.append(int(time[0]))
        alpha = model.alphas[time][:, None, None, None]
        noise = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean

    monkeypatch.setattr(model, 'forward', exact)
    drawn = model.sample(2, None, rng(5))
    assert float((drawn - truth).abs().max()) < 1e-4
    assert bool((drawn[truth == 0] < 1e-5).all())
    assert len(times) == 20
    assert times == sorted(times, reverse=True)
    assert times[0] > 950


def test_noise_hides_large_maps_as_it_hides_small_ones() -> None:
    reference = DDPMScheduler(beta_start=0.0015, beta_end=0.0155, beta_schedule='scaled_linear').alphas_cumprod
    small, large = ((1 - noise_betas(size)).cumprod(0) for size in (32, 256))
    assert torch.allclose(small.float(), reference, atol=1e-5)
    assert torch.equal(noise_betas(16), noise_betas(32))
    ratio = (small / (1 - small)) / (large / (1 - large))
    assert torch.allclose(ratio, torch.full_like(ratio, 64.0))


def test_labels_without_labels_mean_nothing() -> None:
    model = AbundanceDiffusion(3, 8, 0, channels=(8, 16), sampling_steps=2).eval()
    assert torch.equal(model.sample(2, torch.tensor([0, 5]), rng()), model.sample(2, None, rng()))


def test_chunks_do_not_change_what_is_drawn(diffusion: AbundanceDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = diffusion.sample(4, torch.zeros(4, dtype=torch.int64), rng())
    monkeypatch.setattr('hsiaug.systems.unmixing_fusion.abundances.base._PIXELS', 2 * 16**2)
    parts = diffusion.sample(4, torch.zeros(4, dtype=torch.int64), rng())
    assert torch.allclose(whole, parts, atol=1e-5)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match='maps of 12 pixels do not divide by 8'):
        AbundanceDiffusion(3, 12, 0, channels=(8, 8, 8, 8))
    with pytest.raises(ValueError, match='multiples of 4, found \\(6, 8\\)'):
        AbundanceDiffusion(3, 16, 0, channels=(6, 8))
    with pytest.raises(ValueError, match='sampling_steps must be in \\[1, 1000\\], found 0'):
        AbundanceDiffusion(3, 16, 0, sampling_steps=0)


def test_published_form_samples_a_gaussian_ancestrally(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exact noise of values of spread 0.5 about 0.3, draws have that distribution."""
    model = AbundanceDiffusion(3, 8, 0, channels=(4,), sampling_steps=250, form='ddpm')
    assert float(model.betas[0]) == pytest.approx(1e-4)
    assert float(model.betas[-1]) == pytest.approx(0.02)

    def exact(noisy: Tensor, time: Tensor, index: Tensor) -> Tensor:
        kept = model.alphas[time][:, None, None, None]
        return (1 - kept).sqrt() * (noisy - 0.3 * kept.sqrt()) / (0.25 * kept + 1 - kept)

    monkeypatch.setattr(model, 'forward', exact)
    model.mean.zero_()
    drawn = model.denoised(torch.zeros(60, dtype=torch.int64), rng())
    assert float(drawn.mean()) == pytest.approx(0.3, abs=0.03)
    assert float(drawn.std()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(drawn, model.denoised(torch.zeros(60, dtype=torch.int64), rng()))


def test_published_form_learns_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.rand(4, 3, 8, 8, generator=rng()).softmax(dim=1)
    index, config = torch.zeros(4, dtype=torch.int64), AbundanceConfig(network={'channels': [4], 'form': 'ddpm'})
    model = abundance_model('diffusion', 3, 8, 0, **config.network)
    model.observe(maps, index, torch.full((4,), 0.25))
    stage = DiffusionTraining(model, maps[:1], index[:1], torch.ones(1), replace(config, augment=False), 0)
    clean = model.standardise(maps[:1])

    def exact(noisy: Tensor, time: Tensor, index: Tensor) -> Tensor:
        kept = model.alphas[time][:, None, None, None]
        anchor = 0 * next(model.unet.parameters()).sum()
        return (noisy - kept.sqrt() * clean) / (1 - kept).sqrt() + anchor

    monkeypatch.setattr(model, 'forward', exact)
    stage.update(rng())
    assert float(stage.losses['loss']) < 1e-6


def test_attention_only_where_levels_are_small() -> None:
    model = AbundanceDiffusion(3, 32, 0, channels=(8, 8, 8), attention=True, attention_side=8)
    names = [type(block).__name__ for block in model.unet.down_blocks]
    assert names == ['DownBlock2D', 'DownBlock2D', 'AttnDownBlock2D']
    with pytest.raises(ValueError, match="unknown form 'ddim'"):
        AbundanceDiffusion(3, 8, 0, channels=(4,), form='ddim')  # type: ignore[arg-type]
