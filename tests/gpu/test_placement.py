"""Nothing of a training or a draw lies on the wrong device, and a step waits for no GPU: proven without one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from changes import make_changes
from pairs import make_pairs
from pretend_gpu import GPU, OnGPU, Wait, back, on_gpu, pretended_gpu, shared_streams, steady_waits
from torch import Tensor, nn

from hsiaug.datasets import ChangeDataset, PatchDataset, SceneDataset, SpectraDataset
from hsiaug.engine import Training
from hsiaug.losses.change import change_loss
from hsiaug.models.scene_classifiers import LEAST_SIDE, SceneModel
from hsiaug.scenes import Scene, Split
from hsiaug.systems import Generator, TrainingData, load
from hsiaug.systems.base import REGISTRY
from hsiaug.systems.change_editing import inpainting
from hsiaug.systems.spectral_gan.train import SpectralGANTraining
from hsiaug.trainers import ClassifierConfig, SegmenterConfig, fit_generator, train_nn1d, train_segmenter
from hsiaug.trainers.change_detection import ChangeDetectorConfig, Model, predict_changes, train_change_detector
from hsiaug.trainers.classifier import predict
from hsiaug.trainers.patch_encoder import train_date_encoder
from hsiaug.trainers.scene_classifier import SceneClassifierConfig, predict_scenes, train_scene_classifier
from hsiaug.trainers.segmentation import predict_masks

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
TEACHERS: dict[str, Any] = {'teachers': 2, 'confidence': 0.1, 'teacher': {'steps': 2, 'batch_size': 4}}
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
    'pseudo_label': [('unlabelled', {**TEACHERS, 'paste': 'host'}), ('unlabelled spectra', TEACHERS)],
    'region_paste': [('pairs', {'regions': 'components'}), ('changes', {'regions': 'class'})],
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
each_generator = pytest.mark.parametrize(
    ('name', 'kind', 'settings'), EACH, ids=[f'{n}-{i}' for i, (n, _, _) in enumerate(EACH)]
)


@pytest.fixture(scope='module')
def samples(data: TrainingData) -> dict[str, TrainingData]:
    pairs = make_pairs(12)
    return {
        'spectra': data, 'unlabelled spectra': replace(data, unlabelled=data.x[:9]),
        'pairs': pairs, 'unlabelled': replace(pairs, unlabelled=make_pairs(9, seed=1).x), 'changes': make_changes(12),
    }  # fmt: skip


def fitted(name: str, data: TrainingData, settings: dict[str, Any], device: str = 'cpu') -> Generator:
    return fit_generator('spectral_gan' if name == 'ensemble' else name, data, settings, seed=1, device=device)


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    return [k for k in a | b if k not in a or k not in b or a[k].dtype != b[k].dtype or not torch.equal(a[k], b[k])]


def deviating(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Share of all numbers that differ by more than rounding does in a few steps.

    Steps of Adam are of one size, however small and rounded a gradient is: some will differ.
    """
    assert found.keys() == expected.keys()
    pairs = [(found[key].cpu().double(), value.double()) for key, value in expected.items() if value.numel()]
    differ = [(a - b).abs() > 1e-4 * (b.abs() + b.abs().mean() + 1e-2) for a, b in pairs]
    return float(torch.cat([each.flatten() for each in differ]).double().mean()) if differ else 0.0


def test_every_generator_is_tested_here() -> None:
    assert set(REGISTRY) == set(CASES) | COMPOSED


@pytest.mark.filterwarnings('ignore:only .* training patches', 'ignore:the abundances')
@each_generator
def test_a_generator_trains_and_draws_there_as_here_and_waits_for_nothing(
    samples: dict[str, TrainingData], name: str, kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inpainting, 'STEPS', 4)  # all are alike
    data = samples[kind]
    here = fitted(name, data, settings)
    assert here.type_name == name
    with pretended_gpu() as waits:
        with steady_waits(Training, 'advance', waits) as steady:
            there = fitted(name, data, settings, GPU.type)
        assert not differing(back(there.state_dict()), here.state_dict())
        assert not differing(back(there.sample(5, seed=7)), here.sample(5, seed=7))
    assert {(wait.what, wait.where) for wait in steady if not allowed(wait)} == set()


def allowed(wait: Wait) -> bool:
    """kornia draws its few parameters on the CPU, and copies them."""
    return wait.what == 'to device' and re.search(r'self\.(flips|crop)\(', wait.where) is not None


# --- downstream models ------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {'steps': 3, 'batch_size': 4}
Trained = tuple[nn.Module, Tensor]
_MADE: dict[str, tuple[nn.Module, Tensor]] = {}


