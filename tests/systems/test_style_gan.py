import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from hsiaug.systems.unmixing_fusion.abundances.style_gan import (
    FourierInput,
    ModulatedConv,
    StyleDiscriminator,
    StyleGAN,
    SynthesisLayer,
    bands,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope='module')
def gan() -> StyleGAN:
    torch.manual_seed(0)
    return StyleGAN(3, 32, 2, width=16, noise_dim=16).eval()


def decibels(found: Tensor, expected: Tensor) -> float:
    """How far a difference lies below the signal's spread."""
    return 20 * math.log10(float(expected.std() / (found - expected).square().mean().sqrt().clamp_min(1e-9)))


@torch.no_grad()
def shifted(gan: StyleGAN, shift: tuple[float, float]) -> Tensor:
    """Logits of four maps whose input is moved."""
    w = gan.styles(torch.randn(4, 16, generator=rng()), torch.tensor([0, 1, 0, 1]))
    bias, moved = gan.input.affine.bias, torch.tensor([0, 0, *shift]) / gan.size
    bias += moved
    logits = gan.synthesise(w)
    bias -= moved
    return logits


def half_pixel(logits: Tensor) -> Tensor:
    """Logits half a pixel further down, by a windowed sinc: rows 8 to −8 of them."""
    place = torch.arange(16) - 7.5
    weights = torch.sinc(place) * torch.kaiser_window(16, periodic=False, beta=5.0)
    n, k, _, width = logits.shape
    rows = conv2d(logits.reshape(n * k, 1, -1, width), (weights / weights.sum()).view(1, 1, -1, 1))
    return rows.view(n, k, -1, width)[:, :, :-1]


@pytest.mark.parametrize('size', [8, 12, 16, 20, 56, 64])
def test_maps_have_their_size(size: int) -> None:
    assert StyleGAN(3, size, 0, width=4, noise_dim=4).sample(2, None, rng()).shape == (2, 3, size, size)


def test_layers_cover_all_octaves() -> None:
    plan = bands(256, 8)
    assert [band.cutoff for band in plan[:1] + plan[-3:]] == [2, 128, 128, 128]
    assert [band.rate for band in plan] == sorted(band.rate for band in plan)
    assert all(band.cutoff <= band.rate / 2 for band in plan)
    ratios = {round(b.cutoff / a.cutoff, 4) for a, b in pairwise(plan[:7])}
    assert ratios == {2.0}


def test_a_shift_of_the_input_by_pixels_shifts_the_logits(gan: StyleGAN) -> None:
    still, moved = shifted(gan, (0, 0)), shifted(gan, (3, -2))
    assert decibels(moved[:, :, 3:, :-2], still[:, :, :-3, 2:]) > 50
    assert decibels(moved, still) < 20


def test_a_shift_by_half_a_pixel_does_so_for_the_sake_of_the_filters(gan: StyleGAN) -> None:
    exact = decibels(shifted(gan, (0.5, 0))[:, :, 8:-8], half_pixel(shifted(gan, (0, 0))))
    assert exact > 35
    plain = StyleGAN(3, 32, 2, width=16, noise_dim=16).eval()
    plain.load_state_dict(gan.state_dict())
    for layer in plain.layers:
        assert isinstance(layer, SynthesisLayer)
        for fir, factor in ((layer.up_filter, layer.up), (layer.down_filter, layer.down)):
            middle = len(fir) // 2
            fir.zero_()[middle - factor // 2 : middle + factor // 2] = 1 / factor  # repeats pixels, and takes means
    aliased = decibels(shifted(plain, (0.5, 0))[:, :, 8:-8], half_pixel(shifted(plain, (0, 0))))
    assert aliased < exact - 10


def test_nothing_knows_where_the_border_is(gan: StyleGAN) -> None:
    w = gan.styles(torch.randn(1, 16, generator=rng()), torch.tensor([0]))
    with torch.no_grad():
        gan.input.mix.data, kept = torch.zeros_like(gan.input.mix), gan.input.mix.data
        flat = gan.synthesise(w)  # an input that is the same everywhere
        gan.input.mix.data = kept
    # a filter's weights add up to one as a whole, those of each of its phases nearly so
    assert float(flat.std(dim=(2, 3)).max()) < 0.02
    assert torch.allclose(flat[:, :, 0, 0], flat[:, :, 16, 16], atol=0.02)


def test_waves_stay_within_their_band() -> None:
    torch.manual_seed(1)
    found = FourierInput(bands(32, 5)[0], 256, 4)
    radii = found.frequencies.norm(dim=1)
    assert float(radii.max()) <= 2
    assert float(radii.max()) > 1.5
    directions = found.frequencies / radii[:, None]
    assert float(directions.mean(dim=0).abs().max()) < 0.15


def test_modulation_is_that_of_each_samples_own_kernel() -> None:
    torch.manual_seed(2)
    conv = ModulatedConv(4, 5, 3, 6, gain=1.5)
    x, w = torch.randn(3, 4, 9, 9), torch.randn(3, 6)
    for i, found in enumerate(conv(x, w)):
        kernel = conv.weight * conv.affine(w[i])[None, :, None, None]
        kernel = 1.5 * kernel / kernel.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        assert torch.allclose(found, conv2d(x[i : i + 1], kernel)[0] + conv.bias, atol=1e-5)


def test_discriminator_is_told_the_label_and_sees_variety() -> None:
    torch.manual_seed(3)
    judge = StyleDiscriminator(3, 16, 2, width=8)
    x = torch.randn(4, 3, 16, 16)
    a, b = (judge(x, torch.full((4,), label)) for label in (0, 1))
    assert a.shape == (4,)
    assert not torch.allclose(a, b)
    alone = torch.stack(
        [judge(x[i : i + 1].repeat(4, 1, 1, 1), torch.zeros(4, dtype=torch.int64))[0] for i in range(4)]
    )
    assert not torch.allclose(a, alone, atol=1e-4)  # four copies are no batch of four


def test_mistakes() -> None:
    with pytest.raises(ValueError, match='layers must be at least 3 or None, found 2'):
        StyleGAN(3, 16, 0, layers=2)
