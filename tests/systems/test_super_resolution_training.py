import copy
import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from weights import same

from hsiaug.cli import main
from hsiaug.engine import Run
from hsiaug.functional.degradation import degrade, upsample
from hsiaug.metrics.super_resolution import super_resolution_scores
from hsiaug.samples import SampleSpec
from hsiaug.scenes import PatchSplitter, Scene
from hsiaug.systems import TrainingData
from hsiaug.systems.msrresgan.model import MSRResGAN
from hsiaug.systems.msrresgan.network import MSRResNet, SRDiscriminator, gradient_magnitude
from hsiaug.systems.msrresgan.train import (
    Deception,
    GeneratorStage,
    SuperResolutionConfig,
    shrink_residual,
    train_super_resolution,
)
from hsiaug.trainers import fit_generator, training_data

C, SIZE = 4, 16
TINY = SuperResolutionConfig(
    width=4, blocks=1, gradient_iterations=4, iterations=6, batch_size=2, discriminator_width=2
)
SMALL = replace(TINY, width=16, gradient_iterations=60, iterations=150, batch_size=8, lr=4e-3)


def stripes(n: int = 40, seed: int = 0) -> TrainingData:
    """Sharp straight borders between two spectra, in counts."""
    rng = torch.Generator().manual_seed(seed)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing='ij')
    angle = torch.rand(n, 1, 1, generator=rng) * 6.28
    place = 3 * (torch.rand(n, 1, 1, generator=rng) - 0.5)
    y = ((row - 7.5) * angle.cos() + (column - 7.5) * angle.sin() > place).long()
    spectra = 100 + 200 * torch.rand(2, C, generator=torch.Generator().manual_seed(9))
    x = spectra[y].movedim(-1, 1).contiguous()
    spec = SampleSpec('segmentation', C, ('a', 'b'), size=(SIZE, SIZE), unit='counts')
    return TrainingData(spec, x, y, x[:0], x[:0], y[:0])


@pytest.fixture(scope='module')
def trained() -> MSRResGAN:
    return train_super_resolution(stripes(), SMALL)


@torch.no_grad()
def psnr(generator: MSRResGAN, data: TrainingData) -> float:
    low = degrade(data.x, 2)
    return (
        super_resolution_scores(generator(low), data.x, 2).psnr
        - super_resolution_scores(upsample(low, 2), data.x, 2).psnr
    )


def test_learns_more_than_interpolation(trained: MSRResGAN) -> None:
    assert psnr(trained, stripes(16, seed=1)) > 2.0
    assert not trained.training
    assert all(p.requires_grad for p in trained.parameters())


def test_gradient_network_learns_the_gradient(trained: MSRResGAN) -> None:
    network, new = trained.network, stripes(16, seed=1)
    assert isinstance(network, MSRResNet)
    high = trained.normalise(new.x)
    low = degrade(high, 2)
    with torch.no_grad():
        learned = network.learned_gradient(upsample(low, 2))
    target = gradient_magnitude(high)
    before = (gradient_magnitude(upsample(low, 2)) - target).square().mean()
    assert float((learned - target).square().mean()) < 0.7 * float(before)


def test_no_residual_network_is_worse_than_interpolation_on_validation_images() -> None:
    data = replace(stripes(4), val_x=stripes(3, seed=2).x, val_y=stripes(3, seed=2).y)
    wild = replace(TINY, iterations=3, lr=0.3)  # what such steps add is no good
    last, shrunk = (train_super_resolution(data, replace(wild, shrink=on)) for on in (False, True))
    low = degrade(data.val_x, 2)
    with torch.no_grad():
        interpolation, *errors = (
            float((image - data.val_x).square().mean()) for image in (upsample(low, 2), last(low), shrunk(low))
        )
    assert errors[0] > 1.2 * interpolation
    assert errors[1] <= 1.0001 * interpolation
    assert not SuperResolutionConfig.paper().shrink  # the text validates nothing


def test_a_residual_is_shrunk_to_its_best_share() -> None:
    torch.manual_seed(0)
    network = MSRResNet(C, 2, width=4, blocks=1).eval()
    nn.init.normal_(network.residual.last.weight, std=0.1)
    image = torch.randn(20, C, 8, 8)
    with torch.no_grad():
        added = network.restore(image) - image
        assert shrink_residual(network, image, image + 0.25 * added) == pytest.approx(0.25, rel=1e-5)
        assert torch.allclose(network.restore(image), image + 0.25 * added, atol=1e-5)
        assert shrink_residual(network, image, image - added) == 0
        assert torch.equal(network.restore(image), image)
        assert shrink_residual(network, image, image - added) == 1  # there is nothing left to shrink


@pytest.mark.parametrize('network', ['msrresnet', 'srcnn', 'srgan'])
def test_baselines_train(network: str) -> None:
    data = stripes(8)
    start, end = (
        train_super_resolution(data, replace(TINY, network=network, iterations=n, lr=2e-3, width=8))  # type: ignore[arg-type]
        for n in (1, 40)
    )
    low = degrade(data.x, 2)
    with torch.no_grad():
        errors = [(g.train()(low) - data.x).square().mean() for g in (start, end)]  # normalised by the batch
    assert errors[1] < 0.8 * errors[0]