def with_nn1d(samples: dict[str, TrainingData], spectra: SpectraDataset, device: str) -> Trained:
    model = train_nn1d(spectra, ClassifierConfig(**SMALL, hidden=8, dropout=0.1), device=device)
    return model, predict(model, samples['spectra'].x)


def with_segmenter(name: str, samples: dict[str, TrainingData], spectra: SpectraDataset, device: str) -> Trained:
    data = samples['pairs']
    encoder = {'segformer': 'mit_tiny', 'pfsegnet': 'resnet_tiny'}[name]
    config = SegmenterConfig(name, encoder, channels=8, **SMALL, augment='classic', class_weights='sqrt_inverse')  # type: ignore[arg-type]
    model = train_segmenter(PatchDataset(data.x, data.y, data.spec), config, device=device)
    return model, predict_masks(model, data.x)


def with_detector(name: str, samples: dict[str, TrainingData], spectra: SpectraDataset, device: str) -> Trained:
    data = samples['changes']
    size: dict[str, Any] = {'channels': 8, 'encoder': 'mit_tiny'} if name.startswith('changeformer') else {}
    size = {'channels': 8, 'encoder': 'resnet_tiny'} if name == 'siamcrnn' else size
    options = {**SMALL, **size, 'upsampling': 2, 'augment': 'cutmix', 'swap_dates': True}
    config = ChangeDetectorConfig(name, **options)  # type: ignore[arg-type]
    model = train_change_detector(ChangeDataset(data.x, data.y, data.spec), config, device=device)
    return model, predict_changes(model, data.x)


