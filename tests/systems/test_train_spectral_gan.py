from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from weights import same

from hsiaug.engine import Run
from hsiaug.functional.gradient_penalty import gradient_penalty_autograd
from hsiaug.metrics.frechet import sliced_wasserstein
from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData
from hsiaug.systems.spectral_gan import train as module
from hsiaug.systems.spectral_gan.train import SpectralGANConfig, SpectralGANTraining, train_spectral_gan

TINY = SpectralGANConfig(iterations=6, hidden=16, layers=2, batch_size=8, noise_dim=4, components=5)


@pytest.fixture(scope='module')
def bumps() -> TrainingData:
    """Two classes in 20 bands: a bump at band 5 or 14, of varying height."""
    torch.manual_seed(0)
    bands, labels = torch.arange(20.0), torch.arange(2).repeat(100)
    centres = torch.tensor([5.0, 14.0])[labels][:, None]
    x = 100 + 50 * (1 + 0.2 * torch.randn(200, 1)) * torch.exp(-((bands - centres) ** 2) / 6) + torch.randn(200, 20)
    spec = SampleSpec('spectrum', 20, ('left', 'right'), unit='counts')
    return TrainingData(spec, x[:120], labels[:120], x[120:160] + 5, x[160:], labels[160:])


@pytest.mark.parametrize('space', ['unit', 'pca'])
def test_learns_two_classes(bumps: TrainingData, space: str) -> None:
    config = SpectralGANConfig(iterations=250, hidden=64, layers=2, space=space, components=8)  # type: ignore[arg-type]
    generator = train_spectral_gan(bumps, config)
    labels = torch.arange(2).repeat(200)
    image = generator.sample(400, labels, seed=0)['image']
    means = torch.stack([bumps.x[bumps.y == k].mean(dim=0) for k in (0, 1)])
    nearest = torch.cdist(image, means).argmin(dim=1)
    assert (nearest == labels).float().mean() > 0.95
    for k in (0, 1):
        assert (image[labels == k].mean(dim=0) - means[k]).abs().max() < 10
        spread = image[labels == k].std(dim=0).mean() / bumps.x[bumps.y == k].std(dim=0).mean()
        assert 0.5 < spread < 2


def test_paper_setting() -> None:
    paper = SpectralGANConfig.paper()
    assert (paper.iterations, paper.optimiser, paper.lr, paper.batch_size) == (100_000, 'rmsprop', 5e-5, 256)
    assert (paper.critic_steps, paper.penalty, paper.class_weight, paper.noise_dim) == (2, 10.0, 0.2, 30)
    assert (paper.hidden, paper.layers, paper.space, paper.ema, paper.calibrate) == (512, 4, 'unit', 0.0, False)
    with pytest.raises(ValueError, match='iterations must be at least 1'):
        replace(paper, iterations=0)


def test_steps_move_only_what_they_should(bumps: TrainingData) -> None:
    training = SpectralGANTraining(bumps, replace(TINY, ema=0.0), 0)

    def weights(module: torch.nn.Module) -> torch.Tensor:
        return torch.cat([p.detach().flatten().clone() for p in module.parameters()])

    rng = torch.Generator().manual_seed(0)
    networks = (training.generator, training.critic, training.classifier)
    before = [weights(n) for n in networks]
    training.critic_step(rng)
    assert all(p.grad is None for p in training.generator.parameters())
    after = [weights(n) for n in networks]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]
    training.generator_step(rng)
    last = [weights(n) for n in networks]
    assert [torch.equal(a, b) for a, b in zip(after, last, strict=True)] == [False, True, True]


def test_critic_sees_unlabelled_pixels_only_when_semi_supervised(bumps: TrainingData) -> None:
    other = replace(bumps, unlabelled=bumps.unlabelled * 1.5)
    labels = torch.tensor([0, 1])
    images = {
        (semi, which): train_spectral_gan(d, replace(TINY, space='unit', semi_supervised=semi)).sample(
            2, labels, seed=0
        )['image']
        for semi in (False, True)
        for which, d in enumerate((bumps, other))
    }
    assert torch.equal(images[False, 0], images[False, 1])
    assert not torch.equal(images[True, 0], images[True, 1])
    training = SpectralGANTraining(bumps, replace(TINY, semi_supervised=True), 0)
    assert len(training.real) == 160
    assert len(training.labelled) == 120  # the classifier sees labelled pixels only


