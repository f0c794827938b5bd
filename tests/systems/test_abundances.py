import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weights import same

from hsiaug.engine import Run
from hsiaug.engine import training as engine_training
from hsiaug.functional.orientations import any_orientation
from hsiaug.systems.unmixing_fusion.abundances.base import AbundanceModel
from hsiaug.systems.unmixing_fusion.abundances.config import abundance_model
from hsiaug.systems.unmixing_fusion.abundances.train import (
    AbundanceConfig,
    AbundanceTraining,
    DiffusionTraining,
    StyleGANTraining,
    train_abundances,
)

SIZE = 8
NETWORKS: dict[str, dict[str, Any]] = {
    'vae': {'width': 8, 'latents': 2},
    'style_gan': {'width': 8, 'noise_dim': 8},
    'diffusion': {'channels': (8, 16)},
}
KINDS = tuple(NETWORKS)


def borders(n: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Label 0: endmember 0 above a border, 1 below it; label 1: endmember 2 to the left of a border, 1 to the right."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    edge = torch.randint(2, SIZE - 1, (n, 1, 1), generator=rng)
    above = (torch.arange(SIZE)[None, :, None] < edge).expand(n, SIZE, SIZE)
    first = (labels == 0)[:, None, None]
    pure = torch.where(first, torch.where(above, 0, 1), torch.where(above.mT, 2, 1))
    hot = nn.functional.one_hot(pure, 3).movedim(-1, 1).float()
    return 0.9 * hot + 0.1 * torch.rand((n, 3, 1, 1), generator=rng).softmax(dim=1), labels


def config(kind: str, **settings: Any) -> AbundanceConfig:
    return AbundanceConfig(kind, **{'network': NETWORKS[kind], 'batch_size': 4, 'iterations': 6, **settings})  # type: ignore[arg-type]


def drawn(model: AbundanceModel, label: int, n: int = 64) -> Tensor:
    return model.sample(n, torch.full((n,), label), torch.Generator().manual_seed(7))


@pytest.mark.parametrize('kind', KINDS)
def test_samples_lie_on_the_simplex_follow_seed_and_label_and_come_of_settings_and_weights(kind: str) -> None:
    torch.manual_seed(0)
    model = abundance_model(kind, 3, 16, 2, **NETWORKS[kind]).eval()
    again = abundance_model(kind, 3, 16, 2, **model.settings).eval()
    again.load_state_dict(model.state_dict())
    labels = torch.tensor([0, 1, 0, 1, -1])
    for given in (labels, None):
        samples, same_seed, other_seed = (
            network.sample(5, given, torch.Generator().manual_seed(seed))
            for network, seed in ((model, 1), (again, 1), (model, 2))
        )
        assert samples.shape == (5, 3, 16, 16)
        assert float(samples.min()) >= 0
        assert torch.allclose(samples.sum(dim=1), torch.ones(5, 16, 16), atol=1e-5)
        assert torch.equal(samples, same_seed)
        assert not torch.allclose(samples, other_seed, atol=1e-3)
    for other_labels in (labels, 1 - labels.clamp_min(0)):
        found = model.sample(5, other_labels, torch.Generator().manual_seed(1))
        assert torch.equal(found, again.sample(5, labels, torch.Generator().manual_seed(1))) == (other_labels is labels)
    assert model.sample(0, None, torch.Generator()).shape == (0, 3, 16, 16)


# --- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('kind', 'steps', 'tolerance'), [('vae', 190, 0.2), ('style_gan', 95, 0.25), ('diffusion', 120, 0.15)]
)
def test_samples_show_the_pattern_of_their_label(kind: str, steps: int, tolerance: float) -> None:
    maps, labels = borders()
    rate = {'vae': 1e-2, 'style_gan': 3e-3, 'diffusion': 5e-3}[kind]
    setting = config(kind, iterations=steps, batch_size=8, learning_rate=rate, augment=False, ema=0.95)
    model = train_abundances(maps, labels, 2, setting, Run(0))
    assert not model.training
    real = [maps[labels == label].mean(dim=0) for label in (0, 1)]
    for label in (0, 1):
        samples = drawn(model, label)
        assert float(samples.min()) >= 0
        assert torch.allclose(samples.sum(dim=1), torch.ones(64, SIZE, SIZE), atol=1e-5)
        mine, other = (float((samples.mean(dim=0) - real[i]).abs().mean()) for i in (label, 1 - label))
        assert mine < tolerance
        assert other > 1.5 * mine
        # The border lies across, where it should: columns are alike of label 0, rows of label 1.
        down, right = (float(samples.diff(dim=axis).abs().mean()) for axis in (2, 3))
        assert (down > right) == (label == 0)


