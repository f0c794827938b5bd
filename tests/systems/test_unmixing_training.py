import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from mixtures import BANDS, UNIT, WAVELENGTHS, endmembers, maps, mixtures

from hsiaug.metrics.unmixing import match_endmembers, unmixing_scores
from hsiaug.systems.unmixing_fusion.unmixing.network import UnmixingNetwork
from hsiaug.systems.unmixing_fusion.unmixing.train import (
    UnmixingConfig,
    UnmixingTraining,
    abundances_from_rgb,
    train_unmixing,
    warn_of_collapse,
)

DATA, ABUNDANCES = mixtures(24).x, maps(24, 0)
pytestmark = pytest.mark.filterwarnings('ignore:the abundances are the same')  # after a few steps they are

SMALL = UnmixingConfig.small(endmembers=3, widths=(8, 8, 12, 8, 8), steps=150, learning_rate=2e-2)
TINY = replace(SMALL, steps=8)


@pytest.fixture(scope='module')
def trained() -> UnmixingNetwork:
    return train_unmixing(DATA, WAVELENGTHS, SMALL)


def flat(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1).flatten(0, 2)


def test_published_setting_is_the_default() -> None:
    config = UnmixingConfig()
    assert (config.learning_rate, config.epochs, config.sad_weight, config.tv_weight) == (1e-4, 40, 0.1, 1e-3)
    network = UnmixingNetwork(torch.eye(3, BANDS), 3, (4, 4, 4, 4, 4))
    assert UnmixingTraining(network, DATA, replace(config, batch_size=10), 0).steps == 40 * 3


def test_three_bands_tell_the_materials(trained: UnmixingNetwork) -> None:
    scores = unmixing_scores(flat(trained.abundances(DATA)), trained.endmembers, flat(ABUNDANCES), endmembers())
    assert scores.abundance_rmse < 0.08  # equal abundances everywhere would give 0.38
    assert scores.endmember_angle < 0.05
    unseen, held_out = mixtures(10, seed=7).x, maps(10, 7)
    other = unmixing_scores(flat(trained.abundances(unseen)), trained.endmembers, flat(held_out), endmembers())
    assert other.abundance_rmse < 0.1
    error = trained(unseen)[1].detach() - unseen
    assert float(error.square().mean().sqrt()) < 0.05 * UNIT


def test_endmembers_start_at_pixels_of_typical_brightness() -> None:
    dim = DATA.clone()
    dim[:, :, ::2] *= 0.5  # every other row lies in the shade
    extreme, typical = (
        train_unmixing(dim, WAVELENGTHS, replace(TINY, start=start, endmember_rate=1e-9)).endmembers.norm(dim=1)
        for start in ('vca', 'pure')
    )
    assert typical.mean() < 0.85 * extreme.mean()
    assert (UnmixingConfig().start, UnmixingConfig.small().start) == ('vca', 'pure')


def test_endmembers_are_not_negative(trained: UnmixingNetwork) -> None:
    assert (trained.endmembers >= 0).all()
    dark = DATA.clone()
    dark[:, 3] = 0
    assert (train_unmixing(dark, WAVELENGTHS, TINY).endmembers >= 0).all()


def test_all_bands_and_clusters() -> None:
    network = train_unmixing(DATA, None, replace(SMALL, inputs='all', start='kmeans', steps=80))
    assert len(network.selection) == BANDS
    scores = unmixing_scores(
        flat(network.abundances(DATA)), network.endmembers.detach(), flat(ABUNDANCES), endmembers()
    )
    assert scores.abundance_rmse < 0.2


def test_abundances_of_rgb_images(trained: UnmixingNetwork) -> None:
    bands = trained.select(DATA)
    inside = trained.abundances(DATA)
    # A camera: its own exposure per colour, gamma, and 8 bits.
    camera = bands / bands.amax(dim=(0, 2, 3), keepdim=True)
    gamma = camera ** (1 / 2.2)
    counts = (255 * gamma).round().to(torch.uint8)
    errors = {
        matching: float((abundances_from_rgb(trained, counts, matching) - inside).abs().mean())  # type: ignore[arg-type]
        for matching in ('none', 'moments', 'quantiles')
    }
    assert errors['quantiles'] < 0.02  # a monotonic change is undone
    assert errors['quantiles'] < errors['moments'] < errors['none']
    linear = abundances_from_rgb(trained, camera, 'moments')
    assert float((linear - inside).abs().max()) < 1e-3
    exact = (bands / trained.scale).clamp(0, 1)
    assert float((abundances_from_rgb(trained, exact, 'none') - inside).abs().mean()) < 1e-3


