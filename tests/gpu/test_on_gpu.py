"""What only a GPU can show: that its results are those of the CPU. ``pytest -m gpu`` runs these and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_gpu import shared_streams
from test_placement import deviating, each_generator, fitted, samples  # noqa: F401
from toys import BANDS, Toy, toy_spec

from hsiaug.datasets import write_bank
from hsiaug.engine import Run, Stream
from hsiaug.engine.schedules import constant
from hsiaug.systems import TrainingData
from hsiaug.systems.spectral_gan.train import SpectralGANConfig, SpectralGANTraining
from hsiaug.trainers.supervised import Supervised
from hsiaug.transforms import SyntheticMix

pytestmark = pytest.mark.gpu
SMALL = SpectralGANConfig(iterations=6, hidden=16)


@pytest.mark.filterwarnings('ignore:only .* training patches', 'ignore:the abundances')
@each_generator
def test_a_few_steps_are_those_of_the_cpu_and_what_came_of_them_draws_and_is_saved(
    samples: dict[str, TrainingData],  # noqa: F811
    name: str,
    kind: str,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the same random numbers."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    with shared_streams():
        here, there = (fitted(name, samples[kind], settings, device) for device in ('cpu', 'cuda'))
    assert deviating(there.state_dict(), here.state_dict()) < 0.02
    assert there.device.type == 'cuda'
    drawn = there.sample(5, seed=7)
    assert all(value.device.type == 'cuda' for value in drawn.values())
    assert torch.isfinite(drawn['image']).all()
    folder = there.save_pretrained(tmp_path / 'generator')
    expected = type(there).from_pretrained(folder).sample(5, seed=7)['image']
    scale = float(expected.abs().max())
    assert torch.allclose(drawn['image'].cpu(), expected, atol=2e-3 * scale, rtol=1e-2)


def test_a_checkpoint_of_the_gpu_trains_on_on_the_cpu(data: TrainingData, tmp_path: Path) -> None:
    file = tmp_path / 'training.safetensors'
    with shared_streams():
        whole, there, here = (SpectralGANTraining(data, SMALL, 0, device) for device in ('cpu', 'cuda', 'cpu'))
        whole.run(Run())
        stream = torch.Generator('cuda')
        for _ in range(SMALL.iterations // 2):
            there.advance(stream)
        there.save(file, {})
        here.load(file)
        assert here.step == SMALL.iterations // 2
        here.run(Run())
    assert deviating(here.generator.state_dict(), whole.generator.state_dict()) < 0.02


def test_a_network_that_was_trained_on_the_gpu_trains_on_on_the_cpu(tmp_path: Path) -> None:
    """Its checkpoint keeps the state of the GPU's random numbers too."""
    file = tmp_path / 'training.safetensors'

    def training(device: str) -> Supervised:
        network = torch.nn.Linear(BANDS, 2).to(device)
        optimiser = torch.optim.AdamW(network.parameters(), fused=True)
        batches = Stream(Toy('spectrum', 12), toy_spec('spectrum'), 0, device, lambda batch: batch)
        loss = lambda batch: network(batch['image']).square().mean()  # noqa: E731
        return Supervised('toy', network, optimiser, batches, 4, 4, constant, loss, 'lr')

    there, here = training('cuda'), training('cpu')
    there.advance(torch.Generator('cuda'))
    there.save(file, {})
    here.load(file)
    here.run(Run())
    assert (here.step, len(here.history)) == (4, 3)
    assert here.history[-1].isfinite()


def test_a_live_generator_mixes_on_the_gpu_and_fills_a_bank(data: TrainingData, tmp_path: Path) -> None:
    generator = fitted('spectral_gan', data, {'iterations': 3, 'hidden': 8}, 'cuda')
    mixed = SyntheticMix(generator, 1.0).train()({'image': data.x[:8].cuda(), 'label': data.y[:8].cuda()})
    assert mixed['image'].device.type == 'cuda'
    assert int(mixed['synthetic'].sum()) == 4
    assert len(write_bank(generator, 20, tmp_path / 'bank')) == 20
