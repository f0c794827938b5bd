from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hsiaug.datasets import MixedDataset, SpectraDataset
from hsiaug.engine import Stream
from hsiaug.models import NN1D
from hsiaug.ratio import SyntheticFirst
from hsiaug.scenes import Scene, Split
from hsiaug.systems import Generator, TrainingData
from hsiaug.trainers import ClassifierConfig, fit_generator, predict, train_nn1d

CONFIG = ClassifierConfig(hidden=8, layers=1, steps=1, weight_decay=0.0)


class Far(Generator):
    """Spectra far off, of classes that say nothing."""

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {'image': 5 + torch.rand(len(labels), self.spec.bands, generator=rng)}


def one_step_gradients(monkeypatch: pytest.MonkeyPatch, dataset: Any, config: ClassifierConfig) -> list[Tensor]:
    """Gradients of the first step."""
    found: list[Tensor] = []
    step = torch.optim.AdamW.step

    def keep(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.extend(p.grad.clone() for group in self.param_groups for p in group['params'])
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, 'step', keep)
        train_nn1d(dataset, config)
    return found


@pytest.mark.parametrize(('config_weight', 'sample_weight'), [(0.25, None), (1.0, 0.25), (0.5, 0.5)])
def test_gradient_of_weighted_samples_by_hand(
    scene: Scene, split: Split, data: TrainingData, monkeypatch: pytest.MonkeyPatch, config_weight: float,
    sample_weight: float | None,
) -> None:  # fmt: skip
    real = SpectraDataset(scene, split)
    mixed = MixedDataset(real, Far(data.spec), 1.0, weight=sample_weight)
    config = ClassifierConfig(hidden=8, layers=1, steps=1, batch_size=len(mixed), synthetic_weight=config_weight)
    found = one_step_gradients(monkeypatch, mixed, config)
    mixed.set_epoch(0)
    batch = mixed.batch(range(len(mixed)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = NN1D(12, 3, 8, 1)
    network.scaler.fit(real.tensors()[0])
    losses = cross_entropy(network(batch['image']), batch['label'], reduction='none')
    weight = torch.where(batch['synthetic'], 0.25, 1.0)
    ((weight * losses).sum() / weight.sum()).backward()
    expected = [p.grad for p in network.parameters()]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))  # type: ignore[arg-type]
    plain = one_step_gradients(
        monkeypatch, mixed, ClassifierConfig(hidden=8, layers=1, steps=1, batch_size=len(mixed), synthetic_weight=1.0)
    )
    if sample_weight is None:
        assert not any(torch.allclose(a, b, atol=1e-4) for a, b in zip(plain, found, strict=True))


def test_without_weight_synthetic_samples_change_nothing_but_the_steps(
    scene: Scene, split: Split, data: TrainingData
) -> None:
    x, y = SpectraDataset(scene, split, 'test').tensors()
    scores = {}
    for weight in (0.0, 1.0):
        config = ClassifierConfig(hidden=32, layers=2, steps=150, lr=5e-3, synthetic_weight=weight)
        wrong = MixedDataset(SpectraDataset(scene, split), Wrong(fit_generator('noise', data)), 3.0)
        scores[weight] = float((predict(train_nn1d(wrong, config), x) == y).float().mean())
    assert scores[0.0] > 0.9
    assert scores[1.0] < 0.3
    with pytest.raises(ValueError, match='synthetic_weight must be at least 0, found -1'):
        ClassifierConfig(synthetic_weight=-1)


class Wrong(Generator):
    """Spectra of the next class."""

    def __init__(self, wrapped: Generator) -> None:
        super().__init__(wrapped.spec)
        self.wrapped = wrapped

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return self.wrapped._draw((labels + 1) % 3, rng)


@pytest.mark.parametrize('kind', ['noise', 'mixup'])
def test_synthetic_first_then_real_only(
    scene: Scene, split: Split, data: TrainingData, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    real = SpectraDataset(scene, split)
    length = len(real)
    source = fit_generator(kind, data)
    mixed = MixedDataset(real, source, SyntheticFirst(2), mode='replace')
    taken: list[tuple[Tensor, Tensor]] = []
    take = Stream.take

    def spy(self: Any, count: int) -> Any:
        batch = take(self, count)
        taken.append((batch['image'], batch['target']))
        return batch

    monkeypatch.setattr(Stream, 'take', spy)
    config = ClassifierConfig(hidden=8, layers=1, steps=4 * length // 50, batch_size=50)
    train_nn1d(mixed, config)
    images = torch.cat([image for image, _ in taken])
    targets = torch.cat([target for _, target in taken])  # one dtype, soft labels or not
    assert targets.dtype == (torch.float32 if kind == 'mixup' else torch.int64)
    known = {row.numpy().tobytes() for row in real.tensors()[0]}
    is_real = torch.tensor([row.numpy().tobytes() in known for row in images])
    assert is_real[: 2 * length].float().mean() < 0.05  # a spectrum may be mixed with itself
    assert is_real[2 * length :].all()
