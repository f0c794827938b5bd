import pytest
import torch
from diffusers import DDPMScheduler

from hsiaug.losses.min_snr import min_snr_weight

# ᾱ, SNR = ᾱ / (1 − ᾱ), and with γ = 5: min(SNR, 5) / SNR for the noise, min(SNR, 5) / (SNR + 1) for the velocity
BY_HAND = [
    (0.2, 0.25, 1.0, 0.25 / 1.25),
    (0.5, 1.0, 1.0, 1 / 2),
    (0.8, 4.0, 1.0, 4 / 5),
    (0.9, 9.0, 5 / 9, 5 / 10),
    (0.99, 99.0, 5 / 99, 5 / 100),
]


@pytest.mark.parametrize(('alpha', 'snr', 'epsilon', 'velocity'), BY_HAND)
def test_weights_by_hand(alpha: float, snr: float, epsilon: float, velocity: float) -> None:
    assert alpha / (1 - alpha) == pytest.approx(snr)
    given = torch.tensor([alpha], dtype=torch.float64)
    assert float(min_snr_weight(given, 5.0, 'epsilon')) == pytest.approx(epsilon)
    assert float(min_snr_weight(given, 5.0, 'v_prediction')) == pytest.approx(velocity)


def test_both_predictions_weigh_the_same_error_of_the_signal() -> None:
    """An error of the clean signal, seen as one of the noise or of the velocity, costs min(SNR, γ) times it."""
    rng = torch.Generator().manual_seed(0)
    alpha = DDPMScheduler(num_train_timesteps=1000).alphas_cumprod[::50].double()
    signal, noise = torch.randn((2, 20), generator=rng, dtype=torch.float64)
    noisy = alpha.sqrt() * signal + (1 - alpha).sqrt() * noise
    wrong = signal + 0.1
    as_noise = (noisy - alpha.sqrt() * wrong) / (1 - alpha).sqrt()
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * signal
    as_velocity = alpha.sqrt() * as_noise - (1 - alpha).sqrt() * wrong
    expected = (alpha / (1 - alpha)).clamp_max(5) * 0.1**2
    assert torch.allclose(min_snr_weight(alpha, 5.0, 'epsilon') * (as_noise - noise) ** 2, expected)
    assert torch.allclose(min_snr_weight(alpha, 5.0, 'v_prediction') * (as_velocity - velocity) ** 2, expected)