def with_scenes(name: str, samples: dict[str, TrainingData], spectra: SpectraDataset, device: str) -> Trained:
    data = samples['pairs']
    by = -(-LEAST_SIDE[name] // data.x.shape[-1])
    narrow = 1 if name.startswith('cnn') else 8
    config = SceneClassifierConfig(name, narrow=narrow, **SMALL, upsampling=by, augment='flips')  # type: ignore[arg-type]
    dataset = SceneDataset(data.x, data.y[:, 8, 8], replace(data.spec, kind='scene', ignore_index=None))
    # Published networks are laid out on the device 'meta' first, which here is the GPU's: made before there is one.
    build = SceneClassifierConfig.build

    def built(config: SceneClassifierConfig, *args: Any) -> nn.Module:
        if device == 'cpu':
            _MADE[name] = build(config, *args), torch.get_rng_state()
        torch.set_rng_state(_MADE[name][1])
        return copy.deepcopy(_MADE[name][0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneClassifierConfig, 'build', built)
        model = train_scene_classifier(dataset, config, device=device)
    return model, predict_scenes(model, data.x)


def with_date_encoder(samples: dict[str, TrainingData], spectra: SpectraDataset, device: str) -> Trained:
    data = samples['changes']
    model = train_date_encoder(data.x, data.y, steps=3, device=device)
    return model, model(data.x[:, 0].to(device)).cpu()


# Of each kind all networks that its setting names: a new one is tested here from the start.
DOWNSTREAM: dict[str, Callable[..., Trained]] = {
    'nn1d': with_nn1d,
    'the date encoder': with_date_encoder,
    **{n: lambda *a, n=n: with_segmenter(n, *a) for n in get_args(get_type_hints(SegmenterConfig)['model'])},
    **{n: lambda *a, n=n: with_detector(n, *a) for n in get_args(Model)},
    **{n: lambda *a, n=n: with_scenes(n, *a) for n in get_args(SceneModel)},
}


@pytest.mark.parametrize('name', DOWNSTREAM)
def test_a_downstream_model_trains_and_predicts_there_as_here_and_waits_for_nothing(
    samples: dict[str, TrainingData], scene: Scene, split: Split, name: str
) -> None:
    spectra = SpectraDataset(scene, split)
    here, expected = DOWNSTREAM[name](samples, spectra, 'cpu')
    with pretended_gpu() as waits:
        with steady_waits(Training, 'advance', waits) as steady:
            there, found = DOWNSTREAM[name](samples, spectra, GPU.type)
        assert not differing(back(there.state_dict()), here.state_dict())
    assert torch.equal(found, expected)
    assert {(wait.what, wait.where) for wait in steady if not allowed(wait)} == set()


def test_the_lovasz_loss_lies_where_its_logits_do() -> None:
    """It asks which classes there are, so that a step waits for it; it is off unless asked for."""
    logits, mask = torch.randn(2, 2, 4, 4), torch.randint(2, (2, 1, 4, 4))
    with pretended_gpu() as waits:
        there = on_gpu(logits).requires_grad_()
        change_loss(there, on_gpu(mask), lovasz=0.5).backward()
        assert isinstance(there.grad, OnGPU)
        assert {wait.what for wait in waits} >= {'shape'}


def test_rounding_is_told_from_other_steps(samples: dict[str, TrainingData]) -> None:
    """As the tests on a GPU do it: here by convolutions that add up in another order."""
    with shared_streams():
        expected = fitted('patch_gan', samples['pairs'], {'iterations': 3}).state_dict()
        with torch.backends.mkldnn.flags(enabled=False):
            rounded = fitted('patch_gan', samples['pairs'], {'iterations': 3}).state_dict()
    others = fitted('patch_gan', samples['pairs'], {'iterations': 4}).state_dict()
    assert len(differing(rounded, expected)) > 0
    assert deviating(rounded, expected) < 0.02
    assert deviating(others, expected) > 0.2


# --- the pretended GPU itself -----------------------------------------------------------------------------------------


def test_what_lies_on_the_wrong_device_is_noticed(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SpectralGANTraining.__init__

    def misplaced(self: SpectralGANTraining, *args: Any, **kwargs: Any) -> None:
        whole(self, *args, **kwargs)
        self.eye = torch.eye(len(self.eye))  # left on the CPU

    monkeypatch.setattr(SpectralGANTraining, '__init__', misplaced)
    fitted('spectral_gan', data, SMALL_GAN)
    with pretended_gpu(), pytest.raises(RuntimeError, match='found at least two devices'):
        fitted('spectral_gan', data, SMALL_GAN, GPU.type)


def test_a_step_that_waits_is_noticed(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SpectralGANTraining.generator_step

    def waiting(self: SpectralGANTraining, rng: torch.Generator) -> None:
        whole(self, rng)
        assert float(self.losses['generator']) < 1e9

    monkeypatch.setattr(SpectralGANTraining, 'generator_step', waiting)
    with pretended_gpu() as waits, steady_waits(Training, 'advance', waits) as steady:
        fitted('spectral_gan', data, SMALL_GAN, GPU.type)
    assert [wait.what for wait in steady] == ['item'] * 2


def test_the_pretended_gpu_refuses_what_a_gpu_would_and_notes_what_waits() -> None:
    with pretended_gpu() as waits:
        x, y = on_gpu(torch.arange(6.0)), torch.arange(6.0)
        assert [wait.what for wait in waits] == ['to device']
        for mixed in (lambda: x + y, lambda: torch.stack([x, y]), lambda: torch.where(x > 0, x, y)):
            with pytest.raises(RuntimeError, match='found at least two devices'):
                mixed()
        with pytest.raises(RuntimeError, match='device type for generator'):
            torch.randn(3, generator=torch.Generator(), device=GPU)
        with pytest.raises(TypeError, match='numpy'):
            x.numpy()
        assert isinstance(x * torch.tensor(2.0) + 1, OnGPU)  # numbers go everywhere
        del waits[:]
        x[1:].add_(1)
        assert waits == []
        assert x.tolist() == [0, 2, 3, 4, 5, 6]
        assert float(x.max()) == 6
        assert x[x > 2].shape == (4,)
        assert [wait.what for wait in waits] == ['to host', 'item', 'shape']
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(GPU)
        net(torch.rand(5, 3, device=GPU)).square().sum().backward()
        assert isinstance(net[0].weight.grad, OnGPU)


DRAWN_AT_ONCE = (
    'duplicate', 'ensemble', 'gain_offset', 'gaussian', 'mixup', 'noise', 'patch_gan', 'pseudo_label', 'relighting',
    'spectral_gan', 'variability',
)  # fmt: skip
"""Generators that are mixed in live between training steps; others take many steps, or look at what they have drawn."""


@pytest.mark.filterwarnings('ignore:only .* training patches')
@pytest.mark.parametrize(
    ('name', 'kind', 'settings'),
    [case for case in EACH if case[0] in DRAWN_AT_ONCE] + [('region_paste', kind, {}) for kind in ('pairs', 'changes')],
)
def test_a_draw_waits_for_nothing(
    samples: dict[str, TrainingData], name: str, kind: str, settings: dict[str, Any]
) -> None:
    """A draw that waited for the GPU would stop the training that it is drawn for."""
    with pretended_gpu() as waits:
        generator = fitted(name, samples[kind], settings, GPU.type)
        for seed in (1, 2):  # at first, tables of what is held come to the CPU
            waits.clear()
            generator.sample(5, torch.arange(5) % 2, seed)
            generator.sample(5, seed=seed)
        assert waits == []
