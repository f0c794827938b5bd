from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pairs import BANDS, class_spectra, make_pairs
from torch import nn
from weights import same

from hsiaug.datasets.real.class_patches import class_patches
from hsiaug.engine import Run
from hsiaug.functional import gradient_penalty_autograd, spectral_angle
from hsiaug.models.patch_cnn import Dims
from hsiaug.samples import SampleSpec
from hsiaug.systems import Generator, TrainingData
from hsiaug.systems.patch_gan.model import PatchCritic, PatchGAN
from hsiaug.systems.patch_gan.train import PatchGANConfig, PatchGANTraining, train_patch_gan
from hsiaug.trainers import fit_generator

TINY = PatchGANConfig(latent_dim=8, iterations=6, batch_size=4, size=8)
SMALL = replace(TINY, iterations=180, batch_size=16, lr=1e-3)
SPEC = SampleSpec('scene', BANDS, ('a', 'b', 'c'), size=(8, 12), unit='counts')


@pytest.fixture(scope='module')
def pairs() -> TrainingData:
    return make_pairs(24)


def class_angles(generator: PatchGAN) -> torch.Tensor:
    """(K, K) angles of the mean spectrum of each class's samples to the true ones."""
    means = [generator.sample(64, torch.full((64,), k), seed=0)['image'].mean(dim=(0, 2, 3)) for k in range(3)]
    return spectral_angle(torch.stack(means)[:, None], class_spectra()[None])


# --- networks -------------------------------------------------------------------------------------------------------


def test_layers_are_those_of_the_text() -> None:
    spec = SampleSpec('scene', 200, ('a',), size=(64, 64))
    generator = PatchGAN(spec, conditional=False)
    kinds = [type(layer).__name__ for layer in generator.layers]
    assert kinds == ['ConvTranspose2d', 'BatchNorm2d', 'ReLU', 'ConvTranspose2d', 'Tanh']
    assert sum(p.numel() for p in generator.parameters()) == (
        101 * 128 * 16 * 16 + (128 * 16 + 1) * 64 + 2 * 64 + 64 * 16 * 200 + 200
    )
    assert generator(torch.randn(2, 100), torch.zeros(2, dtype=torch.int64)).shape == (2, 200, 64, 64)
    critic = PatchCritic(200, (64, 64))
    assert sum(p.numel() for p in critic.parameters()) == (
        (200 * 16 + 1) * 64 + (64 * 16 + 1) * 128 + 2 * 128 + 128 * 16 * 16 + 1
    )
    assert [m.negative_slope for m in critic.modules() if isinstance(m, nn.LeakyReLU)] == [0.2, 0.2]
    assert critic(torch.rand(2, 200, 64, 64), torch.zeros(2, dtype=torch.int64)).shape == (2,)


def test_volumes_have_the_same_layers_in_three_dimensions() -> None:
    spec = SampleSpec('scene', 10, ('a', 'b'), size=(8, 12))
    labels = torch.tensor([0, 1])
    generator, critic = PatchGAN(spec, dims=3), PatchCritic(10, (8, 12), 2, dims=3)
    image = generator(torch.randn(2, 100), labels)
    assert image.shape == (2, 10, 8, 12)
    assert critic(image, labels).shape == (2,)
    assert sum(p.numel() for p in generator.parameters()) == (
        103 * 128 * 3 * 2 * 3 + (128 * 64 + 1) * 64 + 2 * 64 + 64 * 64 + 1
    )
    assert sum(p.numel() for p in critic.parameters()) == (
        (3 * 64 + 1) * 64 + (64 * 64 + 1) * 128 + 2 * 128 + 128 * 2 * 2 * 3 + 1
    )
    # neighbouring bands share kernels: a shift along the bands is a shift of what the first layer sees
    volume = torch.randn(1, 1, 16, 8, 12)
    first = PatchCritic(16, (8, 12), dims=3).layers[0]
    assert torch.allclose(first(volume.roll(2, 2))[:, :, 2:-1], first(volume)[:, :, 1:-2], atol=1e-6)


@pytest.mark.parametrize('dims', [2, 3])
def test_the_critic_is_told_the_class(dims: Dims) -> None:
    image, labels = torch.rand(1, BANDS, 8, 12).expand(2, -1, -1, -1), torch.tensor([0, 2])
    told, untold = (PatchCritic(BANDS, (8, 12), k, 'layer', dims=dims)(image, labels).tolist() for k in (3, 0))
    assert abs(told[0] - told[1]) > 1e-3
    assert untold[0] == pytest.approx(untold[1], abs=1e-6)


def test_a_penalised_critic_judges_each_sample_alone() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(4, BANDS, 8, 12), torch.zeros(4, dtype=torch.int64)
    for critic, alone in (
        (PatchCritic(BANDS, (8, 12), norm='layer'), True),
        (PatchCritic(BANDS, (8, 12), norm='batch'), False),
    ):
        assert torch.allclose(critic(x, labels)[:2], critic(x[:2], labels[:2]), atol=1e-6) is alone


