from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from hsiaug.functional.scaling import BandScaler, band_scale, band_weight
from hsiaug.models import NN1D, SpectralScaler
from hsiaug.models.nn1d import SCALINGS
from hsiaug.models.patch_encoder import PatchEncoder

LEVELS = torch.tensor([0.3, 0.3, 0.4, 0.02, 0.35, 0.3])
STDS = torch.tensor([0.05, 0.06, 0.05, 0.002, 0.07, 0.05])  # the fourth band is dark, not dead


def test_bands_that_vary_keep_their_standard_deviation_to_the_bit() -> None:
    for unit in (1.0, 1e4, 1e-6):
        assert torch.equal(band_scale(unit * LEVELS, unit * STDS), unit * STDS)
    centred = torch.zeros(6)
    assert torch.equal(band_scale(centred, STDS), STDS)
    kelvin = torch.tensor([300.0, 0.3, 0.4, 0.2])  # a thermal band beside reflectances
    assert torch.equal(band_scale(kelvin, torch.tensor([2.0, 0.1, 0.1, 0.05])), torch.tensor([2.0, 0.1, 0.1, 0.05]))


@pytest.mark.parametrize('unit', [1.0, 1e4, 1e-6])
@pytest.mark.parametrize('spread', [0.0, 1e-9, 1e-6, 1e-4, 1e-3])
def test_a_dead_band_takes_the_scale_of_the_others(spread: float, unit: float) -> None:
    std = STDS.clone()
    std[1] = spread
    found = band_scale(unit * LEVELS, unit * std) / unit
    assert torch.equal(found[[0, 2, 3, 4, 5]], (unit * std)[[0, 2, 3, 4, 5]] / unit)
    assert 0.05 <= float(found[1]) <= 0.1
    weights = band_weight(unit * LEVELS, unit * std)
    assert torch.equal(weights, torch.where(torch.arange(6) == 1, 0.0, 1 / (unit * std)))


def test_a_saturated_band_takes_the_relative_spread_of_the_others() -> None:
    level, std = torch.tensor([1000.0, 1000.0, 1000.0, 65535.0]), torch.tensor([200.0, 200.0, 200.0, 0.0])
    assert float(band_scale(level, std)[3]) == pytest.approx(0.2 * 65535, rel=0.05)


@pytest.mark.parametrize(
    ('level', 'std', 'scale'),
    [
        ([0.3], [0.0], [0.3]),
        ([0.3], [1e-6], [0.3]),
        ([0.0], [0.0], [1.0]),
        ([0.3], [0.05], [0.05]),
        ([-4.0, 0.0], [0.0, 0.0], [4.0, 1.0]),
        ([3.0, 3.0, 3.0, 3.0, 3.0], [0.5, 0.0, 0.0, 0.0, 0.0], [0.5] * 5),  # dead bands may be most of them
    ],
)
def test_few_bands(level: list[float], std: list[float], scale: list[float]) -> None:
    assert band_scale(torch.tensor(level), torch.tensor(std)).tolist() == pytest.approx(scale)


def stripe(spread: float, n: int = 200) -> tuple[Tensor, Tensor]:
    """(n, 6) training spectra whose second band hardly varies, and unseen ones where it varies as the others."""
    rng = torch.Generator().manual_seed(0)
    train, unseen = (LEVELS + STDS * torch.randn((n, 6), generator=rng) for _ in range(2))
    train[:, 1] = 0.3 + spread * torch.randn(n, generator=rng)
    return train, unseen


@pytest.mark.parametrize('spread', [0.0, 1e-6, 1e-5, 1e-4, 1e-3])
def test_unseen_spread_does_not_grow_in_any_scaler(spread: float) -> None:
    train, unseen = stripe(spread)
    for kind in SCALINGS:
        assert float(SpectralScaler(6, kind).fit(train)(unseen).abs().max()) < 5
    encoder = PatchEncoder(6, 2).fit_scale(train.T.reshape(1, 6, 10, 20))
    assert float(((unseen - encoder.offset) * encoder.scale).abs().max()) < 5
    assert np.abs(BandScaler().fit(train.numpy()).transform(unseen.numpy())).max() < 5


