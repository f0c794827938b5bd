"""When a training has converged, and what is chosen then."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from hsiaug.datasets import SpectraDataset
from hsiaug.scenes import Scene, Split
from hsiaug.trainers import ClassifierConfig, train_nn1d
from hsiaug.trainers.convergence import FALL, Trial, loss_still_falls, still_falls, tune


def test_a_loss_that_has_levelled_off_no_longer_falls() -> None:
    steps = np.arange(300)
    assert not still_falls((2 * np.exp(-steps / 20)).tolist())
    assert still_falls((2 * np.exp(-steps / 200)).tolist())
    assert still_falls((2 - steps / 300).tolist())
    assert not still_falls([1.5] * 300)
    assert still_falls([0.0] * 19)  # too few to tell
    assert still_falls([1.0] * 299 + [math.nan])
    assert not still_falls([-1.5] * 300)  # a loss may be negative
    changed = [2.0] * 10 + [1.0] * 190 + [0.1] * 200  # of synthetic samples, then of real ones
    assert still_falls(changed)
    assert not still_falls(changed, since=200)


def test_noise_and_the_flat_end_of_a_schedule_do_not_decide() -> None:
    rng = np.random.default_rng(0)
    noisy = np.abs(2 * np.exp(-np.arange(400) / 30) + 0.3 + rng.normal(0, 0.1, 400))
    assert not still_falls(noisy.tolist())
    slow = np.concatenate([np.linspace(2, 1, 370), np.full(30, 1.0)])  # a rate that falls to zero ends it
    assert still_falls(slow.tolist())


def test_the_share_of_the_first_loss_is_the_limit() -> None:
    def curve(drop: float) -> list[float]:
        return [4.0] * 30 + [1.0] * 30 + [1.0 - drop] * 30

    assert not still_falls(curve(0.99 * FALL * 4))
    assert still_falls(curve(1.01 * FALL * 4))


def test_a_trained_network_knows_whether_its_loss_fell(scene: Scene, split: Split) -> None:
    real = SpectraDataset(scene, split)
    short, long = (
        train_nn1d(real, ClassifierConfig(hidden=16, layers=1, steps=steps, lr=lr))
        for steps, lr in ((30, 3e-3), (400, 1e-2))
    )
    assert loss_still_falls(short) is True
    assert loss_still_falls(long) is False
    assert len(long.loss_history) == 400  # type: ignore[arg-type]
    assert loss_still_falls(torch.nn.Linear(2, 2)) is None
    assert 'loss_history' not in long.state_dict()


def trials(found: dict[tuple[str, int], Trial], error: float = 0.0) -> tuple[tuple[str, int], list[tuple[str, int]]]:
    tried: list[tuple[str, int]] = []

    def measure(candidate: tuple[str, int]) -> Trial:
        tried.append(candidate)
        return found[candidate]

    return tune(found, measure, lambda one: one, lambda score: error).chosen, tried


def test_longer_trainings_are_tried_until_validation_no_longer_rises() -> None:
    rising = {('a', n): Trial(score, False) for n, score in ((400, 0.7), (100, 0.5), (200, 0.7), (800, 0.9))}
    chosen, tried = trials(rising)
    assert chosen == ('a', 200)
    assert tried == [('a', 100), ('a', 200), ('a', 400)]
    falling = {('a', n): Trial(0.5, n < 800) for n in (100, 200, 400, 800, 1600)}
    chosen, tried = trials(falling)
    assert chosen == ('a', 800)  # no better on validation, but converged
    assert tried == [('a', n) for n in (100, 200, 400, 800)]
    assert all(a[1] < b[1] for a, b in pairwise(tried))


def test_luck_on_few_validation_labels_chooses_nothing_else() -> None:
    found = {('standard', 400): Trial(0.80, False), ('minmax', 400): Trial(0.84, False)}
    assert trials(found, error=0.05)[0] == ('standard', 400)
    assert trials(found, error=0.03)[0] == ('minmax', 400)
    fell = {('standard', 400): Trial(0.80, False), ('minmax', 400): Trial(0.99, True)}
    assert trials(fell)[0] == ('standard', 400)


def test_a_training_that_diverges_is_never_chosen() -> None:
    nothing = Trial(math.nan)
    assert trials({('a', 1): nothing, ('b', 1): Trial(0.0)})[0] == ('b', 1)
    assert trials({('b', 1): Trial(0.0), ('a', 1): nothing})[0] == ('b', 1)
    assert trials({('a', 1): nothing, ('b', 1): nothing})[0] == ('a', 1)
    with pytest.raises(ValueError, match='no candidate'):
        tune([], lambda one: nothing, lambda one: (one, 1))
