import math

import pytest
import torch

from hsiaug.functional.filtering import downsample_filtered, kaiser_lowpass, upsample_filtered


def wave(periods: float, count: int, rate: float) -> torch.Tensor:
    """(1, 1, count, count) of a wave along the columns, samples centred at 0."""
    place = (torch.arange(count) - (count - 1) / 2) / rate
    return torch.cos(2 * math.pi * periods * place + 0.3).expand(1, 1, count, count)


@pytest.mark.parametrize('factor', [2, 4])
def test_a_wave_below_the_cutoff_is_the_same_wave_at_the_other_rate(factor: int) -> None:
    rate, taps = 16, 12 * factor
    fir = kaiser_lowpass(taps, 4, 2, rate * factor)
    high = upsample_filtered(wave(1.5, 40, rate), fir, factor)
    assert high.shape[-1] == 39 * factor - taps + 2
    assert torch.allclose(high, wave(1.5, high.shape[-1], rate * factor), atol=0.02)
    low = downsample_filtered(wave(1.5, taps + 19 * factor, rate * factor), fir, factor)
    assert low.shape[-1] == 20
    assert torch.allclose(low, wave(1.5, 20, rate), atol=0.02)


def test_what_would_fold_back_is_gone() -> None:
    fir = kaiser_lowpass(12, 4, 4, 32)
    high = wave(13, 80, 32)  # at a rate of 16 this would look like 3 periods
    assert float(high[..., ::2].abs().max()) > 0.9
    assert float(downsample_filtered(high, fir, 2).abs().max()) < 0.03


def test_both_sides_are_filtered_and_channels_stay_apart() -> None:
    fir = kaiser_lowpass(8, 4, 4, 32)
    x = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    up = upsample_filtered(x, fir, 2)
    assert torch.allclose(up.mT, upsample_filtered(x.mT, fir, 2), atol=1e-5)
    assert torch.allclose(up[1:, 2:], upsample_filtered(x[1:, 2:], fir, 2), atol=1e-6)
    inner = fir * 2
    expected = torch.zeros(46)  # the first row of one column, by its definition: zeros between samples
    stuffed = torch.zeros(39)
    stuffed[::2] = x[0, 0, 10]
    for i, weight in enumerate(inner):
        expected[i : i + 39] += weight * stuffed
    row = upsample_filtered(x[:1, :1, 10:11].expand(-1, -1, 20, -1), fir, 2)[0, 0, 16]
    assert torch.allclose(row, expected[7:39], atol=1e-2)  # a constant along the other side passes but for ripple


def test_weights_add_up_to_one() -> None:
    fir = kaiser_lowpass(12, 4, 3, 32)
    assert float(fir.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(fir, fir.flip(0))
    flat = torch.full((1, 1, 30, 30), 0.7)
    assert torch.allclose(downsample_filtered(flat, fir, 2), torch.tensor(0.7), atol=1e-5)