def test_spectral_norm_bounds_the_weights() -> None:
    torch.manual_seed(0)
    critic = PatchCritic(BANDS, (8, 12), spectral=True)
    for _ in range(50):
        critic(torch.randn(4, BANDS, 8, 12), torch.zeros(4, dtype=torch.int64))
    norms = [
        torch.linalg.matrix_norm(m.weight.flatten(1), 2)
        for m in critic.layers
        if hasattr(m, 'weight') and m.weight.ndim > 1
    ]
    assert len(norms) == 3
    assert torch.allclose(torch.stack(norms), torch.ones(3), atol=0.02)


def test_values_are_in_the_range_of_each_band() -> None:
    data = TrainingData(SPEC, *(torch.empty(0),) * 5)
    generator = PatchGAN(SPEC)
    x = torch.rand(5, BANDS, 8, 12) * torch.arange(1, BANDS + 1)[:, None, None] - 3
    generator.observe(replace(data, x=x))
    code = generator.normalise(x)
    assert float(code.min()) == pytest.approx(-1, abs=1e-5)
    assert float(code.max()) == pytest.approx(1, abs=1e-5)
    nn.init.normal_(generator.projection.weight, std=50)  # drives tanh to its ends
    image = generator.eval().sample(50, seed=0)['image']
    assert (image >= x.amin(dim=(0, 2, 3))[:, None, None] - 1e-5).all()
    assert (image <= x.amax(dim=(0, 2, 3))[:, None, None] + 1e-5).all()


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings('ignore:the discriminator')
@pytest.mark.parametrize(
    'settings',
    [{'loss': 'bce'}, {'loss': 'wgan-gp', 'upsampling': 'resize'}, {'dims': 3, 'size': 4}],
    ids=['bce', 'wgan-gp, resize', '3d'],
)
def test_samples_have_the_spectra_of_their_classes(settings: dict[str, Any], pairs: TrainingData) -> None:
    generator = fit_generator('patch_gan', pairs, {**vars(SMALL), **settings})
    assert isinstance(generator, PatchGAN)
    side = settings.get('size', 8)
    assert (generator.spec.kind, generator.spec.size) == ('scene', (side, side))
    angles = class_angles(generator)
    assert torch.equal(angles.argmin(dim=1), torch.arange(3))
    assert float(angles.diagonal().max()) < 0.35
    batch = generator.sample(10, seed=1)
    assert torch.equal(batch['image'], generator.sample(10, seed=1)['image'])
    assert batch['image'].shape == (10, BANDS, side, side)
    assert batch['label'].shape == (10,)


@pytest.mark.filterwarnings('ignore:the discriminator')
def test_calibration_gives_classes_their_mean_and_spread(pairs: TrainingData, tmp_path: Path) -> None:
    x, y, spec = class_patches(pairs.x, pairs.y, pairs.spec, 8)
    data = replace(pairs, spec=spec, x=x, y=y)
    config = replace(SMALL, iterations=30)
    plain, mended = (train_patch_gan(data, replace(config, calibrate=on)) for on in (False, True))
    away: tuple[list[float], list[float]] = ([], [])
    for k in range(3):
        real = x[y == k]
        for side, generator in zip(away, (plain, mended), strict=True):
            fake = generator.sample(500, torch.full((500,), k), seed=9)['image']
            mean, spread = ((a - b).abs().mean() for a, b in ((m(real), m(fake)) for m in (means, spreads)))
            side.append(float(mean + spread))
        n = len(real)
        left = 1 - n / (n + 10)
        code, before = (g.normalise(g.sample(500, torch.full((500,), k), seed=0)['image']) for g in (mended, plain))
        expected = left * means(before) + (1 - left) * means(mended.normalise(real))
        assert torch.allclose(means(code), expected, atol=0.03)
    assert all(better < worse for worse, better in zip(*away, strict=True))
    mended.save_pretrained(tmp_path)
    assert same(mended, Generator.from_pretrained(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='needs conditional=True'):
        PatchGANConfig(calibrate=True, conditional=False)


def means(x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=(0, 2, 3))


def spreads(x: torch.Tensor) -> torch.Tensor:
    return x.std(dim=(0, 2, 3))


def test_neither_a_model_in_training_nor_loading_changes_what_is_drawn(pairs: TrainingData, tmp_path: Path) -> None:
    generator = train_patch_gan(pairs, TINY)
    before = generator.sample(4, seed=0)['image']
    model = nn.ModuleList([generator]).train()  # as a LightningModule that holds it
    assert torch.equal(generator.sample(4, seed=0)['image'], before)
    assert generator.training
    assert torch.equal(model.eval()[0].sample(4, seed=0)['image'], before)  # type: ignore[operator]
    generator.save_pretrained(tmp_path / 'saved')
    state = torch.get_rng_state()
    assert torch.equal(Generator.from_pretrained(tmp_path / 'saved').sample(4, seed=0)['image'], before)
    assert torch.equal(torch.get_rng_state(), state)


def test_repeated_pixels_leave_no_checkerboard() -> None:
    """Of a network as it is made: transposed convolutions reach odd and even places by other weights."""
    spec, alike = SampleSpec('scene', BANDS, ('a', 'b'), size=(16, 16)), []
    for dims in (2, 3):
        for upsampling in ('transposed', 'resize'):
            torch.manual_seed(0)
            generator = PatchGAN(spec, dims=dims, upsampling=upsampling).eval()  # type: ignore[arg-type]
            # One picture all over: what is left of places is the pattern of the layers.
            with torch.no_grad():
                inside = generator.layers(torch.randn(4, 128, *[1] * (dims)).expand(-1, -1, *generator.corner))
            inside = inside.reshape(4, -1, 16, 16)[..., 4:-4, 4:-4]
            alike.append(float(inside.std(dim=(2, 3)).mean() / inside.std()))
    assert alike[0] > 0.1
    assert alike[2] > 0.1
    assert alike[1] == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="unknown upsampling 'nearest'"):
        PatchGAN(spec, upsampling='nearest')  # type: ignore[arg-type]


