"""What several classifiers and a pixel's neighbours say of unlabelled spectra."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hsiaug.trainers.teachers import pooled_opinion

SIDE, BANDS = 16, 6


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
    x, labels, places = field(noise=0.1)
    alone, heard = opinion(x, labels, None)
    assert torch.allclose(alone.sum(dim=1), torch.ones(len(alone)), atol=1e-5)
    assert sum(heard.values()) == pytest.approx(1, abs=0.01)
    asked, _ = opinion(x, labels, places)
    strangers, _ = opinion(x, labels, places[torch.randperm(len(places), generator=torch.Generator().manual_seed(1))])
    assert accuracy(asked, labels) > accuracy(alone, labels) + 0.1
    assert accuracy(asked, labels) > accuracy(strangers, labels) + 0.1, 'who the neighbours are makes no difference'


def test_they_are_trusted_as_left_out_labels_find_them_right() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 2
    skewed = rng.normal(size=(150, BANDS))  # classes alike but for their means, in bands that are all but equal
    skewed[:, 0] += 3 * labels
    skewed = skewed @ rng.normal(size=(BANDS, BANDS))
    around = rng.normal(size=(150, BANDS))  # one class around the other, so that no line tells them apart
    around *= ((1 + labels) / np.linalg.norm(around, axis=1))[:, None]
    y = torch.from_numpy(labels[:60])
    parts = [(torch.from_numpy(x).float()[:60], torch.from_numpy(x).float()[60:]) for x in (skewed, around)]
    of_skewed, of_around = (pooled_opinion(x, y, others, 2)[1] for x, others in parts)
    assert of_skewed['trees'] < 0.3
    assert of_around['trees'] > 0.9
    again = pooled_opinion(parts[1][0], y, parts[1][1], 2)
    assert again[1] == of_around


def test_a_class_without_labels_gets_no_probability_and_one_label_is_too_few() -> None:
    x, labels, places = field(noise=0.03)
    three, _ = pooled_opinion(x[:30], 2 * labels[:30], x[30:], 3, places)
    assert (three[:, 1] < 1e-6).all()
    assert accuracy(three, 2 * labels) > 0.95
    few = torch.cat([torch.nonzero(labels == 0)[:5, 0], torch.nonzero(labels == 1)[:1, 0]])
    with pytest.raises(ValueError, match=r'two labelled spectra or more .* found \[5, 1\]'):
        pooled_opinion(x[few], labels[few], x[30:], 2)
