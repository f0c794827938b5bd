import math

import pytest
import torch

from hsiaug.metrics.frechet import frechet_distance, prdc


def whitened(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """(n, d) vectors whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(dim=0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()).T, x, upper=True, left=False)


def test_frechet_distance_has_the_closed_form_of_gaussians() -> None:
    d = 4
    scales, shift = torch.tensor([1.0, 2.0, 0.5, 3.0]).double(), torch.tensor([1.0, 0.0, -2.0, 0.5]).double()
    a, b = whitened(60, d, 0), whitened(90, d, 1) * scales + shift
    # Of diagonal covariances, tr √(Σ_a Σ_b) is the sum of the products of the standard deviations.
    expected = float(shift.square().sum() + (1 - scales).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    # Covariances that do not commute: against the square root by its own definition.
    mixing = torch.tensor([[1.0, 0.7, 0, 0], [0, 1, -0.4, 0], [0.2, 0, 1, 0], [0, 0, 0.9, 1]]).double()
    c = a @ mixing
    values, vectors = torch.linalg.eigh(c.T.cov())
    root = vectors @ values.sqrt().diag() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ b.T.cov() @ root).sqrt().sum()
    expected = float(shift.square().sum() + c.T.cov().trace() + b.T.cov().trace() - 2 * overlap)
    assert frechet_distance(c, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_equal_sets_is_zero_even_below_full_rank() -> None:
    x = torch.randn(9, 40, generator=torch.Generator().manual_seed(0)) + 1e3  # fewer vectors than features, far away
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-3)
    assert frechet_distance(x, x + 1) == pytest.approx(40, rel=1e-3)


def test_frechet_distance_is_biased_by_few_samples() -> None:
    rng = torch.Generator().manual_seed(0)
    few, many = (frechet_distance(*torch.randn(2, n, 20, generator=rng)) for n in (15, 1500))
    assert few > 10 * many


def test_prdc_by_hand() -> None:
    # Reach (k = 1) of the real ones: 1, 1, 3; of the synthetic ones: 0.2, 0.2, 5.3.
    real = torch.tensor([[0.0], [1.0], [4.0]])
    fake = torch.tensor([[0.5], [0.7], [6.0]])
    found = prdc(real, fake, k=1)
    assert found.precision == pytest.approx(1)  # 0.5 and 0.7 are near 0 and 1, and 6 is within 3 of 4
    assert found.density == pytest.approx((2 + 2 + 1) / 3)
    assert found.coverage == pytest.approx(1)
    assert found.recall == pytest.approx(2 / 3)  # 1 and 4 are within 5.3 of 6; 0 is not, nor within 0.2 of any
    far = prdc(real, fake + 100, k=1)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_prdc_tells_collapse_from_noise() -> None:
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(1500, 3, generator=rng)  # more than a chunk
    same = prdc(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(1.2, abs=0.01)  # k neighbours and the vector itself
    collapsed = prdc(real, 0.05 * torch.randn(1500, 3, generator=rng))
    assert collapsed.precision > 0.95
    assert collapsed.recall < 0.05
    assert collapsed.coverage < 0.3
    noisy = prdc(real, 5 * torch.randn(1500, 3, generator=rng))
    assert noisy.recall > 0.9
    assert noisy.precision < 0.4


def test_prdc_counts_duplicates() -> None:
    x = torch.ones(7, 2)
    assert prdc(x, x).precision == 1
    assert prdc(x, x + 1).precision == 0


@pytest.mark.parametrize(
    ('a', 'b', 'message'),
    [
        (torch.zeros(5, 2), torch.zeros(5, 3), r'\(5, 2\) and \(5, 3\)'),
        (torch.zeros(5), torch.zeros(5), r'must be \(n, d\)'),
        (torch.zeros(1, 2), torch.zeros(9, 2), 'found 1 and 9'),
        (torch.full((9, 2), math.nan), torch.zeros(9, 2), '18 features are not finite'),
    ],
)
def test_bad_features(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    for measure in (frechet_distance, prdc):
        with pytest.raises(ValueError, match=message):
            measure(a, b)


def test_prdc_needs_more_vectors_than_neighbours() -> None:
    with pytest.raises(ValueError, match='at least 6 vectors'):
        prdc(torch.zeros(5, 2), torch.zeros(9, 2))
    with pytest.raises(ValueError, match='k must be at least 1'):
        prdc(torch.zeros(5, 2), torch.zeros(9, 2), k=0)
    with pytest.raises(ValueError, match='k must be a whole number'):
        prdc(torch.zeros(5, 2), torch.zeros(9, 2), k=2.5)  # type: ignore[arg-type]
