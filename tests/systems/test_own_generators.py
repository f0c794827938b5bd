"""Generators that users write: registered, trained, saved and loaded, and told what is wrong with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import toy_training

from hsiaug.engine import Run, Training
from hsiaug.engine.loss_log import read_losses
from hsiaug.samples import SampleSpec
from hsiaug.systems import REGISTRY, Generator, TrainingData, load, register
from hsiaug.systems.training import _TRAINERS, trains
from hsiaug.trainers import fit_generator


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    load()
    with patch.dict(REGISTRY), patch.dict(_TRAINERS):
        yield


class Own(Generator):
    """Knows nothing but its settings: no weights of its own."""

    def __init__(self, spec: SampleSpec, level: Any = 1.0) -> None:
        super().__init__(spec, level=level)
        self.level = torch.as_tensor(level, dtype=torch.float32)

    def fit(self, data: TrainingData, seed: int = 0) -> None:
        self.adopt(data, seed)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {'image': self.level * torch.rand(len(labels), self.spec.bands, generator=rng)}


@pytest.mark.parametrize('level', [2.0, np.float32(0.5), np.arange(5), torch.arange(5), (1, 2, 3, 4, 5)])
def test_one_without_weights_is_saved_with_any_numbers(level: Any, tmp_path: Path) -> None:
    register('own')(Own)
    made = fit_generator('own', toy_training('spectrum'), {'level': level})
    loaded = Generator.from_pretrained(made.save_pretrained(tmp_path / 'own'))
    assert torch.equal(loaded.sample(4, seed=0)['image'], made.sample(4, seed=0)['image'])
    assert loaded.provenance is not None
    assert loaded.provenance.training['level'] == loaded.settings['level']


def test_what_cannot_be_saved_says_so(tmp_path: Path) -> None:
    register('own')(Own)
    made = fit_generator('own', toy_training('spectrum'))
    made.settings['level'] = len
    with pytest.raises(TypeError, match='own: settings that JSON cannot hold cannot be saved'):
        made.save_pretrained(tmp_path / 'own')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('name', 'cls'), [(3, Own), ('', Own), ('own', dict), ('own', fit_generator)])
def test_only_generators_are_registered_by_a_name(name: Any, cls: Any) -> None:
    with pytest.raises(TypeError, match='a subclass of Generator is registered by a name, found'):
        register(name)(cls)


@dataclass(frozen=True)
class Config:
    steps: int = 60


class Silent(Training):
    """Its loss is a number of Python's, or there is none."""

    def __init__(self, steps: int, loss: float | None) -> None:
        super().__init__('silent', {}, {}, steps, 0, torch.device('cpu'))
        self.loss = loss

    def update(self, rng: torch.Generator) -> None:
        if self.loss is not None:
            self.losses['loss'] = self.loss  # type: ignore[assignment]


@pytest.mark.parametrize('loss', [None, 0.5])
def test_losses_are_numbers_of_any_kind(loss: float | None, tmp_path: Path) -> None:
    Silent(60, loss).run(Run(losses=tmp_path / 'losses.csv'))
    assert read_losses(tmp_path / 'losses.csv') == ({} if loss is None else {('silent', 'loss'): [0.5] * 60})
    with pytest.raises(ValueError, match='Silent: steps must be at least 0, found -3'):
        Silent(-3, loss)


@pytest.mark.parametrize('returned', [True, False])
def test_a_training_returns_its_generator(returned: bool) -> None:
    def train(data: TrainingData, config: Config, run: Run) -> Any:
        return Own(data.spec) if returned else None

    register('own')(Own)
    trains('own', Config)(train)
    if returned:
        assert not fit_generator('own', toy_training('spectrum')).training
        return
    with pytest.raises(TypeError, match="the training of 'own' must return its generator, found NoneType"):
        fit_generator('own', toy_training('spectrum'))
