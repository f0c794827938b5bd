import math

import pytest
import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from hsiaug.systems.change_editing.drift import NEAREST, DateDrift, detail

N, BANDS, SIZE = 40, 4, 16
CLASSES = (torch.arange(SIZE)[:, None] >= SIZE // 2).long().expand(N, SIZE, SIZE)
BRIGHT = torch.tensor([100.0, 300.0])
INSIDE = [0, 1, 2, 3, 12, 13, 14, 15]  # rows away from the border of the classes


def smooth(rng: torch.Generator) -> Tensor:
    """(N, 1, H, W) smooth random fields of variance 1."""
    field = gaussian_blur2d(torch.randn((N, 1, 2 * SIZE, 2 * SIZE), generator=rng), (15, 15), (3.0, 3.0))
    return field[..., :SIZE, :SIZE] / field.std()


def scenes(seed: int = 0) -> Tensor:
    """(N, C, H, W): two classes of their own brightness, under varying light, with texture."""
    rng = torch.Generator().manual_seed(seed)
    light = smooth(rng)
    texture = torch.randn((N, BANDS, SIZE, SIZE), generator=rng)
    return BRIGHT[CLASSES][:, None] * (1 + 0.1 * light) + 8 * texture


def fitted(first: Tensor, second: Tensor, **settings: bool) -> DateDrift:
    drift = DateDrift(BANDS, 2)
    drift.fit(first, second, CLASSES, **settings)
    return drift


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_a_season_of_each_class_is_found_again() -> None:
    first = scenes()
    gain, offset = torch.tensor([1.2, 0.7])[CLASSES][:, None], torch.tensor([-30.0, 50.0])[CLASSES][:, None]
    second = gain * first + offset
    drift = fitted(first, second)
    assert torch.allclose(drift.gain, torch.tensor([[1.2], [0.7]]).expand(2, BANDS), atol=0.2)  # texture's part aside
    new = scenes(seed=1)
    found = drift(new, CLASSES, torch.Generator().manual_seed(0))
    assert float((found - gain * new - offset)[:, :, INSIDE].abs().mean()) < 3
    assert float((new - gain * new - offset)[:, :, INSIDE].abs().mean()) > 20


def test_texture_stays_while_light_changes() -> None:
    first, rng = scenes(), torch.Generator().manual_seed(2)
    second = detail(first) + BRIGHT[CLASSES][:, None] * (1 + 0.1 * smooth(rng))
    drift = fitted(first, second)
    found = drift(scenes(seed=1), CLASSES, rng)
    texture = [correlation(detail(a), detail(b)) for a, b in ((first, second), (scenes(seed=1), found))]
    assert texture[1] == pytest.approx(texture[0], abs=0.1)
    assert texture[1] > 0.75
    assert drift.detail_gain.mean() > 0.3  # more of the detail stays than of the rest


def test_residuals_come_whole_from_patches_of_similar_cover() -> None:
    rng = torch.Generator().manual_seed(3)
    dark, bright = (torch.full_like(CLASSES[:1], k) for k in (0, 1))
    classes = torch.cat([CLASSES[: N // 2], dark.expand(N // 4, -1, -1), bright.expand(N // 4, -1, -1)])
    clouds = 40 * (torch.rand((N, BANDS, SIZE, SIZE), generator=rng) < 0.02)  # rare and large
    first = BRIGHT[classes][:, None] + torch.randn((N, BANDS, SIZE, SIZE), generator=rng)
    drift = DateDrift(BANDS, 2)
    drift.fit(first, first + clouds, classes)
    drawn = drift(first, classes, rng) - first
    assert 0.01 < float((drawn > 30).float().mean()) < 0.03
    assert float(((drawn > 5) & (drawn < 30)).float().mean()) < 0.002  # clouds come whole
    assert torch.equal(drift.cover[0], torch.tensor([0.5, 0.5]))
    # a patch of one class borrows from patches of it
    drift.residuals[:] = drift.cover[:, 1, None, None, None]
    drift.gain.fill_(1)
    drift.detail_gain.zero_()
    drift.offset.zero_()
    found = drift(first, classes, rng) - first
    assert torch.allclose(found.mean(dim=(1, 2, 3)), drift.cover[:, 1], atol=1e-4)


def test_residuals_are_turned_and_those_of_changes_filled_up() -> None:
    first = torch.zeros(1, BANDS, SIZE, SIZE)
    second = torch.arange(SIZE * SIZE).float().reshape(1, 1, SIZE, SIZE).expand(1, BANDS, -1, -1).clone()
    classes = torch.zeros(1, SIZE, SIZE, dtype=torch.int64)
    classes[:, 4:6, 4:8] = -1
    clean = second.clone()
    second[:, :, 4:6, 4:8] = 1e6
    drift = DateDrift(BANDS, 1)
    drift.fit(first, second, classes)
    assert float((drift.residuals - (clean - drift.offset[0, 0])).abs().max()) <= SIZE + 4  # the next pixel's
    drawn = drift(
        first.expand(60, -1, -1, -1), classes.clamp_min(0).expand(60, -1, -1), torch.Generator().manual_seed(0)
    )
    assert len({one.numpy().tobytes() for one in drawn}) == 8  # orientations
    assert torch.allclose(drawn.mean(dim=(1, 2, 3)), drawn[0].mean().expand(60), atol=1e-3)


def test_changes_among_the_pairs_are_trimmed() -> None:
    first, rng = scenes(), torch.Generator().manual_seed(5)
    second = 0.9 * first + 3 * torch.randn(first.shape, generator=rng)
    changed = (torch.rand((N, 1, SIZE, SIZE), generator=rng) < 0.03).expand_as(first)
    second = torch.where(changed, second + 500, second)
    plain, trimmed = fitted(first, second), fitted(first, second, trimmed=True)
    masked = DateDrift(BANDS, 2)
    masked.fit(first, second, torch.where(changed[:, 0], -1, CLASSES))
    assert float(plain.residuals.std()) > 50
    for drift in (trimmed, masked):
        assert 2 < float(drift.residuals.std()) < 4
        assert torch.allclose(drift.gain + 0.5 * drift.detail_gain, torch.tensor(0.9), atol=0.1)


def test_without_pairs_dates_go_together_as_far_as_asked() -> None:
    image, rng = scenes(), torch.Generator().manual_seed(6)
    for strength in (0.0, 0.5):
        drift = DateDrift(BANDS, 2)
        drift.assume(image, CLASSES, strength)
        second = drift(image, CLASSES, rng)
        for rows, mean in ((INSIDE[:4], BRIGHT[0]), (INSIDE[4:], BRIGHT[1])):
            a, b = image[:, :, rows] - mean, second[:, :, rows] - mean
            assert float(second[:, :, rows].mean()) == pytest.approx(float(image[:, :, rows].mean()), rel=0.03)
            if strength == 0:
                assert torch.allclose(second[:, :, rows], image[:, :, rows], rtol=1e-4)
            elif mean == BRIGHT[1]:  # most of the deviations are its
                assert correlation(a, b) == pytest.approx(math.sqrt(1 - strength**2), abs=0.1)
                assert float(b.std()) == pytest.approx(float(a.std()), rel=0.15)


def test_draws_follow_the_seed_and_nothing_to_learn_from_is_an_error() -> None:
    first = scenes()
    drift = fitted(first, first + torch.randn(first.shape, generator=torch.Generator().manual_seed(0)))
    one, same, other = (drift(first, CLASSES, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    with pytest.raises(ValueError, match='no unchanged pixel of a known class in any patch'):
        DateDrift(BANDS, 2).fit(first, first, torch.full_like(CLASSES, -1))
    with pytest.raises(ValueError, match='no unchanged pixel of a known class in any patch'):
        DateDrift(BANDS, 2).assume(first, torch.full_like(CLASSES, -1), 0.3)


def test_a_constant_band_and_a_class_that_is_nowhere_do_no_harm() -> None:
    first = scenes()
    first[:, 1] = 0
    drift = DateDrift(BANDS, 3)
    drift.fit(first, first.where(first == 0, 1.1 * first), CLASSES)
    drawn = drift(first, torch.full_like(CLASSES, 2), torch.Generator().manual_seed(0))
    assert drawn.isfinite().all()
    assert torch.allclose(drawn[:, 1], first[:, 1], atol=1e-3)
    assert torch.allclose(drawn[:, 0].mean(), 1.1 * first[:, 0].mean(), rtol=0.05)  # as the others


def test_of_patches_that_are_equally_near_the_first_lend_their_residuals() -> None:
    """On every device: which of equal values a sort takes differs between them."""
    drift = fitted(scenes(), scenes(seed=1))  # every patch has the same land cover
    rows: set[int] = set()
    drift.residuals = torch.arange(float(N))[:, None, None, None].expand_as(drift.residuals).contiguous()
    drift.gain.zero_(), drift.detail_gain.zero_(), drift.offset.zero_()
    for seed in range(5):
        found = drift(scenes(), CLASSES, torch.Generator().manual_seed(seed))
        rows |= set(found.unique().long().tolist())
    assert rows == set(range(NEAREST))
