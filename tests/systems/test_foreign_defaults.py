"""A seed means the same sample whatever a caller has set in torch: default dtype, default device, autocast."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import make_changes
from pairs import make_pairs
from torch import Tensor

from hsiaug.datasets import PatchDataset, SpectraDataset
from hsiaug.functional.plain import plain_torch
from hsiaug.scenes import Scene, Split
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.two_stream_diffusion.model import TwoStreamDiffusion
from hsiaug.trainers import ClassifierConfig, SegmenterConfig, fit_generator, train_nn1d, train_segmenter

TWO_STREAM: dict[str, Any] = {
    'vae_iterations': 2, 'diffusion_iterations': 2, 'vae_channels': 4, 'unet_channels': [8, 16], 'sampling_steps': 2,
}  # fmt: skip
SPECTRA: dict[str, dict[str, Any]] = {
    'duplicate': {}, 'noise': {}, 'gain_offset': {}, 'relighting': {}, 'mixup': {}, 'gaussian': {'components': 2},
    'variability': {}, 'spectral_gan': {'iterations': 3, 'hidden': 8},
}  # fmt: skip
PATCHES: dict[str, dict[str, Any]] = {
    'patch_augment': {'kind': 'crops'},
    'region_paste': {},
    'msrresgan': {'iterations': 2, 'gradient_iterations': 1, 'width': 8, 'blocks': 1},
    'patch_gan': {'iterations': 2},
    'two_stream_diffusion': TWO_STREAM,
    'unmixing_fusion': {
        'unmixing': {'endmembers': 3, 'widths': [8, 8, 12, 8, 8], 'steps': 3, 'inputs': 'all'},
        'abundances': {'iterations': 1, 'network': {'channels': [8, 16], 'sampling_steps': 2}, 'batch_size': 2},
        'mask_steps': 2,
    },
}
KINDS = [*SPECTRA, *PATCHES, 'change_editing']


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def foreign(dtype: torch.dtype = torch.float64) -> Iterator[None]:
    """All at once: 'meta', as 'cuda' would, takes whatever names no device."""
    with default_dtype(dtype), default_device('meta'), torch.autocast('cpu', torch.bfloat16):
        yield


@pytest.fixture(scope='module')
def fit(data: TrainingData) -> Callable[[str], Generator]:
    pairs, changes = make_pairs(12), make_changes(12)

    def fitted(kind: str) -> Generator:
        if kind in SPECTRA:
            return fit_generator(kind, data, SPECTRA[kind], seed=1)
        if kind == 'change_editing':
            return fit_generator(kind, changes, {'painter': TWO_STREAM, 'clusters': 2, 'composites': 0}, seed=1)
        return fit_generator(kind, pairs, PATCHES[kind], seed=1)

    return fitted


@pytest.fixture(scope='module')
def plain(fit: Callable[[str], Generator]) -> dict[str, Generator]:
    return {kind: fit(kind) for kind in KINDS}


def drawn(generator: Generator, seed: int | None = 7) -> dict[str, Tensor]:
    if seed is None:
        torch.manual_seed(3)
    return generator.sample(6, seed=seed)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize('kind', KINDS)
def test_samples_and_generators_that_are_fitted_there_are_the_same(
    plain: dict[str, Generator], fit: Callable[[str], Generator], kind: str
) -> None:
    expected = drawn(plain[kind])
    assert expected['image'].dtype == torch.float32
    with foreign(torch.bfloat16):
        assert same(drawn(plain[kind]), expected)
    with foreign():
        assert same(drawn(plain[kind]), expected)
        with torch.inference_mode():
            there = fit(kind)
    state = there.state_dict()
    assert state.keys() == plain[kind].state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in plain[kind].state_dict().items())
    assert same(drawn(there), expected)


@pytest.mark.parametrize('kind', KINDS)
def test_a_cast_moves_no_sample(plain: dict[str, Generator], kind: str) -> None:
    held = torch.nn.Sequential(torch.nn.Linear(2, 2), copy.deepcopy(plain[kind])).to(torch.bfloat16)
    assert held[0].weight.dtype == torch.bfloat16  # what is no generator is cast
    expected = drawn(plain[kind])
    assert same(drawn(held[1]), expected)  # type: ignore[arg-type]
    assert same(drawn(held[1].half()), expected)  # type: ignore[arg-type, operator]


def test_other_ways_to_samples(plain: dict[str, Generator], tmp_path: Path) -> None:
    painter, resolver = plain['two_stream_diffusion'], plain['msrresgan']
    assert isinstance(painter, TwoStreamDiffusion)
    pairs = make_pairs(4)
    batch = {'image': pairs.x, 'mask': pairs.y}
    shares = painter.sample_shares(3, [1 / 3] * 3, seed=0)
    altered: dict[str, Tensor] = resolver.augment(batch, seed=0)  # type: ignore[operator]
    entropy = drawn(plain['noise'], seed=None)
    folder = plain['gaussian'].save_pretrained(tmp_path / 'generator')
    with foreign():
        assert same(painter.sample_shares(3, [1 / 3] * 3, seed=0), shares)
        assert same(resolver.augment(batch, seed=0), altered)  # type: ignore[operator]
        assert same(drawn(plain['noise'], seed=None), entropy)
        assert same(drawn(Generator.from_pretrained(folder)), drawn(plain['gaussian']))


def test_downstream_networks_are_the_same(scene: Scene, split: Split) -> None:
    pairs = make_pairs(8)
    patches = PatchDataset(pairs.x, pairs.y, pairs.spec)
    spectra = SpectraDataset(scene, split)
    small = SegmenterConfig(steps=2, channels=8, encoder='mit_tiny', batch_size=2)

    def trained() -> list[Tensor]:
        networks = train_nn1d(spectra, ClassifierConfig(steps=3, hidden=8)), train_segmenter(patches, small)
        return [value for network in networks for value in network.state_dict().values()]

    expected = trained()
    with foreign():
        found = trained()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@plain_torch()
def state_inside() -> tuple[torch.dtype, str, bool]:
    return torch.zeros(1).dtype, torch.zeros(1).device.type, torch.is_autocast_enabled('cpu')


@plain_torch()
def failing() -> None:
    raise RuntimeError('inside')


def test_what_was_set_is_set_again() -> None:
    with foreign():
        assert state_inside() == (torch.float32, 'cpu', False)
        with pytest.raises(RuntimeError, match='inside'):
            failing()
        assert (torch.zeros(1).dtype, torch.zeros(1).device.type) == (torch.float64, 'meta')
        assert torch.is_autocast_enabled('cpu')
