from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hsiaug.engine import Run
from hsiaug.metrics.frechet import sliced_wasserstein
from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData
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


def test_seed_decides_and_the_global_stream_is_left_alone(bumps: TrainingData) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (train_spectral_gan(bumps, TINY, Run(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    key = 'network.linears.0.weight'
    assert torch.equal(first.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


@pytest.mark.parametrize('optimiser', ['adam', 'rmsprop'])
def test_killed_training_goes_on_to_the_same_end(
    bumps: TrainingData, tmp_path: Path, optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, iterations=12, optimiser=optimiser)  # type: ignore[arg-type]
    undisturbed = train_spectral_gan(bumps, config, Run(5))
    update = SpectralGANTraining.update

    def killed(self: SpectralGANTraining, rng: torch.Generator) -> None:
        if self.step == 7:
            raise KeyboardInterrupt
        update(self, rng)

    monkeypatch.setattr(SpectralGANTraining, 'update', killed)
    with pytest.raises(KeyboardInterrupt):
        train_spectral_gan(bumps, config, Run(5, folder=tmp_path, every=5))
    monkeypatch.setattr(SpectralGANTraining, 'update', update)
    with pytest.raises(ValueError, match='checkpoint of another training'):
        train_spectral_gan(bumps, config, Run(6, folder=tmp_path))
    resumed = train_spectral_gan(bumps, config, Run(5, folder=tmp_path, every=5))
    states = undisturbed.state_dict(), resumed.state_dict()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_named(bumps: TrainingData) -> None:
    broken = replace(bumps, x=bumps.x.clone())
    training = SpectralGANTraining(broken, TINY, 0)
    training.real[:] = float('nan')
    with pytest.raises(FloatingPointError, match=r"diverged in stage 'gan' by step 6: critic nan.*lower lr \(0.0002\)"):
        training.run(Run())


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
