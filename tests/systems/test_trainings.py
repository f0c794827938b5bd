"""What every training in steps promises: one seed means one generator, killed or not, and divergence is said."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import make_changes
from mixtures import mixtures
from pairs import make_pairs
from weights import same

from hsiaug.datasets import SyntheticBank, SyntheticDataset, write_bank
from hsiaug.engine import Run, Training
from hsiaug.engine.checkpoint import found_checkpoint
from hsiaug.systems import Generator, TrainingData, load
from hsiaug.systems.base import REGISTRY
from hsiaug.systems.training import trainer_of
from hsiaug.trainers import fit_generator

STEPS = 4
TWO_STREAM: dict[str, Any] = {
    'vae_iterations': STEPS, 'diffusion_iterations': STEPS, 'vae_channels': 4, 'unet_channels': [8, 16],
    'image_latents': 2, 'mask_latents': 2, 'vae_batch_size': 2, 'batch_size': 2, 'sampling_steps': 2,
}  # fmt: skip
GAN: dict[str, Any] = {'iterations': STEPS, 'hidden': 16, 'layers': 2, 'batch_size': 8, 'components': 4}
PATCHES: dict[str, Any] = {'iterations': STEPS, 'batch_size': 4, 'size': 8, 'latent_dim': 8}
RESOLVER: dict[str, Any] = {
    'iterations': STEPS, 'gradient_iterations': STEPS, 'width': 4, 'blocks': 1, 'batch_size': 2,
    'discriminator_width': 2,
}  # fmt: skip
UNMIXING: dict[str, Any] = {'endmembers': 3, 'widths': [8, 8, 12, 8, 8], 'steps': STEPS}
NETWORKS: dict[str, Any] = {
    'diffusion': {'channels': [8, 16], 'sampling_steps': 2}, 'vae': {'width': 8, 'latents': 2},
    'style_gan': {'width': 8, 'noise_dim': 8},
}  # fmt: skip


def abundances(kind: str) -> dict[str, Any]:
    return {'kind': kind, 'iterations': STEPS, 'batch_size': 4, 'network': NETWORKS[kind]}


def fusion(kind: str) -> dict[str, Any]:
    return {'unmixing': UNMIXING, 'abundances': abundances(kind), 'mask_steps': 2}


CASES: dict[str, tuple[str, Callable[..., TrainingData] | None, dict[str, Any], dict[str, Any]]] = {
    # name of the generator, data, settings, and other ones that a diverged training may resume with
    'spectral_gan': ('spectral_gan', None, {**GAN, 'select_every': 0}, {'lr': 1e-6}),
    'its best': ('spectral_gan', None, {**GAN, 'select_every': 1, 'optimiser': 'rmsprop'}, {'lr': 1e-6}),
    'patch_gan': ('patch_gan', make_pairs, PATCHES, {'lr': 1e-6}),
    'spectral norm': ('patch_gan', make_pairs, {**PATCHES, 'spectral_norm': True}, {'lr': 1e-6}),
    'volumes': ('patch_gan', make_pairs, {**PATCHES, 'loss': 'wgan-gp', 'dims': 3}, {'lr': 1e-6}),
    'msrresgan': ('msrresgan', make_pairs, RESOLVER, {'lr': 1e-6}),
    'two_stream_diffusion': ('two_stream_diffusion', make_pairs, TWO_STREAM, {'vae_lr': 1e-6, 'diffusion_lr': 1e-6}),
    'change_editing': (
        'change_editing', make_changes, {'painter': TWO_STREAM, 'clusters': 2},
        {'painter': {**TWO_STREAM, 'vae_lr': 1e-6}},
    ),
    **{
        f'unmixing_fusion, {kind}': (
            'unmixing_fusion', mixtures, fusion(kind), {'abundances': {**abundances(kind), 'learning_rate': 1e-6}},
        )
        for kind in NETWORKS
    },
}  # fmt: skip
each = pytest.mark.parametrize('case', CASES)
pytestmark = pytest.mark.filterwarnings('ignore:only .* training patches', 'ignore:the abundances')
Fit = Callable[..., Generator]
_WHOLE: dict[str, tuple[Generator, list[tuple[str, int]]]] = {}


@pytest.fixture
def fit(case: str, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> Fit:
    name, source, settings, _ = CASES[case]
    given = data if source is None else source(12)
    monkeypatch.setattr('hsiaug.systems.fit.Run', partial(Run, every=2))
    return lambda seed=5, folder=None, **other: fit_generator(name, given, {**settings, **other}, seed, folder=folder)


def taken(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[Training], None] = lambda _: None
) -> list[tuple[str, int]]:
    """Stage and number of every step from now on."""
    steps, advance = list[tuple[str, int]](), Training.advance

    def counted(self: Training, rng: torch.Generator) -> None:
        if not self.alone:
            before(self)
            steps.append((self.name, self.step))
        advance(self, rng)

    monkeypatch.setattr(Training, 'advance', counted)
    return steps


def whole(case: str, fit: Fit) -> tuple[Generator, list[tuple[str, int]]]:
    """The generator of an undisturbed training, and the steps that were taken."""
    if case not in _WHOLE:
        with pytest.MonkeyPatch.context() as patch:
            steps = taken(patch)
            _WHOLE[case] = fit(), steps
    return _WHOLE[case]


def checkpoint(folder: Path, stage: str) -> Path:
    (file,) = (path for path in folder.rglob('*.safetensors') if found_checkpoint(path)['stage'] == stage)
    return file


def test_every_system_that_is_trained_in_steps_is_here() -> None:
    load()
    trained = {name for name in REGISTRY if trainer_of(name) is not None}
    assert trained == {name for name, *_ in CASES.values()} | {'pseudo_label'}  # which trains downstream networks


@each
def test_killed_in_every_stage_it_ends_where_an_undisturbed_one_does(
    case: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    stream = torch.get_rng_state()
    undisturbed, steps = whole(case, fit)
    kills = [(stage, 3) for stage in dict(steps)]

    def kill(training: Training) -> None:
        if kills and (training.name, training.step) == kills[0]:
            raise KeyboardInterrupt

    again = taken(monkeypatch, kill)
    for stage in dict(steps):
        with pytest.raises(KeyboardInterrupt):
            fit(folder=tmp_path)
        file = checkpoint(tmp_path, stage)
        assert found_checkpoint(file)['step'] == '2'
        kills.pop(0)
        with pytest.raises(ValueError, match=r"another training, \(found, expected\).*'seed': \(5, 6\)"):
            fit(6, tmp_path)
        content = file.read_bytes()
        file.write_bytes(content[:100])
        with pytest.raises(ValueError, match='truncated'):
            fit(folder=tmp_path)
        file.write_bytes(content)
    assert same(fit(folder=tmp_path), undisturbed)
    assert sorted(again) == sorted([*steps, *((stage, 2) for stage in dict(steps))])  # what is kept is not done again
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]
    assert not same(fit(6), undisturbed)
    assert torch.equal(torch.get_rng_state(), stream)


@each
def test_it_is_saved_and_loaded_with_how_it_was_trained(case: str, fit: Fit, tmp_path: Path) -> None:
    generator, _ = whole(case, fit)
    assert not generator.training
    assert all(parameter.requires_grad for parameter in generator.parameters())
    loaded = Generator.from_pretrained(generator.save_pretrained(tmp_path / 'g'))
    assert type(loaded) is type(generator)
    first, again, other = generator.sample(5, seed=3), loaded.sample(5, seed=3), loaded.sample(5, seed=4)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first['image'], other['image'])
    assert loaded.sample(0)['image'].shape == (0, *first['image'].shape[1:])
    write_bank(loaded, 3, tmp_path / 'bank')
    expected = SyntheticDataset(generator, 3).batch(range(3))
    found = SyntheticBank(tmp_path / 'bank').batch(range(3))
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert loaded.provenance == generator.provenance is not None
    training, (name, _, settings, _) = loaded.provenance.training, CASES[case]
    assert training['generator'] == name
    assert {key: training[key] for key in settings if not isinstance(settings[key], dict)}.items() <= training.items()


@each
def test_divergence_leaves_the_last_good_checkpoint(
    case: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, (*_, lower) = list(dict(whole(case, fit)[1])), CASES[case]

    def poison(training: Training) -> None:
        if stages and (training.name, training.step) == (stages[0], 3):
            next(p for m in training.modules.values() for p in m.parameters() if p.requires_grad).data.fill_(torch.inf)

    taken(monkeypatch, poison)
    for stage in list(stages):
        with pytest.raises(FloatingPointError, match=rf'stage {stage!r} by step 4: .*; lower .*\(step 2\) is'):
            fit(folder=tmp_path)
        assert found_checkpoint(checkpoint(tmp_path, stage))['step'] == '2'
        with pytest.raises(FloatingPointError, match='give a folder'):
            fit()
        stages.pop(0)
    batch = fit(folder=tmp_path, **lower).sample(3, seed=0)  # with lower rates it goes on from there
    assert bool(torch.isfinite(batch['image']).all())
