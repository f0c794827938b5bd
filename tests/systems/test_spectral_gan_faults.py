import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from hsiaug.engine import Run
from hsiaug.engine.checkpoint import write_checkpoint
from hsiaug.functional.gradient_penalty import gradient_penalty_autograd
from hsiaug.samples import SampleSpec
from hsiaug.systems.base import TrainingData
from hsiaug.systems.spectral_gan import train as module
from hsiaug.systems.spectral_gan.model import SpectralGAN
from hsiaug.systems.spectral_gan.train import SpectralGANConfig, SpectralGANTraining, train_spectral_gan

TINY = SpectralGANConfig(iterations=12, hidden=16, batch_size=16, components=6)
BANDS = torch.arange(20)


def bumps(label: int, n: int, rng: torch.Generator) -> torch.Tensor:
    height = 1 + 0.1 * torch.randn((n, 1), generator=rng)
    return height * torch.exp(-(((BANDS - 5 - 9 * label) / 3) ** 2)) + 0.02 * torch.randn((n, 20), generator=rng)


@pytest.fixture
def data() -> TrainingData:
    rng = torch.Generator().manual_seed(0)
    x, unlabelled, val = (torch.cat([bumps(k, n, rng) for k in (0, 1)]) for n in (40, 30, 10))
    y, val_y = torch.arange(2).repeat_interleave(40), torch.arange(2).repeat_interleave(10)
    return TrainingData(SampleSpec('spectrum', 20, ('a', 'b')), x, y, unlabelled, val, val_y)


def same(a: SpectralGAN, b: SpectralGAN) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_critic_gradients_are_those_of_the_textbook(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    training = SpectralGANTraining(data, TINY, 0)
    monkeypatch.setattr(training.optimisers['critic'], 'step', lambda: None)
    training.critic_step(torch.Generator().manual_seed(7))
    found = [p.grad.clone() for p in training.opponents]
    rng = torch.Generator().manual_seed(7)  # the same draws again, in the same order
    rows = training._rows(training.real, rng)
    fake = training._fake(rng)[0].detach()
    epsilon = torch.rand((16, 1), generator=rng)
    real = training.real[rows]
    for p in training.opponents:
        p.grad = None
    penalty = gradient_penalty_autograd(training.critic, epsilon * real + (1 - epsilon) * fake)
    (training.critic(fake).mean() - training.critic(real).mean() + 10 * penalty).backward()
    cross_entropy(training.classifier(real), data.y[rows]).backward()
    for p, gradient in zip(training.opponents, found, strict=True):
        # The penalty does not depend on a bias: autograd gives it no gradient or the critic loss's alone.
        assert torch.allclose(gradient, torch.zeros_like(p) if p.grad is None else p.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('optimiser', ['adam', 'rmsprop'])
def test_killed_training_goes_on_to_the_same_result(
    data: TrainingData, optimiser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(TINY, optimiser=optimiser, select_every=2)
    distances = {2: 0.1}  # the best generator is found before the checkpoint that is resumed from
    current: list[SpectralGANTraining] = []
    undisturbed, kill_at = SpectralGANTraining.update, [9]

    def update(self: SpectralGANTraining, rng: torch.Generator) -> None:
        current[:] = [self]
        if self.step == kill_at[0]:
            raise KeyboardInterrupt
        undisturbed(self, rng)

    monkeypatch.setattr(SpectralGANTraining, 'update', update)
    monkeypatch.setattr(module, 'validation_distance', lambda *_: distances.get(current[0].step, 1.0))
    with pytest.raises(KeyboardInterrupt):
        train_spectral_gan(data, config, Run(folder=tmp_path, every=5))
    kill_at[0] = -1
    resumed = train_spectral_gan(data, config, Run(folder=tmp_path, every=5))
    assert same(resumed, train_spectral_gan(data, config))
    last = train_spectral_gan(data, dataclasses.replace(config, select_every=0))
    assert not same(resumed, last)  # so the test would notice a forgotten best
    assert not list(tmp_path.iterdir())


def test_foreign_and_truncated_checkpoints_are_refused(data: TrainingData, tmp_path: Path) -> None:
    state = {'a': torch.zeros(1)}
    write_checkpoint(tmp_path / module.CHECKPOINT_FILE, state, {'seed': 99}, 'gan', 0)
    with pytest.raises(ValueError, match='checkpoint of another training'):
        train_spectral_gan(data, TINY, Run(folder=tmp_path))
    (tmp_path / module.CHECKPOINT_FILE).write_bytes(b'abc')
    with pytest.raises(ValueError, match='truncated'):
        train_spectral_gan(data, TINY, Run(folder=tmp_path))


def test_without_any_labels(data: TrainingData) -> None:
    bare = dataclasses.replace(data, x=data.x[:0], y=data.y[:0])
    with pytest.raises(ValueError, match='conditional=False'):
        train_spectral_gan(bare, TINY)
    generator = train_spectral_gan(bare, dataclasses.replace(TINY, conditional=False))
    assert torch.isfinite(generator.sample(5, seed=0)['image']).all()


def test_bad_input_is_named(data: TrainingData) -> None:
    for change, message in (
        ({'y': torch.zeros_like(data.y)}, r"no labelled spectra of \['b'\]"),
        ({'x': data.x.clone().index_fill_(0, torch.tensor([3]), float('nan'))}, r'1 of \d+ x spectra hold NaN'),
        ({'spec': dataclasses.replace(data.spec, classes=())}, 'has no classes'),
    ):
        with pytest.raises(ValueError, match=message):
            train_spectral_gan(dataclasses.replace(data, **change), TINY)
    unvalidated = dataclasses.replace(data, val_x=data.val_x[:0], val_y=data.val_y[:0])
    with pytest.raises(ValueError, match='select_every'):
        train_spectral_gan(unvalidated, dataclasses.replace(TINY, select_every=2))


def test_divergence_names_the_iteration(data: TrainingData) -> None:
    with pytest.raises(FloatingPointError, match='step 12'):
        train_spectral_gan(data, dataclasses.replace(TINY, lr=1e30))


def test_paper_setting() -> None:
    paper = SpectralGANConfig.paper()
    assert (paper.iterations, paper.critic_steps, paper.batch_size) == (100_000, 2, 256)
    assert (paper.optimiser, paper.lr, paper.penalty, paper.class_weight) == ('rmsprop', 5e-5, 10, 0.2)
    assert (paper.noise_dim, paper.hidden, paper.layers, paper.space) == (30, 512, 4, 'unit')
    assert (paper.ema, paper.calibrate, paper.select_every) == (0, False, 0)


def test_cuda_graph_on_the_cpu_is_refused(data: TrainingData) -> None:
    with pytest.raises(ValueError, match='needs a CUDA device'):
        train_spectral_gan(data, TINY, cuda_graph=True)


@pytest.mark.gpu
@pytest.mark.parametrize('optimiser', ['adam', 'rmsprop'])
def test_cuda_graph_trains_the_same_generator(data: TrainingData, optimiser: str) -> None:
    config = dataclasses.replace(TINY, optimiser=optimiser)
    eager, graph = (train_spectral_gan(data, config, Run(device='cuda'), cuda_graph=on) for on in (False, True))
    for key, value in eager.state_dict().items():
        assert torch.allclose(value, graph.state_dict()[key], rtol=1e-3, atol=1e-4), key