def test_gradient_network_is_kept_while_the_generator_learns() -> None:
    data = stripes(8)
    runs = [train_super_resolution(data, replace(TINY, iterations=n)) for n in (1, 6)]
    networks = [copy.deepcopy(run.network) for run in runs]
    assert all(isinstance(network, MSRResNet) for network in networks)
    states = [network.state_dict() for network in networks]
    parts = {key: torch.equal(value, states[1][key]) for key, value in states[0].items()}
    assert all(equal for key, equal in parts.items() if key.startswith('gradient.'))  # its running means too
    assert not parts['theta.weight']
    assert not parts['residual.last.weight']


def test_lambda_reaches_the_generator() -> None:
    data = stripes(8)
    with_it, without = (train_super_resolution(data, replace(TINY, adversarial=v, iterations=20)) for v in (1.0, 0.0))
    assert not same(with_it, without)
    mse = [(g.train()(degrade(data.x, 2)) - data.x).square().mean() for g in (with_it, without)]
    assert mse[0] > mse[1]


def test_discriminator_learns_which_is_real() -> None:
    data = stripes(8)
    torch.manual_seed(0)
    generator = MSRResGAN(data.spec, network='msrresnet', width=4, blocks=1)
    generator.observe(data)
    discriminator = SRDiscriminator(C, (SIZE, SIZE), width=4)
    config = replace(TINY, network='msrresnet', batch_size=8, iterations=40, lr=5e-3)
    stage = GeneratorStage(generator, discriminator, None, config, 0)
    stage.run(Run())
    low, high = stage.batch(torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert discriminator(high).mean() > discriminator(stage.network(low)).mean() + 0.5


def test_learning_rate_halves_after_each_quarter() -> None:
    data = stripes(4)
    generator = MSRResGAN(data.spec, network='srcnn')
    generator.observe(data)
    stage = GeneratorStage(generator, None, None, replace(TINY, iterations=8, network='srcnn'), 0)
    rates = []
    for _ in range(8):
        stage.advance(torch.Generator())
        rates.append(stage.optimisers['generator'].param_groups[0]['lr'])
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4, 1.25e-4])


def test_real_pairs_are_used() -> None:
    data = stripes(6)
    low = degrade(data.x, 2)
    degraded, given, mirrored = (train_super_resolution(data, TINY, low=x) for x in (None, low, low.flip(-1)))
    with torch.no_grad():
        assert torch.allclose(degraded(low), given(low), rtol=1e-3)
        assert not torch.allclose(degraded(low), mirrored(low), rtol=1e-2)
    with pytest.raises(ValueError, match=r'must be \(6, 4, 8, 8\) and finite at a factor of 2, found \(6, 4, 4, 8\)'):
        train_super_resolution(data, TINY, low=low[:, :, ::2])


@pytest.mark.parametrize('network', ['msrresgan', 'srgan', 'srcnn'])
def test_patches_that_the_factor_does_not_divide_are_learnt_from(network: str) -> None:
    data = stripes(6)  # 16 pixels at the text's factor of 5, as its 64
    generator = train_super_resolution(data, replace(TINY, network=network, factor=5))  # type: ignore[arg-type]
    assert generator.sample(3, seed=0)['image'].shape == (3, C, SIZE, SIZE)


def test_interpolated_first_or_by_the_network_is_one_training() -> None:
    data = stripes(6)
    low = degrade(data.x, 2)
    states = [train_super_resolution(data, TINY, low=x) for x in (low, upsample(low, 2))]
    for key, value in states[0].state_dict().items():
        assert torch.allclose(value, states[1].state_dict()[key], rtol=1e-3, atol=1e-4), key
    with pytest.raises(ValueError, match='srgan takes patches of low resolution'):
        train_super_resolution(data, replace(TINY, network='srgan'), low=upsample(low, 2))


def test_real_pairs_of_a_scene() -> None:
    """The coarser image is interpolated as a whole before windows are cut at any pixel."""
    rng = np.random.default_rng(0)
    low = rng.random((12, 10, C)).astype(np.float32)
    fine = np.kron(low, np.ones((5, 5, 1), np.float32)) + 0.1 * rng.random((60, 50, C)).astype(np.float32)
    labels = 1 + np.indices((60, 50)).sum(axis=0) % 2
    scene = Scene('pair', fine, labels, coarse=Scene('low', low))
    data = training_data(scene, PatchSplitter(size=16, stride=7, regions='halves')(scene, 0))
    assert data.coarse is not None
    whole = upsample(torch.from_numpy(low).movedim(-1, 0)[None], 5)[0]
    corners = PatchSplitter(size=16, stride=7, regions='halves')(scene, 0).train
    assert len(corners) == len(data.x) > 3
    for image, (top, left) in zip(data.coarse.image, corners.tolist(), strict=True):
        assert torch.allclose(image, whole[:, top : top + 16, left : left + 16], atol=1e-5)
    given = train_super_resolution(data, replace(TINY, factor=5))
    assert not same(given, train_super_resolution(replace(data, coarse=None), replace(TINY, factor=5)))
    with pytest.raises(ValueError, match='5 times coarser, but factor is 2; set factor to 5'):
        train_super_resolution(data, TINY)
    with pytest.raises(ValueError, match=r'found \(12, 10, 4\) for \(58, 50, 4\)'):
        Scene('pair', fine[:58], coarse=Scene('low', low))
    assert scene.content['coarse'] == Scene('other name', low).content
    assert scene.content != Scene('pair', fine, labels).content


