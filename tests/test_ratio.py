import math
from typing import Any

import numpy as np
import pytest

from hsiaug.ratio import (
    Constant,
    Cosine,
    Linear,
    Step,
    SyntheticFirst,
    as_schedule,
    require_ratio,
    synthetic_count,
    synthetic_fraction,
)


@pytest.mark.parametrize('ratio', [-0.1, float('nan'), float('inf'), '1', True, None])
def test_not_a_ratio(ratio: object) -> None:
    with pytest.raises(ValueError, match='finite number >= 0'):
        require_ratio(ratio)  # type: ignore[arg-type]


def test_schedules_by_hand() -> None:
    assert [Constant(2)(epoch) for epoch in (0, 9)] == [2, 2]
    assert [Linear(0, 2, 4)(epoch) for epoch in (0, 1, 4, 9)] == [0, 0.5, 2, 2]
    assert [round(Cosine(2, 0, 4)(epoch), 6) for epoch in (0, 1, 2, 4, 7)] == [2, 1.707107, 1, 0, 0]
    assert [Step({0: 2, 10: 0.5, 20: 0})(epoch) for epoch in (0, 9, 10, 19, 20, 99)] == [2, 2, 0.5, 0.5, 0, 0]
    assert [SyntheticFirst(2, 0.5)(epoch) for epoch in (0, 1, 2)] == [math.inf, math.inf, 0.5]
    assert as_schedule(0.5) == Constant(0.5)
    assert as_schedule(Linear(0, 1, 2)) == Linear(0, 1, 2)
    for function in (lambda epoch: 0.5, Linear):
        with pytest.raises(ValueError, match=r'a number or a hsiaug\.ratio\.Schedule'):
            as_schedule(function)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    'make',
    [
        lambda: Constant(-1),
        lambda: Linear(0, math.inf, 3),
        lambda: Linear(0, 1, 0),
        lambda: Cosine(0, math.nan, 3),
        lambda: Step({1: 0.5}),
        lambda: Step({0: -0.5}),
        lambda: SyntheticFirst(-1),
    ],
)
def test_schedules_refuse_what_is_none(make: object) -> None:
    with pytest.raises(ValueError, match='found'):
        make()  # type: ignore[operator]


@pytest.mark.parametrize('mode', ['append', 'replace'])
@pytest.mark.parametrize('ratio', [0, 0.1, 1 / 3, 0.5, 1, 2.7, 5])
def test_counts_of_batches_add_up_and_stay_within_one_sample(mode: str, ratio: float) -> None:
    share = ratio if mode == 'append' else synthetic_fraction(ratio)
    seen, drawn = 0, 0
    for size in [7, 7, 1, 64, 3] * 20:
        count = synthetic_count(seen + size, ratio, mode) - synthetic_count(seen, ratio, mode)  # type: ignore[arg-type]
        assert abs(count - size * share) < 1 + 1e-6
        seen, drawn = seen + size, drawn + count
    assert drawn == synthetic_count(seen, ratio, mode)  # type: ignore[arg-type]
    assert abs(drawn - seen * share) < 1


def test_synthetic_only_replaces_all_and_cannot_append() -> None:
    assert synthetic_count(10, math.inf, 'replace') == 10
    with pytest.raises(ValueError, match="mode='replace'"):
        synthetic_count(10, math.inf, 'append')


def test_numbers_of_numpy_are_ratios_and_nothing_else_is() -> None:
    for ratio in (np.float64(0.5), np.float32(0.5), np.int64(2), 2):
        assert as_schedule(ratio)(0) == float(ratio)  # type: ignore[arg-type]
        assert type(require_ratio(ratio)) is float  # type: ignore[arg-type]
    for wrong in (np.float64('nan'), np.float32('inf'), np.bool_(True), True, '1', None, -1, [1.0]):
        with pytest.raises(ValueError, match='finite number >= 0'):
            require_ratio(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize('epochs', [float('nan'), 1.5, '3', None])
def test_ramps_take_whole_epochs(epochs: Any) -> None:
    for make in (lambda: Linear(0, 1, epochs), lambda: Cosine(0, 1, epochs), lambda: SyntheticFirst(epochs)):
        with pytest.raises(ValueError, match='whole number'):
            make()
