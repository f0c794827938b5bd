import numpy as np
import torch

from hsiaug.functional.region_growing import grow_regions


def image(*values: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectra of two bands at angles in degrees, and their places."""
    angle = torch.deg2rad(torch.tensor(values)).reshape(-1)
    rows, columns = np.indices((len(values), len(values[0]))).reshape(2, -1)
    return torch.stack([angle.cos(), angle.sin()], dim=1), torch.from_numpy(np.stack([rows, columns], axis=1))


def grown(values: list[list[float]], seeds: list[int], reach: float) -> tuple[list[int], list[float]]:
    """Owner (as a place in the image, -1 for none) and path of each place."""
    x, positions = image(*values)
    order = seeds + [i for i in range(len(x)) if i not in seeds]
    owner, path = grow_regions(x[order] * 7, positions[order], len(seeds), reach)
    back = np.argsort(order)
    return [order[k] if k >= 0 else -1 for k in owner[back].tolist()], path[back].tolist()


def test_regions_end_at_edges() -> None:
    owner, path = grown([[0, 1, 2, 40, 41, 42, 43]], [0, 6], reach=10)
    assert owner == [0, 0, 0, 6, 6, 6, 6]
    np.testing.assert_allclose(path, [0, 1, 2, 3, 2, 1, 0], atol=1e-3)  # in median steps, of one degree


def test_reach_and_the_way_around_an_obstacle() -> None:
    owner, _ = grown([[0, 1, 2, 3, 4, 5]], [0], reach=3.5)
    assert owner == [0, 0, 0, 0, -1, -1]
    around = [[0, 60, 6], [1, 60, 5], [2, 3, 4]]
    owner, path = grown(around, [0], reach=8)
    assert owner == [0, -1, 0, 0, -1, 0, 0, 0, 0]
    np.testing.assert_allclose(path[2], 6, atol=1e-3)


def test_brightness_is_no_step_and_rows_do_not_run_into_each_other() -> None:
    x, positions = image([0, 0], [30, 60])
    owner, _ = grow_regions(x * torch.tensor([[1.0], [9.0], [1.0], [1.0]]), positions, 1, 0.5)
    assert owner.tolist() == [0, 0, -1, -1]
    apart = torch.tensor([[0, 3], [1, 0]])  # end of one row, beginning of the next
    assert grow_regions(torch.ones(2, 3), apart, 1, 9.0)[0].tolist() == [-1, -1]
