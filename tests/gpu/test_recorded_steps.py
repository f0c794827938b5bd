"""Steps that are recorded as a CUDA graph train what steps launched one by one do: proven without a GPU, and on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tape import recorded_on_cpu
from test_placement import DOWNSTREAM, EACH, deviating, differing, fitted, samples  # noqa: F401

from hsiaug.datasets import SpectraDataset
from hsiaug.engine.cuda_graphs import SWITCH, wanted
from hsiaug.scenes import Scene, Split
from hsiaug.systems import TrainingData

LAUNCHED = ('the date encoder',)
"""Whose optimiser has a momentum that the host changes from step to step."""
generators = pytest.mark.parametrize(
    ('name', 'kind', 'settings'), EACH, ids=[f'{n}-{i}' for i, (n, _, _) in enumerate(EACH)]
)
quietly = pytest.mark.filterwarnings('ignore:only .* training patches', 'ignore:the abundances')


@quietly
@generators
def test_recorded_steps_train_the_same_generator(
    samples: dict[str, TrainingData],  # noqa: F811
    name: str,
    kind: str,
    settings: dict[str, Any],
) -> None:
    expected = fitted(name, samples[kind], settings)
    with recorded_on_cpu() as stages:
        found = fitted(name, samples[kind], settings)
    assert not differing(found.state_dict(), expected.state_dict())
    assert bool(stages) == ('iterations' in str(settings) or 'teacher' in settings)


@pytest.mark.parametrize('name', DOWNSTREAM)
def test_recorded_steps_train_the_same_downstream_model(
    samples: dict[str, TrainingData],  # noqa: F811
    scene: Scene,
    split: Split,
    name: str,
) -> None:
    spectra = SpectraDataset(scene, split)
    expected, _ = DOWNSTREAM[name](samples, spectra, 'cpu')
    with recorded_on_cpu() as stages:
        found, _ = DOWNSTREAM[name](samples, spectra, 'cpu')
    assert not differing(found.state_dict(), expected.state_dict())
    assert bool(stages) != (name in LAUNCHED)


@quietly
@pytest.mark.gpu
@generators
def test_a_cuda_graph_trains_the_same_generator(
    samples: dict[str, TrainingData],  # noqa: F811
    name: str,
    kind: str,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    states = []
    for switch in ('0', '1'):
        monkeypatch.setenv(SWITCH, switch)
        states.append(fitted(name, samples[kind], settings, 'cuda').state_dict())
    assert deviating(states[1], {key: value.cpu() for key, value in states[0].items()}) < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize('name', DOWNSTREAM)
def test_a_cuda_graph_trains_the_same_downstream_model(
    samples: dict[str, TrainingData],  # noqa: F811
    scene: Scene,
    split: Split,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    spectra, states = SpectraDataset(scene, split), []
    for switch in ('0', '1'):
        monkeypatch.setenv(SWITCH, switch)
        states.append(DOWNSTREAM[name](samples, spectra, 'cuda')[0].state_dict())
    assert deviating(states[1], {key: value.cpu() for key, value in states[0].items()}) < 0.02


def test_the_switch_says_which_steps_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device('cuda'), torch.device('cpu')
    monkeypatch.delenv(SWITCH, raising=False)
    assert [wanted(gpu, default) for default in (True, False)] == [True, False]
    for value, expected in {'1': True, '0': False}.items():
        monkeypatch.setenv(SWITCH, value)
        assert {wanted(gpu, default) for default in (True, False)} == {expected}
        assert not wanted(cpu, True)
    monkeypatch.setenv(SWITCH, 'on')
    with pytest.raises(ValueError, match="HSIAUG_CUDA_GRAPHS is 'on'; set it to 1 or 0"):
        wanted(gpu, True)
