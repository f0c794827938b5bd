"""Mixing, kornia children and gates on a batch that lives on the GPU: proven without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import kornia.augmentation as K
import pytest
import torch
from pairs import make_pairs
from pretend_gpu import GPU, OnGPU, back, on_gpu, pretended_gpu, steady_waits
from torch import Tensor, nn

from hsiaug.datasets import PatchDataset
from hsiaug.quality.agreement import SPECTRAL, AgreementGate
from hsiaug.quality.gate import Gates
from hsiaug.quality.gated import Gated
from hsiaug.quality.novelty import NoveltyGate
from hsiaug.quality.physical import RangeGate, SmoothnessGate, SubspaceGate
from hsiaug.systems import Generator
from hsiaug.systems.augmented import Augmented
from hsiaug.trainers import fit_generator
from hsiaug.transforms import SyntheticMix
from hsiaug.transforms.augment import GeneratorAugmentation
from hsiaug.transforms.kornia import RandomSyntheticMix
from hsiaug.transforms.kornia_augment import RandomGeneratorAugmentation

PAIRS = make_pairs(40)
OTHERS = PatchDataset(PAIRS.x, PAIRS.y, PAIRS.spec)
GAN: dict[str, Any] = {'iterations': 2, 'hidden': 8}


def crops() -> Generator:
    return fit_generator('patch_augment', PAIRS, {'kind': 'crops'})


def resolver() -> Any:
    return fit_generator('msrresgan', PAIRS, {'network': 'bicubic', 'augmentation': 'jitter', 'noise': 0.1})


WAYS: dict[str, Callable[[], nn.Module]] = {
    'a dataset': lambda: SyntheticMix(OTHERS, 1.0, replacement=True),
    'a dataset appended, weighed': lambda: SyntheticMix(OTHERS, 0.5, 'append', replacement=True, weight=0.3),
    'a live generator': lambda: SyntheticMix(crops(), 1.0),
    'an augmenting generator': lambda: GeneratorAugmentation(resolver(), 1.0),
    'a dataset in kornia': lambda: in_kornia(RandomSyntheticMix(OTHERS, 1.0)),
    'a live generator in kornia': lambda: in_kornia(RandomSyntheticMix(crops(), 1.0)),
    'an augmenting generator in kornia': lambda: in_kornia(RandomGeneratorAugmentation(resolver(), 1.0)),
}


def in_kornia(child: nn.Module) -> K.AugmentationSequential:
    return K.AugmentationSequential(child, data_keys=None)


def batches(count: int = 8) -> list[dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(3)
    rows = [torch.randint(len(PAIRS.x), (8,), generator=rng) for _ in range(count)]
    return [{'image': PAIRS.x[r], 'mask': PAIRS.y[r]} for r in rows]


def mixed(way: nn.Module, device: str) -> list[dict[str, Tensor]]:
    torch.manual_seed(5)
    return [way({key: value.to(device) for key, value in batch.items()}) for batch in batches()]


@pytest.mark.parametrize('name', WAYS)
def test_a_batch_on_the_gpu_is_mixed_there_as_on_the_cpu(name: str) -> None:
    expected = mixed(WAYS[name]().train(), 'cpu')
    with pretended_gpu():
        found = [back(batch) for batch in mixed(WAYS[name]().train(), GPU.type)]
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_steady_mixing_waits_for_nothing() -> None:
    """After the scales have been looked at, and within a chunk of a live generator."""
    for source in (OTHERS, crops()):
        with pretended_gpu() as waits, steady_waits(SyntheticMix, 'forward', waits, first=6) as steady:
            mixed(SyntheticMix(source, 1.0, replacement=isinstance(source, PatchDataset)).train(), GPU.type)
        assert {(wait.what, wait.where) for wait in steady} == set()


def test_gates_judge_samples_of_the_gpu_as_those_of_the_cpu() -> None:
    generator = fit_generator('patch_augment', PAIRS, {'kind': 'noise'})
    fitted = [
        RangeGate(),
        SmoothnessGate(),
        SubspaceGate(),
        NoveltyGate(),
        AgreementGate(config=replace(SPECTRAL, steps=20, hidden=16)),
    ]
    gates = Gates(fitted).fit(PAIRS)
    some = Gates(fitted[:2])  # that let a part of these samples pass
    expected, batch = gates.judge(generator.sample(6, seed=1)), Gated(generator, some).sample(4, seed=2)
    with pretended_gpu():
        there = fit_generator('patch_augment', PAIRS, {'kind': 'noise'}, device=GPU.type)
        found = gates.judge(there.sample(6, seed=1))
        drawn = back(Gated(there, some).sample(4, seed=2))
    assert torch.equal(found.keep, expected.keep)
    assert all(torch.equal(drawn[key], batch[key]) for key in batch)


def test_an_augmented_generator_draws_where_it_is() -> None:
    generator = Augmented.of(crops(), resolver())
    expected = generator.sample(5, seed=4)
    with pretended_gpu():
        there = back(Augmented.of(crops(), resolver()).to(GPU).sample(5, seed=4))
    assert all(torch.equal(there[key], expected[key]) for key in expected)


def test_an_ensemble_lies_where_its_members_do() -> None:
    from conftest import make_scene

    from hsiaug.scenes import RandomSplit
    from hsiaug.trainers import training_data

    scene = make_scene()
    data = training_data(scene, RandomSplit(fraction=0.4)(scene, seed=0))
    with pretended_gpu():
        gans = fit_generator('spectral_gan', data, {**GAN, 'members': 2}, device=GPU.type)
        assert gans.device == GPU
        mix = SyntheticMix(gans, 1.0).train()
        assert isinstance(mix({'image': on_gpu(data.x[:8]), 'label': on_gpu(data.y[:8])})['image'], OnGPU)