def test_without_any_labels(bumps: TrainingData) -> None:
    bare = replace(bumps, x=bumps.x[:0], y=bumps.y[:0])
    with pytest.raises(ValueError, match='conditional=False'):
        train_spectral_gan(bare, TINY)
    generator = train_spectral_gan(bare, replace(TINY, conditional=False))
    assert generator.sample(3, torch.zeros(3, dtype=torch.int64), seed=0)['image'].isfinite().all()


def test_interpolation_ends_where_it_should(bumps: TrainingData) -> None:
    generator = train_spectral_gan(bumps, TINY)
    line = generator.interpolate((0, 1), torch.linspace(0, 1, 5), (0, 0))
    ends = [generator.interpolate((k, k), torch.tensor([0.0]), (0, 0))[0] for k in (0, 1)]
    assert torch.allclose(line[0], ends[0])
    assert torch.allclose(line[-1], ends[1])
    steps = line.diff(dim=0).norm(dim=1)
    assert steps.max() < 3 * steps.mean()  # no jump between the classes


def test_sliced_wasserstein_of_a_shift() -> None:
    a = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    assert float(sliced_wasserstein(a, a + 2)) == pytest.approx(2, rel=1e-5)
    assert float(sliced_wasserstein(a, a[:250])) < 0.2


def test_critic_gradients_are_those_of_the_textbook(bumps: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    training = SpectralGANTraining(bumps, TINY, 0)
    monkeypatch.setattr(training.optimisers['critic'], 'step', lambda: None)
    training.critic_step(torch.Generator().manual_seed(7))
    found = [p.grad.clone() for p in training.opponents]
    rng = torch.Generator().manual_seed(7)  # the same draws again, in the same order
    rows = training.rows(len(training.real), rng)
    fake = training._fake(rng)[0].detach()
    epsilon = torch.rand((8, 1), generator=rng)
    real = training.real[rows]
    for p in training.opponents:
        p.grad = None
    penalty = gradient_penalty_autograd(training.critic, epsilon * real + (1 - epsilon) * fake)
    (training.critic(fake).mean() - training.critic(real).mean() + 10 * penalty).backward()
    cross_entropy(training.classifier(real), bumps.y[rows]).backward()
    for p, gradient in zip(training.opponents, found, strict=True):
        # The penalty does not depend on a bias: autograd gives it no gradient or the critic loss's alone.
        assert torch.allclose(gradient, torch.zeros_like(p) if p.grad is None else p.grad, rtol=1e-3, atol=1e-5)


def test_killed_training_finds_the_best_generator_again(
    bumps: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, iterations=12, select_every=2)
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
        train_spectral_gan(bumps, config, Run(folder=tmp_path, every=5))
    kill_at[0] = -1
    resumed = train_spectral_gan(bumps, config, Run(folder=tmp_path, every=5))
    assert same(resumed, train_spectral_gan(bumps, config))
    last = train_spectral_gan(bumps, replace(config, select_every=0))
    assert not same(resumed, last)  # so the test would notice a forgotten best
    assert not list(tmp_path.iterdir())


def test_bad_input_is_named(bumps: TrainingData) -> None:
    for change, message in (
        ({'y': torch.zeros_like(bumps.y)}, r"no training sample of \['right'\]"),
        ({'x': bumps.x.clone().index_fill_(0, torch.tensor([3]), float('nan'))}, r'1 of \d+ spectra hold NaN'),
        ({'spec': replace(bumps.spec, classes=())}, 'has no classes'),
    ):
        with pytest.raises(ValueError, match=message):
            train_spectral_gan(replace(bumps, **change), TINY)
    unvalidated = replace(bumps, val_x=bumps.val_x[:0], val_y=bumps.val_y[:0])
    with pytest.raises(ValueError, match='select_every'):
        train_spectral_gan(unvalidated, replace(TINY, select_every=2))
