import math

import pytest
import torch
from torch import Tensor

from hsiaug.generators.date_drift import DateDrift, detail, smooth_fields

N, BANDS, SIZE = 40, 4, 16
CLASSES = (torch.arange(SIZE)[:, None] >= SIZE // 2).long().expand(N, SIZE, SIZE)
BRIGHT = torch.tensor([100.0, 300.0])
INSIDE = [0, 1, 2, 3, 12, 13, 14, 15]  # rows away from the border of the classes


def scenes(seed: int = 0) -> Tensor:
    """(N, C, H, W): two classes of their own brightness, under varying light, with texture."""
    rng = torch.Generator().manual_seed(seed)
    light = smooth_fields(N, torch.tensor([3.0]), (SIZE, SIZE), rng)
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
    other_light = smooth_fields(N, torch.tensor([3.0]), (SIZE, SIZE), rng)
    second = detail(first) + BRIGHT[CLASSES][:, None] * (1 + 0.1 * other_light)
    drift = fitted(first, second)
    found = drift(scenes(seed=1), CLASSES, rng)
    texture = [correlation(detail(a), detail(b)) for a, b in ((first, second), (scenes(seed=1), found))]
    assert texture[1] == pytest.approx(texture[0], abs=0.1)
    assert texture[1] > 0.75
    assert drift.detail_gain.mean() > 0.3  # more of the detail stays than of the rest


def test_fields_have_the_structure_of_the_residuals() -> None:
    rng = torch.Generator().manual_seed(3)
    lengths = torch.tensor([1.0, 2.0, 1.0, 3.0])
    patch, noise = torch.randn((N, BANDS, 1, 1), generator=rng), torch.randn((N, BANDS, SIZE, SIZE), generator=rng)
    spread = torch.tensor([4.0, 8.0, 16.0, 32.0])[:, None, None]
    shares = torch.tensor([[0.0, 0.0, 0.6, 0.2], [0.2, 0.8, 0.0, 0.6], [0.8, 0.2, 0.4, 0.2]])
    parts = (patch, smooth_fields(N, lengths, (SIZE, SIZE), rng), noise)
    fields = sum(share.sqrt()[:, None, None] * part for share, part in zip(shares, parts, strict=True))
    first = scenes()
    drift = fitted(first, first + spread * fields)
    assert torch.allclose(drift.spread, spread.flatten(), rtol=0.15)
    assert torch.allclose(drift.shares, shares, atol=0.15)
    drawn = drift(first, CLASSES, rng) - first
    assert torch.allclose(drawn.std(dim=(0, 2, 3)), spread.flatten(), rtol=0.25)
    steps = [(x[..., 1:] - x[..., :-1]).std(dim=(0, 2, 3)) for x in (spread * fields, drawn)]
    assert torch.allclose(steps[0], steps[1], rtol=0.25)


def test_smooth_fields_are_correlated_as_stated() -> None:
    fields = smooth_fields(400, torch.tensor([0.5, 2.0]), (12, 20), torch.Generator().manual_seed(0))
    assert fields.shape == (400, 2, 12, 20)
    assert torch.allclose(fields.var(dim=(0, 2, 3)), torch.ones(2), atol=0.1)
    for row, length in enumerate((0.5, 2.0)):
        for lag in (1, 2, 4):
            near = correlation(fields[:, row, :, lag:], fields[:, row, :, :-lag])
            assert near == pytest.approx(math.exp(-(lag**2) / (4 * length**2)), abs=0.08)
    assert abs(correlation(fields[:, 1, 0], fields[:, 1, -1])) < 0.1  # no wrap around


def test_changes_among_the_pairs_are_trimmed() -> None:
    first, rng = scenes(), torch.Generator().manual_seed(5)
    second = 0.9 * first + 3 * torch.randn(first.shape, generator=rng)
    changed = (torch.rand((N, 1, SIZE, SIZE), generator=rng) < 0.03).expand_as(first)
    second = torch.where(changed, second + 500, second)
    plain, trimmed = fitted(first, second), fitted(first, second, trimmed=True)
    assert plain.spread.max() > 100
    assert trimmed.spread.max() < 6
    assert trimmed.spread.min() > 2
    where = torch.where(changed[:, 0], -1, CLASSES)
    masked = DateDrift(BANDS, 2)
    masked.fit(first, second, where)
    assert masked.spread.max() < 6


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
    with pytest.raises(ValueError, match='no unchanged pixel of a known class in any pair'):
        DateDrift(BANDS, 2).fit(first, first, torch.full_like(CLASSES, -1))
    with pytest.raises(ValueError, match='no pixel of a known class in any image'):
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