def test_penalty_holds_the_slope_of_the_critic_at_one(pairs: TrainingData) -> None:
    x, y, spec = class_patches(pairs.x, pairs.y, pairs.spec, 4)
    data = replace(pairs, spec=spec, x=x, y=y)
    penalties = []
    for weight in (0.0, 10.0):
        config = replace(SMALL, loss='wgan-gp', penalty=weight, iterations=60)
        generator, critic = PatchGAN(spec, 8), PatchCritic(BANDS, (4, 4), 3, 'layer')
        generator.observe(data)
        training = PatchGANTraining(generator, critic, data, config, 0)
        training.run(Run())
        points = (training.real[:64] + generator(torch.randn(64, 8), data.y[:64])) / 2
        slope = gradient_penalty_autograd(lambda z, c=critic: c(z, data.y[:64]), points)  # type: ignore[misc]
        penalties.append(float(slope.detach()))
    assert penalties[1] < 0.2
    assert penalties[0] > 2 * penalties[1]


def test_without_classes_labels_mean_nothing(pairs: TrainingData) -> None:
    generator = train_patch_gan(pairs, replace(TINY, conditional=False))
    a, b = (generator.sample(8, torch.full((8,), k), seed=0)['image'] for k in (0, 1))
    assert torch.equal(a, b)
    told = train_patch_gan(pairs, TINY)
    a, b = (told.sample(8, torch.full((8,), k), seed=0)['image'] for k in (0, 1))
    assert not torch.equal(a, b)


def test_generator_and_critic_take_their_steps_by_turns(pairs: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, descend = list[str](), PatchGANTraining.descend

    def spy(self: PatchGANTraining, name: str, loss: torch.Tensor) -> None:
        other = {'critic': self.generator, 'generator': self.critic}[name]
        before = [p.detach().clone() for p in other.parameters()]
        descend(self, name, loss)
        assert all(torch.equal(p, q) for p, q in zip(before, other.parameters(), strict=True))
        calls.append(name)

    monkeypatch.setattr(PatchGANTraining, 'descend', spy)
    train_patch_gan(pairs, replace(TINY, loss='wgan-gp', critic_steps=3, iterations=2))
    assert calls == 2 * ['critic', 'critic', 'critic', 'generator']


def test_classes_and_how_many_patches_of_each_are_recorded(pairs: TrainingData) -> None:
    generator = train_patch_gan(pairs, replace(TINY, per_class=5))
    assert torch.allclose(generator.class_prior, torch.full((3,), 1 / 3))
    assert generator.provenance is not None
    assert generator.provenance.training['per_class'] == 5


def test_mistakes(pairs: TrainingData) -> None:
    with pytest.raises(ValueError, match="kind 'scene', found 'segmentation'"):
        PatchGAN(pairs.spec)
    with pytest.raises(ValueError, match='6 x 6 pixels do not divide by 4'):
        train_patch_gan(pairs, replace(TINY, size=6))
    with pytest.raises(ValueError, match='3 with 4 bands or more, found 3 with 2'):
        PatchGAN(SampleSpec('scene', 2, ('a',), size=(8, 8)), dims=3)
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        PatchGANConfig(loss='hinge')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no training sample of \\['b'\\]"):
        train_patch_gan(replace(pairs, y=torch.where(pairs.y == 1, 2, pairs.y)), TINY)
    with pytest.raises(ValueError, match="'patch_gan' cannot be made with settings"):
        fit_generator('patch_gan', pairs, {'depth': 3})
    with pytest.raises(ValueError, match='of kind'):
        train_patch_gan(replace(pairs, spec=replace(pairs.spec, kind='scene')), TINY)
    bad = pairs.x.clone()
    bad[:, :, 4, 4] = torch.inf
    with pytest.raises(ValueError, match='images hold NaN'):
        train_patch_gan(replace(pairs, x=bad), TINY)
