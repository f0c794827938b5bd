import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from hsiaug.metrics import accuracies, fidelity
from hsiaug.systems import TrainingData
from hsiaug.trainers import fit_generator


def test_accuracies_by_hand() -> None:
    target = torch.tensor([0, 0, 0, 0, 1, 1])
    predicted = torch.tensor([0, 0, 0, 1, 1, 0])
    found = accuracies(predicted, target, 3)
    assert found.oa == pytest.approx(4 / 6)
    assert found.per_class[:2] == pytest.approx((3 / 4, 1 / 2))
    assert found.per_class[2] != found.per_class[2]  # a class that does not occur
    assert found.aa == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found.kappa == pytest.approx(cohen_kappa_score(target, predicted))


@pytest.mark.parametrize(
    ('predicted', 'target', 'message'),
    [
        ([0, 5], [0, 1], r'predicted classes must lie in \[0, 3\), found \[0, 5\]'),  # would be hits of class 2
        ([0, 1], [0, 5], 'target classes must lie'),
        ([0, 1], [0, -1], 'target classes must lie'),
        ([0.2, 0.9], [0, 1], 'must be whole numbers'),
        ([[0.1, 0.8, 0.1]], [1], 'take the argmax'),
        ([], [], 'nothing to score'),
    ],
)
def test_what_cannot_be_scored_is_refused(predicted: list[Any], target: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracies(torch.tensor(predicted), torch.tensor(target, dtype=torch.int64), 3)


def test_arrays_of_numpy_are_scored() -> None:
    assert accuracies(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).oa == pytest.approx(2 / 3)  # type: ignore[arg-type]


def test_spectra_that_cannot_be_compared_are_named() -> None:
    x, y = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    good = x, y
    assert fidelity(good, good, (x.requires_grad_(), y), 2).msad == 0
    for fake, message in (
        ((x * torch.nan, y), '8 of 8 fake spectra hold values that are not finite'),
        ((x[:, :3], y), r'fake must be at least 1 spectra \(n, 4\)'),
        ((x[:0], y[:0]), 'fake must be at least 1 spectra'),
        ((x, y + 1), r'fake labels must lie in \[0, 2\), found \[1, 2\]'),
    ):
        with pytest.raises(ValueError, match=message):
            fidelity(good, good, fake, 2)
    with pytest.raises(ValueError, match='train must be at least 2 spectra'):
        fidelity((x[:1], y[:1]), good, good, 2)


def test_fidelity_knows_copies_noise_and_collapse(data: TrainingData) -> None:
    labels = torch.arange(3).repeat(100)
    train = (data.x, data.y)
    test = (data.val_x, data.val_y)
    copies = fit_generator('duplicate', data).sample(300, labels, seed=0)['image']
    same = fidelity(train, test, (copies, labels), 3)
    assert same.closer_than_real == 1
    assert same.std_ratio == pytest.approx(1, abs=0.15)
    assert same.roughness_ratio == pytest.approx(1, abs=0.15)
    noisy = fidelity(train, test, (copies + 0.3 * torch.randn(copies.shape), labels), 3)
    assert noisy.roughness_ratio > 1.5
    assert noisy.closer_than_real < 0.2
    means = torch.stack([data.x[data.y == k].mean(dim=0) for k in range(3)])
    collapsed = fidelity(train, test, (means[labels] + 1e-3 * torch.randn(copies.shape), labels), 3)
    assert collapsed.std_ratio < 0.1
    assert collapsed.msad < same.msad
    swapped = fidelity(train, test, (copies, (labels + 1) % 3), 3)
    assert swapped.svm['real_fake'] < 0.2 < 0.9 < same.svm['real_fake']
    assert swapped.msad > 0.3


def _drawn(means: torch.Tensor, labels: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.randn(len(labels), means.shape[1], generator=torch.Generator().manual_seed(seed))
    return means[labels] + noise, labels


@pytest.mark.parametrize('classes', [3, 4])
@pytest.mark.parametrize('order', ['in turn', 'one after the other'])
def test_halves_for_the_svm_hold_all_classes_whatever_their_order(classes: int, order: str) -> None:
    """Separable data; with four classes in turn, every second sample was of every second class."""
    means = 20 * torch.eye(classes, 8)
    labels = torch.arange(classes).repeat(40) if order == 'in turn' else torch.arange(classes).repeat_interleave(40)
    svm = fidelity(*(_drawn(means, labels, seed) for seed in range(3)), classes).svm
    assert svm == dict.fromkeys(('real_real', 'real_fake', 'fake_fake', 'fake_real'), 1.0)


def test_svm_cells_compare_equal_priors() -> None:
    """A perfect generator scores as real data do, however rare classes are in the scene and in what was drawn."""
    means = torch.tensor([[0.0, 0.0], [1.8, 0.0], [0.0, 1.8]])
    real = torch.arange(3).repeat_interleave(torch.tensor([3000, 300, 150]))
    train, test = _drawn(means, real, 0), _drawn(means, real, 1)
    for counts in ([1000, 1000, 1000], [3000, 300, 150], [150, 300, 3000]):
        fake = _drawn(means, torch.arange(3).repeat_interleave(torch.tensor(counts)), 2)
        svm = fidelity(train, test, fake, 3).svm
        assert max(svm.values()) - min(svm.values()) < 0.05, (counts, svm)


def test_svm_cells_are_of_classes_that_both_sides_hold() -> None:
    means = 20 * torch.eye(3, 8)
    train, test = (_drawn(means, torch.arange(3).repeat(20), seed) for seed in range(2))
    lacking = fidelity(train, test, _drawn(means, torch.arange(2).repeat(20), 2), 3).svm
    assert set(lacking.values()) == {1.0}
    alone = fidelity(train, test, _drawn(means, torch.zeros(20, dtype=torch.int64), 2), 3).svm
    assert all(math.isnan(score) for score in alone.values())