def correlated(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(n, 4) bands that brightness makes nearly equal, and (n,) classes that differ in the third by little."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 2
    x = 1 + torch.randn((n, 1), generator=rng) + 0.005 * torch.randn((n, 4), generator=rng)
    return x + 0.03 * label[:, None] * torch.tensor([0.0, 0, 1, 0]), label


def test_decorrelation_is_the_quarter_root_of_the_covariance_within_classes() -> None:
    x, label = correlated(100_000, 0)
    scaler = SpectralScaler(4, 'decorrelated').fit(x, label)
    standard = SpectralScaler(4).fit(x)(x).double()
    within = torch.cat([part - part.mean(dim=0) for part in (standard[label == 0], standard[label == 1])])
    fourth = torch.linalg.matrix_power(scaler.mix.double().inverse(), 4)
    wanted = within.T @ within / len(x)
    assert torch.allclose(fourth / fourth.trace(), wanted / wanted.trace(), atol=1e-4)
    assert float(scaler(x).std()) == pytest.approx(1, abs=0.01)
    apart = x + 0.1 * label[:, None] * torch.tensor([1.0, -1, 0, 0])
    moved, together = (SpectralScaler(4, 'decorrelated').fit(apart, y).mix for y in (label, None))
    assert torch.allclose(moved / moved[0, 0], scaler.mix / scaler.mix[0, 0], atol=0.02)  # how far classes are apart
    assert not torch.allclose(together / together[0, 0], scaler.mix / scaler.mix[0, 0], atol=0.1)


@pytest.mark.parametrize('x', [torch.rand(3, 4), torch.ones(3, 4), torch.rand(3, 1).expand(3, 4), torch.rand(1, 4)])
def test_a_spectrum_of_each_class_is_no_reason_to_fail(x: Tensor) -> None:
    scaler = SpectralScaler(4, 'decorrelated').fit(x, torch.arange(len(x)))
    assert bool(scaler(torch.rand(2, 4)).isfinite().all())


def test_what_is_decorrelated_is_learnt_sooner() -> None:
    (x, label), (unseen, wanted) = correlated(60, 1), correlated(400, 2)
    right = {}
    for kind in ('standard', 'decorrelated'):
        torch.manual_seed(0)
        network = NN1D(4, 2, hidden=16, layers=2, scaling=kind)
        network.scaler.fit(x, label)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(60):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(x), label).backward()
            optimiser.step()
        right[kind] = float((network(unseen).argmax(dim=1) == wanted).float().mean())
    assert right['decorrelated'] > 0.85
    assert right['standard'] < right['decorrelated'] - 0.1


def test_scikit_learns_scaler_is_the_same_where_no_band_is_dead() -> None:
    _, x = stripe(0.0)
    assert np.array_equal(BandScaler().fit_transform(x.numpy()), StandardScaler().fit_transform(x.numpy()))


def test_no_band_of_real_scenes_is_taken_for_dead(real_data: Path) -> None:
    seen = 0
    for file in sorted(real_data.glob('*/*.npz')):
        with np.load(file) as arrays:
            names = {'cube', 'tiles', 'images', 't1_60m', 't1_20m'} & set(arrays.files)
            cubes = [arrays[name] for name in sorted(names) if arrays[name].ndim > 2]
        for cube in cubes:
            x = torch.from_numpy(cube.reshape(-1, cube.shape[-1])[:40_000].astype(np.float32))
            x = x[:, ~(x == x[0]).all(dim=0)]  # nodata everywhere
            few = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:30]
            for part in (x, x[: len(x) // 2], x[-len(x) // 16 :], x[few]):
                std, mean = torch.std_mean(part, dim=0, correction=0)
                assert torch.equal(band_scale(mean, std), std), file
            seen += 1
    assert seen >= 25
