"""What several classifiers and a pixel's neighbours say of unlabelled spectra."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hsiaug.trainers.teachers import pooled_opinion

SIDE, BANDS = 24, 6


def field(noise: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(P, C) noisy spectra of four squares of two materials, their labels and places, in no order."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(np.stack(np.divmod(np.arange(SIDE * SIDE), SIDE), axis=1))
    labels = (places // (SIDE // 2)).sum(axis=1) % 2
    x = 1 + 0.1 * labels[:, None] * np.linspace(-1, 1, BANDS) + rng.normal(0, noise, (len(labels), BANDS))
    return torch.from_numpy(x).float(), torch.from_numpy(labels), torch.from_numpy(places)


def opinion(x: Tensor, labels: Tensor, places: Tensor | None, known: int = 30) -> tuple[Tensor, dict[str, float]]:
    return pooled_opinion(x[:known], labels[:known], x[known:], 2, places)


def accuracy(probability: Tensor, labels: Tensor, known: int = 30) -> float:
    return float((probability.argmax(dim=1) == labels[known:]).float().mean())


def test_neighbours_know_what_the_spectrum_does_not_tell() -> None:
    x, labels, places = field(noise=0.15)
    alone, heard = opinion(x, labels, None)
    assert torch.allclose(alone.sum(dim=1), torch.ones(len(alone)), atol=1e-5)
    assert sum(heard.values()) == pytest.approx(1, abs=0.01)
    asked, _ = opinion(x, labels, places)
    assert torch.equal(asked, opinion(x, labels, places)[0])
    strangers, _ = opinion(x, labels, places[torch.randperm(len(places), generator=torch.Generator().manual_seed(1))])
    assert accuracy(asked, labels) > accuracy(alone, labels) + 0.05
    assert accuracy(asked, labels) > accuracy(strangers, labels) + 0.05, 'who the neighbours are makes no difference'


def test_they_are_trusted_as_left_out_labels_find_them_right() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(BANDS, BANDS)) * np.logspace(0, -3, BANDS)[:, None]  # differences in a dark direction
    labels = torch.from_numpy(np.repeat([0, 1], 200))[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    compact = rng.normal(size=(400, BANDS))
    compact[:, -1] += 4 * labels.numpy()
    around = rng.normal(size=(400, BANDS))  # one class around the other: no line tells them apart
    around /= np.linalg.norm(around, axis=1, keepdims=True) / (1 + labels.numpy()[:, None])
    heard = {
        name: pooled_opinion(torch.from_numpy(x[:60]).float(), labels[:60], torch.from_numpy(x[60:]).float(), 2)[1]
        for name, x in (('compact', compact @ mixing), ('around', around))
    }
    assert heard['around']['trees'] > 0.9
    assert heard['compact']['trees'] < 0.3


def test_a_class_without_labels_gets_no_probability_and_one_label_is_too_few() -> None:
    x, labels, places = field(noise=0.05)
    three, _ = pooled_opinion(x[:30], 2 * labels[:30], x[30:], 3, places)
    assert (three[:, 1] < 1e-6).all()
    assert accuracy(three, 2 * labels) > 0.95
    few = torch.cat([torch.nonzero(labels == 0)[:5, 0], torch.nonzero(labels == 1)[:1, 0]])
    with pytest.raises(ValueError, match=r'two labelled spectra or more .* found \[5, 1\]'):
        pooled_opinion(x[few], labels[few], x[30:], 2)