class Sure(nn.Module):
    """A discriminator whose logit is always 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        return 2 + self.weight * image.mean(dim=(1, 2, 3))


def test_deception_is_that_of_the_text_or_its_mirror() -> None:
    data, losses = stripes(8), {}
    for deception in get_args(Deception):
        generator = MSRResGAN(data.spec, network='msrresnet', width=4, blocks=1)
        generator.observe(data)
        config = replace(TINY, network='msrresnet', adversarial=1000.0, deception=deception, lr=1e-9)
        stage = GeneratorStage(generator, Sure(), None, config, 0)
        stage.update(torch.Generator().manual_seed(0))
        losses[deception] = stage.losses['generator']
    d = torch.sigmoid(torch.tensor(2.0))
    expected = 1000 * ((1 - d).log() + d.log())
    assert float(losses['minimax'] - losses['non_saturating']) == pytest.approx(float(expected), rel=1e-3)


def test_real_pairs_may_have_any_numbers() -> None:
    data = stripes(8)
    low = torch.randint(9, (8, *data.x.shape[1:2], *(-(-side // 2) for side in data.x.shape[2:])))
    one, other = (train_super_resolution(data, TINY, low=numbers) for numbers in (low.float(), low.double()))
    assert same(one, other)
    with pytest.raises(TypeError, match='must be a tensor, found ndarray'):
        train_super_resolution(data, TINY, low=low.numpy())  # type: ignore[arg-type]


def test_mistakes() -> None:
    data = stripes(4)
    with pytest.raises(ValueError, match="'msrresgan' cannot be made with settings"):
        fit_generator('msrresgan', data, {'scale': 2})
    bad = data.x.clone()
    bad[2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='1 of 4 images hold NaN'):
        train_super_resolution(replace(data, x=bad), TINY)
    with pytest.raises(ValueError, match='batch_size must be at least 2'):
        SuperResolutionConfig(batch_size=1)
    with pytest.raises(ValueError, match='adversarial must be at least 0, found -1'):
        SuperResolutionConfig(adversarial=-1.0)
    with pytest.raises(ValueError, match='super-resolution: images must be'):
        train_super_resolution(replace(data, x=data.x[:, :, :8]), TINY)
    paper = SuperResolutionConfig.paper()
    assert (paper.width, paper.blocks, paper.factor, paper.adversarial, paper.lr) == (64, None, 5, 1e-4, 1e-3)
    assert paper.deception == 'minimax'


def test_real_pairs_from_the_command_line(tmp_path: Path) -> None:
    fine = np.random.default_rng(0).random((60, 50, C), dtype=np.float32)
    np.save(tmp_path / 'fine.npy', fine)
    np.save(tmp_path / 'low.npy', fine.reshape(12, 5, 10, 5, C).mean(axis=(1, 3)))
    np.save(tmp_path / 'labels.npy', 1 + np.indices((60, 50)).sum(axis=0) % 2)
    files = [f'--scene.{key}={tmp_path / name}.npy' for key, name in (('path', 'fine'), ('labels', 'labels'))]
    settings = json.dumps(dataclasses.asdict(replace(TINY, factor=5, iterations=1, gradient_iterations=1)))
    split = ['--split.strategy=patches', '--split.settings={size: 16, regions: halves}']
    args = ['train', *files, *split, '--generator=msrresgan', f'--settings={settings}']
    main([*args, f'--out={tmp_path / "run"}', f'--scene.coarse={tmp_path / "low.npy"}'])
    assert json.loads((tmp_path / 'run' / 'run.json').read_text())['scene']['coarse'] == f'{tmp_path / "low.npy"}'
    with pytest.raises(SystemExit):
        main([*args, f'--out={tmp_path / "other"}', f'--scene.coarse={tmp_path / "fine.npy"}'])


def test_lower_precision_restores_as_well(trained: MSRResGAN) -> None:
    """In bfloat16, of eight bits; the interpolated image, to which a network adds, is of single precision."""
    half = train_super_resolution(stripes(), replace(SMALL, precision='bf16'))
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert not same(half, trained)
    high = stripes(seed=1).x
    low = degrade(high, SMALL.factor, SMALL.mtf)
    psnr, lower = (super_resolution_scores(model(low).detach(), high, SMALL.factor).psnr for model in (trained, half))
    assert lower > psnr - 0.5
    numbered: Any = 32  # as a command line has it
    assert SuperResolutionConfig(precision=numbered).precision == '32'
    with pytest.raises(ValueError, match="unknown precision '16'"):
        SuperResolutionConfig(precision='16')  # type: ignore[arg-type]
