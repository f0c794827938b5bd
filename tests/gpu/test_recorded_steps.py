"""Steps that are recorded as a CUDA graph train what steps launched one by one do: proven without a GPU, and on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tape import recorded_on_cpu
from test_placement import DOWNSTREAM, deviating, differing, each_generator, fitted, samples  # noqa: F401

from hsiaug.datasets import SpectraDataset
from hsiaug.engine.cuda_graphs import SWITCH, wanted
from hsiaug.scenes import Scene, Split
from hsiaug.systems import TrainingData

LAUNCHED = ('the date encoder',)
"""Whose optimiser has a momentum that the host changes from step to step."""
ROUNDED = ('fcsiamdiff', 'fcsiamconc', 'resnet18')
"""Whose weights are others after three steps of Adam where convolutions are rounded otherwise, on a CPU too."""
quietly = pytest.mark.filterwarnings('ignore:only .* training patches', 'ignore:the abundances')


@quietly
@each_generator
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
@each_generator
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
    spectra, models = SpectraDataset(scene, split), []
    DOWNSTREAM[name](samples, spectra, 'cpu')  # some are made there first
    for switch in ('0', '1'):
        monkeypatch.setenv(SWITCH, switch)
        models.append(DOWNSTREAM[name](samples, spectra, 'cuda')[0])
    if name in ROUNDED:
        launched, replayed = (torch.tensor(model.loss_history) for model in models)
        assert torch.allclose(launched, replayed, rtol=0.05)
    else:
        launched, replayed = (model.state_dict() for model in models)
        assert deviating(replayed, {key: value.cpu() for key, value in launched.items()}) < 0.02


def test_the_switch_turns_recording_off(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device('cuda'), torch.device('cpu')
    monkeypatch.delenv(SWITCH, raising=False)
    assert (wanted(gpu), wanted(cpu)) == (True, False)
    monkeypatch.setenv(SWITCH, '0')
    assert not wanted(gpu)
    monkeypatch.setenv(SWITCH, 'off')
    with pytest.raises(ValueError, match="HSIAUG_CUDA_GRAPHS must be 0 or 1, or not set, found 'off'"):
        wanted(gpu)