def test_maps_without_label_are_a_kind_of_their_own() -> None:
    maps, labels = borders()
    labels = torch.where(torch.arange(96) % 4 == 3, -1, labels)  # half of the second kind lose theirs
    weights = torch.where(labels < 0, 2.0, 1.0)
    model = train_abundances(maps, labels, 2, config('diffusion'), weights=weights)
    expected = torch.tensor([48.0, 24.0, 48.0]) / 120
    assert torch.allclose(model.label_prior, expected)
    assert torch.allclose(model.mean[:, 0, 0], (weights[:, None] * maps.mean(dim=(2, 3))).sum(dim=0) / 120, atol=1e-5)
    none, first = (drawn(model, label, 4) for label in (-1, 0))
    assert not torch.allclose(none, first, atol=1e-4)
    seen = list[Tensor]()
    model.draw = lambda index, rng: seen.append(index) or maps[: len(index)]  # type: ignore
    model.sample(5000, None, torch.Generator().manual_seed(0))
    assert torch.allclose(torch.bincount(torch.cat(seen)) / 5000, expected, atol=0.03)


def test_weightless_maps_are_never_met() -> None:
    maps, labels = borders(16)
    weights = (torch.arange(16) < 12).float()
    others = torch.cat([maps[:12], maps[12:].roll(1, dims=1)])
    a, b = (train_abundances(x, labels, 2, config('vae'), weights=weights) for x in (maps, others))
    assert same(a, b)
    assert not same(a, train_abundances(others, labels, 2, config('vae')))


def test_orientations_are_the_eight_of_a_square() -> None:
    picture = torch.arange(9.0).view(1, 3, 3)
    turned = any_orientation(picture.expand(400, 1, 3, 3), torch.Generator().manual_seed(0))
    eight = {tuple(torch.rot90(p, i, (1, 2)).flatten().tolist()) for i in range(4) for p in (picture, picture.mT)}
    found = [tuple(x.flatten().tolist()) for x in turned]
    assert set(found) == eight
    assert min(found.count(x) for x in eight) > 25


@pytest.mark.parametrize('kind', KINDS)
def test_lower_precision_trains_as_well(kind: str) -> None:
    maps, labels = borders(12)
    whole, half = (train_abundances(maps, labels, 2, config(kind, precision=p)) for p in ('32', 'bf16'))
    assert all(bool(torch.isfinite(value).all()) for value in half.state_dict().values())
    assert not same(whole, half)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert float((drawn(whole, 0, 8) - drawn(half, 0, 8)).abs().mean()) < 0.05


def test_average_follows_the_weights() -> None:
    maps, labels = borders(12)
    kept = dict[str, AbundanceTraining]()
    follow = AbundanceTraining.after_step

    def spy(self: AbundanceTraining) -> None:
        before = [p.clone() for p in self.average.module.parameters()]
        follow(self)
        decay = min(0.3, (1 + self.step) / (10 + self.step))
        for old, now, new in zip(
            before, self.modules['model'].parameters(), self.average.module.parameters(), strict=True
        ):
            assert torch.allclose(new, decay * old + (1 - decay) * now, atol=1e-6)
        kept['training'] = self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbundanceTraining, 'after_step', spy)
        model = train_abundances(maps, labels, 2, config('diffusion', ema=0.3))
    assert same(model, kept['training'].average.module)
    last = train_abundances(maps, labels, 2, config('diffusion', ema=0))
    assert same(last, kept['training'].modules['model'])


# --- going on, and stopping -------------------------------------------------------------------------------------------