def test_matching_is_over_all_images(trained: UnmixingNetwork) -> None:
    dark = abundances_from_rgb(trained, torch.stack([torch.full((3, 8, 8), 0.1), torch.rand(3, 8, 8)]))
    assert not torch.allclose(dark[0].mean(dim=(1, 2)), dark[1].mean(dim=(1, 2)), atol=0.05)


def test_collapse_is_reported() -> None:
    # A rate far too high drives the softmax into saturation.
    with pytest.warns(UserWarning, match='collapsed onto endmember .*; start from other endmembers'):
        warn_of_collapse(torch.tensor([0.98, 0.01, 0.01])[None, :, None, None].expand(2, 3, 4, 4))
    flat_maps = torch.full((2, 3, 4, 4), 1 / 3)
    with pytest.warns(UserWarning, match='the same everywhere'):
        warn_of_collapse(flat_maps)
    with pytest.warns(UserWarning, match='collapsed|the same everywhere'):
        train_unmixing(DATA, WAVELENGTHS, replace(TINY, learning_rate=1e-9, start='kmeans'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_of_collapse(ABUNDANCES)


def test_black_pixels_are_no_obstacle() -> None:
    dark = DATA.clone()
    dark[:, :, :4] = 0
    network = train_unmixing(dark, WAVELENGTHS, TINY)
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert match_endmembers(network.endmembers, endmembers()) is not None


def test_mistakes_in_data(trained: UnmixingNetwork) -> None:
    with pytest.raises(ValueError, match='wavelengths of the 24 bands are unknown'):
        train_unmixing(DATA, None, TINY)
    exact = torch.einsum('kc,nkhw->nchw', endmembers(), ABUNDANCES)
    with pytest.raises(ValueError, match=r'train_unmixing: 6 endmembers, but .* have rank 3'):
        train_unmixing(exact, WAVELENGTHS, replace(TINY, endmembers=6))
    holed = DATA.clone()
    holed[2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='1 of 24 images hold NaN'):
        train_unmixing(holed, WAVELENGTHS, TINY)
    with pytest.raises(ValueError, match='no value is above 0'):
        train_unmixing(torch.zeros_like(DATA), WAVELENGTHS, TINY)
    with pytest.raises(ValueError, match=r'images \(N, C, H, W\)'):
        train_unmixing(DATA[0], WAVELENGTHS, TINY)
    for bad, error, message in (
        (torch.zeros(1, 3, 8, 8, dtype=torch.int16), TypeError, 'uint8 tensor, or floating point.*int16'),
        (torch.full((1, 3, 8, 8), 200.0), ValueError, 'found 200 to 200; divide'),
        (torch.full((1, 3, 8, 8), -0.1), ValueError, 'must lie from 0 to 1'),
        (torch.full((1, 3, 8, 8), torch.nan), ValueError, 'must lie from 0 to 1'),
        (torch.zeros(1, 8, 8, 3), ValueError, 'colours before rows'),
        ([[0, 1]], TypeError, 'found list'),
    ):
        with pytest.raises(error, match=message):
            abundances_from_rgb(trained, bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown matching 'gamma'"):
        abundances_from_rgb(trained, torch.rand(1, 3, 8, 8), 'gamma')  # type: ignore[arg-type]
    wide = UnmixingNetwork(torch.eye(BANDS), 3, (4, 4, 4, 4, 4))
    with pytest.raises(ValueError, match="takes 24 bands; train it with inputs='rgb'"):
        abundances_from_rgb(wide, torch.rand(1, 3, 8, 8))


def test_a_sensors_response_stands_for_wavelengths() -> None:
    response = torch.eye(3, BANDS).numpy()
    config = replace(TINY, response=response, widths=list(TINY.widths))  # type: ignore[arg-type]
    assert config.widths == TINY.widths
    network = train_unmixing(DATA, None, config)
    assert torch.equal(network.select(DATA), DATA[:, :3])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'inputs': 'ms'}, "unknown inputs 'ms'"),
        ({'start': 'random'}, "unknown start 'random'"),
        ({'endmembers': 1}, 'endmembers must be at least 2'),
        ({'learning_rate': 0}, 'learning_rate must be above 0'),
        ({'tv_weight': -1}, 'tv_weight must be at least 0'),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UnmixingConfig(**changes)
