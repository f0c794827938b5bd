"""Nothing of a training or a draw lies on the wrong device, and a step waits for no GPU: proven without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from changes import make_changes
from pairs import make_pairs
from pretend_gpu import GPU, OnGPU, pretended_gpu, steady_waits
from torch import Tensor

from hsiaug.engine import Training
from hsiaug.systems import Generator, TrainingData, load
from hsiaug.systems.base import REGISTRY
from hsiaug.trainers import fit_generator

load()
TWO_STREAM: dict[str, Any] = {
    'vae_iterations': 3, 'diffusion_iterations': 3, 'vae_channels': 4, 'unet_channels': [8, 16], 'sampling_steps': 2,
}  # fmt: skip
ABUNDANCES: dict[str, Any] = {'iterations': 3, 'batch_size': 4}
UNMIXING: dict[str, Any] = {
    'unmixing': {'endmembers': 3, 'widths': [8, 8, 12, 8, 8], 'steps': 3, 'inputs': 'all'},
    'abundances': {**ABUNDANCES, 'network': {'channels': [8, 16], 'sampling_steps': 2}},
    'mask_steps': 3,
}
SMALL_GAN: dict[str, Any] = {'iterations': 3, 'hidden': 8}
RESOLVER: dict[str, Any] = {'iterations': 3, 'gradient_iterations': 3, 'width': 8, 'blocks': 1}
CASES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    'change_editing': [('pairs', {'painter': TWO_STREAM}), ('changes', {'painter': TWO_STREAM, 'clusters': 2})],
    'duplicate': [('spectra', {})],
    'ensemble': [('spectra', {**SMALL_GAN, 'members': 2})],
    'gain_offset': [('spectra', {})],
    'gaussian': [('spectra', {'components': 2})],
    'mixup': [('spectra', {})],
    'msrresgan': [('pairs', RESOLVER), ('pairs', {**RESOLVER, 'network': 'srgan', 'augmentation': 'jitter'})],
    'noise': [('spectra', {})],
    'patch_augment': [('pairs', {'kind': 'crops'}), ('changes', {'kind': 'copy_paste'})],
    'patch_gan': [('pairs', {'iterations': 3}), ('pairs', {'iterations': 3, 'loss': 'wgan-gp', 'calibrate': True})],
    'relighting': [('spectra', {})],
    'spectral_gan': [
        ('spectra', SMALL_GAN),
        ('spectra', {**SMALL_GAN, 'optimiser': 'rmsprop', 'space': 'unit', 'semi_supervised': True}),
    ],
    'two_stream_diffusion': [
        ('pairs', TWO_STREAM),
        ('changes', {**TWO_STREAM, 'single_stream': True, 'cache_latents': False, 'swap_dates': True}),
    ],
    'unmixing_fusion': [
        ('pairs', UNMIXING),
        ('pairs', {**UNMIXING, 'masks': 'dominant', 'abundances': {**ABUNDANCES, 'kind': 'vae'}}),
        ('pairs', {**UNMIXING, 'variability': 0.1, 'abundances': {**ABUNDANCES, 'kind': 'style_gan'}}),
    ],
    'variability': [('spectra', {})],
}
COMPOSED = {'augmented'}
"""What is made of other generators, not trained; tested by itself below."""
EACH = [(name, kind, settings) for name, cases in CASES.items() for kind, settings in cases]


@pytest.fixture(scope='module')
def samples(data: TrainingData) -> dict[str, TrainingData]:
    return {'spectra': data, 'pairs': make_pairs(12), 'changes': make_changes(12)}


def fitted(name: str, data: TrainingData, settings: dict[str, Any], device: str = 'cpu') -> Generator:
    return fit_generator('spectral_gan' if name == 'ensemble' else name, data, settings, seed=1, device=device)


def back(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    assert all(isinstance(value, OnGPU) for value in batch.values())
    return {key: value.cpu() for key, value in batch.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_every_generator_is_tested_here() -> None:
    assert set(REGISTRY) == set(CASES) | COMPOSED


@pytest.mark.filterwarnings('ignore:only .* training patches', 'ignore:the abundances')
@pytest.mark.parametrize(('name', 'kind', 'settings'), EACH, ids=[f'{n}-{i}' for i, (n, _, _) in enumerate(EACH)])
def test_a_generator_trains_and_draws_there_as_here_and_waits_for_nothing(
    samples: dict[str, TrainingData], name: str, kind: str, settings: dict[str, Any]
) -> None:
    data = samples[kind]
    here = fitted(name, data, settings)
    assert here.type_name == name
    with pretended_gpu() as waits:
        with steady_waits(Training, 'advance', waits) as steady:
            there = fitted(name, data, settings, GPU.type)
        state = there.state_dict()
        assert {value.device for value in state.values()} == {GPU}
        assert {key: value.cpu() for key, value in state.items()}.keys() == here.state_dict().keys()
        assert all(torch.equal(state[key].cpu(), value) for key, value in here.state_dict().items())
        assert same(back(there.sample(5, seed=7)), here.sample(5, seed=7))
    assert not steady
