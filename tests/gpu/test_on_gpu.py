"""What only a GPU can show: that its results are those of the CPU. ``pytest -m gpu`` runs these and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_placement import EACH, fitted, samples  # noqa: F401

from hsiaug.datasets import write_bank
from hsiaug.engine import Run
from hsiaug.systems import TrainingData
from hsiaug.systems.spectral_gan.train import SpectralGANConfig, SpectralGANTraining
from hsiaug.transforms import SyntheticMix

pytestmark = pytest.mark.gpu
SMALL = SpectralGANConfig(iterations=6, hidden=16)


@pytest.mark.parametrize(('name', 'kind', 'settings'), EACH, ids=[f'{n}-{i}' for i, (n, _, _) in enumerate(EACH)])
def test_a_generator_of_a_few_steps_trains_draws_and_is_saved(
    samples: dict[str, TrainingData],  # noqa: F811
    name: str,
    kind: str,
    settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Steps draw on their device, so that weights differ; what was learnt in closed form is the same."""
    generator = fitted(name, samples[kind], settings, 'cuda')
    assert generator.device.type == 'cuda'
    there = generator.sample(5, seed=7)
    assert all(value.device.type == 'cuda' for value in there.values())
    assert torch.isfinite(there['image']).all()
    folder = generator.save_pretrained(tmp_path / 'generator')
    here = type(generator).from_pretrained(folder).sample(5, seed=7)
    scale = float(here['image'].abs().max())
    assert torch.allclose(there['image'].cpu(), here['image'], atol=2e-3 * scale, rtol=1e-2)


def test_steps_on_the_gpu_equal_those_on_the_cpu(data: TrainingData) -> None:
    """With the random numbers of one device on both."""
    states = []
    for device in ('cpu', 'cuda'):
        training = SpectralGANTraining(data, SMALL, 0, device)
        shared = torch.Generator().manual_seed(3)
        draw = torch.randn((3, 3, SMALL.batch_size, SMALL.noise_dim), generator=shared).to(device)
        for noise in draw.flatten(0, 1):
            labels = training.labels[: SMALL.batch_size].repeat(4)[: SMALL.batch_size]
            fake = training.generator(noise, training.eye[labels])
            training.descend('generator', -training.critic(fake).mean())
        states.append({key: value.cpu() for key, value in training.generator.state_dict().items()})
    for key, value in states[0].items():
        assert torch.allclose(states[1][key].to(value.dtype), value, atol=1e-4, rtol=1e-3), key


def test_a_checkpoint_of_the_gpu_opens_on_the_cpu(data: TrainingData, tmp_path: Path) -> None:
    there, here = (SpectralGANTraining(data, SMALL, 0, device) for device in ('cuda', 'cpu'))
    there.run(Run(device='cuda'))
    there.save(tmp_path / 'training.safetensors', {})
    here.load(tmp_path / 'training.safetensors')
    assert here.step == SMALL.iterations
    for key, value in there.generator.state_dict().items():
        assert torch.equal(value.cpu(), here.generator.state_dict()[key])


def test_a_live_generator_mixes_on_the_gpu_and_fills_a_bank(data: TrainingData, tmp_path: Path) -> None:
    generator = fitted('spectral_gan', data, {'iterations': 3, 'hidden': 8}, 'cuda')
    mixed = SyntheticMix(generator, 1.0).train()({'image': data.x[:8].cuda(), 'label': data.y[:8].cuda()})
    assert mixed['image'].device.type == 'cuda'
    assert int(mixed['synthetic'].sum()) == 4
    assert len(write_bank(generator, 20, tmp_path / 'bank')) == 20