def test_checkpoints_of_other_maps_or_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, labels = borders(12)
    with monkeypatch.context() as context:
        context.setattr(AbundanceTraining, 'after_step', lambda self: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            train_abundances(maps, labels, 2, config('vae'), Run(folder=tmp_path))
    with pytest.raises(ValueError, match=r"another training.*'data'"):
        train_abundances(maps.flip(0), labels, 2, config('vae'), Run(folder=tmp_path))
    with pytest.raises(ValueError, match=r"another training.*'batch_size': \(4, 5\)"):
        train_abundances(maps, labels, 2, config('vae', batch_size=5), Run(folder=tmp_path))


def test_discriminator_that_nothing_deceives_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, labels = borders(32)
    monkeypatch.setattr(StyleGANTraining, 'generator_step', lambda *args: None)  # a generator that never learns
    monkeypatch.setattr(engine_training, 'CHECK_EVERY', 5)
    setting = config('style_gan', iterations=120, learning_rate=5e-3, r1=0.0)
    with pytest.warns(UserWarning, match="hardly ever wrong .* of 'style_gan'"):
        train_abundances(maps, labels, 2, setting)


def test_penalty_flattens_the_discriminator() -> None:
    maps, labels = borders(32)
    slopes = list[float]()
    with pytest.MonkeyPatch.context() as patch:
        for weight in (0.0, 10.0):
            kept = list[StyleGANTraining]()
            step = StyleGANTraining.generator_step
            patch.setattr(
                StyleGANTraining,
                'generator_step',
                lambda self, *a, kept=kept, step=step: kept.append(self) or step(self, *a),
            )
            train_abundances(maps, labels, 2, config('style_gan', iterations=24, r1=weight, learning_rate=3e-3))
            x = kept[0].model.standardise(maps).requires_grad_(True)
            kept[0].discriminator(x, labels).sum().backward()
            assert x.grad is not None
            slopes.append(float(x.grad.flatten(1).norm(dim=1).mean()))
            patch.undo()
    assert slopes[1] < 0.5 * slopes[0]


def test_sides_take_their_steps_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, labels = borders(12)
    calls, descend = list[str](), AbundanceTraining.descend

    def spy(self: AbundanceTraining, name: str, *args: Any, **options: Any) -> None:
        other = self.modules['model' if name == 'discriminator' else 'discriminator']
        before = [p.detach().clone() for p in other.parameters()]
        descend(self, name, *args, **options)
        assert all(torch.equal(p, q) for p, q in zip(before, other.parameters(), strict=True))
        calls.append(name)

    monkeypatch.setattr(AbundanceTraining, 'descend', spy)
    train_abundances(maps, labels, 2, config('style_gan', iterations=3))
    assert calls == 3 * ['discriminator', 'model']


def test_loss_is_that_of_the_velocity() -> None:
    """A denoiser that says 0 errs by the velocity, whose variance is 1 for standardised maps."""
    maps, labels = borders(64)
    losses = list[float]()

    class Silent(DiffusionTraining):
        def descend(self, name: str, loss: Tensor, clip: float | None = None) -> None:
            losses.append(float(loss.detach()))

    from hsiaug.systems.unmixing_fusion.abundances.diffusion import AbundanceDiffusion

    model = AbundanceDiffusion(3, SIZE, 2, (8, 16))
    model.observe(maps, labels, torch.full((64,), 1 / 64))
    for parameter in model.unet.conv_out.parameters():
        nn.init.zeros_(parameter)
    training = Silent(model, maps, labels, torch.full((64,), 1 / 64), config('diffusion', batch_size=4096), 0)
    training.update(torch.Generator().manual_seed(0))
    ratio = model.alphas / (1 - model.alphas)
    expected = (ratio.clamp_max(5) / (ratio + 1)).mean()
    assert losses[0] == pytest.approx(float(expected), rel=0.05)


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_mistakes() -> None:
    maps, labels = borders(12)

    def fit(x: Tensor = maps, y: Tensor | None = labels, count: int = 2, **rest: Any) -> None:
        train_abundances(x, y, count, config('vae'), **rest)

    with pytest.raises(ValueError, match=r'square maps .* found \(12, 3, 8, 6\)'):
        fit(maps[..., :6])
    with pytest.raises(ValueError, match=r'add up to one at each pixel; found a least value of .* sums from 2 to 2'):
        fit(2 * maps / maps.sum(dim=1, keepdim=True))
    with pytest.raises(ValueError, match='1 of 12 maps hold NaN'):
        fit(torch.where(torch.arange(12)[:, None, None, None] == 4, torch.nan, maps))
    with pytest.raises(ValueError, match='labels must be given for num_labels=2'):
        fit(y=None)
    with pytest.raises(ValueError, match='no map has the labels \\[2\\] of 3'):
        fit(count=3)
    with pytest.raises(ValueError, match='labels must lie in \\[0, 1\\)'):
        fit(count=1)
    with pytest.raises(ValueError, match='weights of all maps are 0'):
        fit(weights=torch.zeros(12))
    with pytest.raises(ValueError, match='weights must be \\(12,\\), finite and not negative'):
        fit(weights=torch.ones(5))
    with pytest.raises(ValueError, match="unknown kind 'gan'"):
        AbundanceConfig('gan')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown precision '16'"):
        AbundanceConfig(precision='16')  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='batch_size must be at least 2, found 1'):
        AbundanceConfig(batch_size=1)
    with pytest.raises(ValueError, match=r'learning_rate must be above 0 or None, found 0\.0'):
        AbundanceConfig(learning_rate=0.0)
    with pytest.raises(ValueError, match="unknown field 'depth'; choose from"):
        train_abundances(maps, labels, 2, AbundanceConfig(network={'depth': 2}))
