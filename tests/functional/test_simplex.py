import torch

from hsiaug.functional.unmixing import project_simplex


def test_points_known_by_hand() -> None:
    x = torch.tensor([[2.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.0, 1.0, -5.0], [0.2, 0.3, 0.5], [0.6, 0.6, 0.0]])
    expected = torch.tensor([[1.0, 0.0, 0.0], [1 / 3] * 3, [0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    assert torch.allclose(project_simplex(x), expected, atol=1e-6)
    assert torch.allclose(project_simplex(x.T, dim=0), expected.T, atol=1e-6)


def test_no_point_of_the_simplex_is_nearer() -> None:
    rng = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(3, 6, 4, 4, generator=rng)
    found = project_simplex(x)
    assert float(found.min()) == 0
    assert torch.allclose(found.sum(dim=1), torch.ones(3, 4, 4), atol=1e-6)
    # for a convex set: no direction into it comes closer to x
    for _ in range(50):
        other = torch.rand(x.shape, generator=rng).pow(4)
        other = other / other.sum(dim=1, keepdim=True)
        assert float(((x - found) * (other - found)).sum(dim=1).max()) < 1e-5
    assert torch.allclose(project_simplex(found), found, atol=1e-6)
