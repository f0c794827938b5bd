import math

import pytest
import torch
from mixtures import endmembers, maps

from hsiaug.metrics.unmixing import match_endmembers, unmixing_scores

A = maps(2, 0).movedim(1, -1).flatten(0, 2)


def test_order_and_brightness_of_endmembers_do_not_matter() -> None:
    order = [2, 0, 1]
    scores = unmixing_scores(A[:, order], 3 * endmembers()[order], A, endmembers())
    assert scores.order == (1, 2, 0)
    assert scores.abundance_rmse == 0
    assert scores.endmember_angle < 1e-6


def test_the_best_match_of_all_is_taken_not_the_first() -> None:
    degrees = torch.tensor([0.0, 40.0, 60.0]), torch.tensor([30.0, 50.0, 90.0])
    found, reference = (torch.stack([d.deg2rad().cos(), d.deg2rad().sin()], dim=1) for d in degrees)
    # One by one, the first would take the second, 10 degrees away; all three together are best in order.
    assert match_endmembers(found, reference) == (0, 1, 2)
    scores = unmixing_scores(A, found, A, reference)
    assert [round(math.degrees(a)) for a in scores.angles] == [30, 10, 30]
    assert math.degrees(scores.endmember_angle) == pytest.approx(70 / 3, abs=1e-3)


def test_errors_by_hand() -> None:
    found = A + torch.tensor([0.1, -0.1, 0.0])
    scores = unmixing_scores(found, endmembers(), A, endmembers())
    assert scores.rmse == pytest.approx((0.1, 0.1, 0.0), abs=1e-6)
    assert scores.abundance_rmse == pytest.approx(math.sqrt(0.02 / 3), abs=1e-6)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match='take as many endmembers'):
        unmixing_scores(A[:, :2], endmembers()[:2], A, endmembers())
    with pytest.raises(ValueError, match='at least 3 found endmembers of 24 bands'):
        match_endmembers(endmembers()[:2], endmembers())
