import math

import numpy as np
import torch

from hsiaug.functional.prior import apportion, em_prior, fill_to_prior
from hsiaug.functional.spectral import spectral_angle


def test_apportion_adds_up_and_stays_within_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        shares, total = rng.random(rng.integers(1, 9)), int(rng.integers(0, 100))
        counts = apportion(shares, total)
        assert counts.sum() == total
        assert np.abs(counts - shares / shares.sum() * total).max() < 1


def test_fill_to_prior_reaches_the_prior_where_it_can() -> None:
    prior = np.array([0.5, 0.3, 0.2])
    synthetic = fill_to_prior(np.array([10, 10, 10]), prior, 70)
    assert (np.array([10, 10, 10]) + synthetic).tolist() == [50, 30, 20]


def test_em_recovers_a_shifted_prior() -> None:
    # Two unit Gaussians at -1 and 1; trained at 1/2, met at 0.9 : 0.1. Posteriors are known in closed form.
    rng = np.random.default_rng(0)
    label = rng.random(20_000) < 0.1
    x = rng.normal(np.where(label, 1.0, -1.0), 1)
    second = 1 / (1 + np.exp(-2 * x))
    prior = em_prior(np.stack([1 - second, second], axis=1), np.array([0.5, 0.5]))
    assert abs(prior[1] - label.mean()) < 0.01
    assert abs(second.mean() - 0.1) > 0.05  # without EM the estimate is far off


def test_spectral_angle_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 3.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([math.pi / 2, math.pi / 4, 0.0], dtype=torch.float64)
    assert torch.allclose(spectral_angle(a, b)[:3], expected, atol=1e-12)
    assert torch.isfinite(spectral_angle(a, b)).all()
    x = torch.rand(5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: spectral_angle(v, torch.ones(5, 7, dtype=torch.float64)), x)
    small = torch.tensor([1.0, 1e-7], dtype=torch.float64)
    assert abs(float(spectral_angle(small, torch.tensor([1.0, 0.0], dtype=torch.float64))) - 1e-7) < 1e-15
