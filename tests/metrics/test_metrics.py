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
