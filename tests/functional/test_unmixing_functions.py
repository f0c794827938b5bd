from pathlib import Path

import numpy as np
import pytest
from mixtures import WAVELENGTHS, endmembers, maps

from hsiaug.functional.unmixing import band_selection, fcls, pure_means, vca

E = endmembers().double().numpy()


def pixels(abundances: np.ndarray, noise: float = 0.0) -> np.ndarray:
    return abundances @ E + np.random.default_rng(0).normal(0, noise, (len(abundances), E.shape[1]))


def simplex(n: int) -> np.ndarray:
    return np.random.default_rng(1).dirichlet(np.ones(3), n)


def test_vca_finds_pure_pixels_among_mixtures() -> None:
    x = pixels(np.concatenate([simplex(500) * 0.7 + 0.1, np.eye(3)]))
    for seed in range(5):
        found = vca(x, 3, seed)
        assert {tuple(row) for row in found} == {tuple(row) for row in x[-3:]}
    # the same seed, the same pixels; illumination does not hide them
    light = np.random.default_rng(2).uniform(0.3, 1.0, (len(x), 1))
    light[-3:] = 1
    assert {tuple(row) for row in vca(x * light, 3, 0)} == {tuple(row) for row in x[-3:]}


def test_vca_in_strong_noise_and_among_black_pixels() -> None:
    x = pixels(np.concatenate([simplex(2000) * 0.7 + 0.1, np.eye(3)]), noise=40.0)
    angles = [min(np.arccos(e @ f / np.linalg.norm(e) / np.linalg.norm(f)) for f in vca(x, 3, 0)) for e in E]
    assert max(angles) < 0.35
    black = np.concatenate([pixels(np.eye(3)), np.zeros((4, E.shape[1])), pixels(simplex(50))])
    assert np.all(vca(black, 3, 0).sum(axis=1) > 0)


def test_the_best_of_several_draws_leaves_least() -> None:
    # A dark material in noise: in perspective its pixels lie far out by chance.
    x = pixels(np.concatenate([simplex(500), np.eye(3)]))
    x[:300] *= 0.02
    x += np.random.default_rng(3).normal(0, 8.0, x.shape)

    def left(seed: int, draws: int) -> float:
        found = vca(x, 3, seed, draws)
        return float(np.square(fcls(x, found) @ found - x).mean())

    assert max(left(seed, 5) for seed in range(4)) < 0.5 * max(left(seed, 1) for seed in range(4))
    assert np.array_equal(vca(x, 3, 1, 5), vca(x, 3, 1, 5))


def test_pure_pixels_of_any_brightness_give_abundances_of_the_right_size() -> None:
    # A tenth of the pixels is pure, as bright as their slopes: the extreme ones are the brightest.
    abundances = np.concatenate([simplex(900), np.repeat(np.eye(3), 40, axis=0)])
    x = pixels(abundances) * np.random.default_rng(4).uniform(0.6, 1.4, (len(abundances), 1))
    extreme = vca(x, 3, 0, draws=10)
    typical = pure_means(x, extreme)

    def off(found: np.ndarray) -> float:
        order = [int((found @ e / np.linalg.norm(found, axis=1)).argmax()) for e in E]
        return float(np.square(fcls(x, found[order]) - abundances).mean() ** 0.5)

    assert off(typical) < 0.7 * off(extreme)
    single, directions = pure_means(x, extreme, share=1e-6), extreme / np.linalg.norm(extreme, axis=1, keepdims=True)
    np.testing.assert_allclose(single / np.linalg.norm(single, axis=1, keepdims=True), directions, rtol=1e-6)


def test_fcls_recovers_abundances_and_obeys_its_constraints() -> None:
    truth = simplex(200)
    np.testing.assert_allclose(fcls(pixels(truth), E), truth, atol=1e-6)
    noisy = fcls(pixels(truth, noise=100.0), E)
    assert noisy.min() >= 0
    np.testing.assert_allclose(noisy.sum(axis=1), 1)
    assert (noisy == 0).any()


def test_fcls_by_hand() -> None:
    # Of (1, 0) and (0, 1), (3, 1) is nearest to the first alone, (0.5, 0.3) to the foot of its perpendicular.
    found = fcls(np.array([[3.0, 1.0], [0.5, 0.3], [0.0, 0.0]]), np.eye(2))
    np.testing.assert_allclose(found, [[1, 0], [0.6, 0.4], [0.5, 0.5]], atol=1e-5)


def test_samson_is_unmixed(real_data: Path) -> None:
    with np.load(real_data / 'samson' / 'samson.npz', allow_pickle=False) as file:
        x = file['cube'].reshape(-1, file['cube'].shape[2]) * float(file['scale'])
        truth, reference = file['abundance'].reshape(len(x), -1), file['endmembers'].T
    np.testing.assert_allclose(fcls(x[::7], reference), truth[::7], atol=1e-4)  # how the reference was made
    found = vca(x, 3, 0, draws=10)
    cosine = found @ reference.T / np.linalg.norm(found, axis=1)[:, None] / np.linalg.norm(reference, axis=1)
    assert sorted(cosine.argmax(axis=1).tolist()) == [0, 1, 2]
    assert np.degrees(np.arccos(cosine.max(axis=1))).max() < 15


def test_bands_nearest_to_red_green_and_blue() -> None:
    weights = band_selection(len(WAVELENGTHS), WAVELENGTHS)
    chosen = weights @ np.array(WAVELENGTHS)
    assert np.abs(chosen - [640, 550, 460]).max() <= 10
    assert np.array_equal(weights.sum(axis=1), np.ones(3))
    other = band_selection(len(WAVELENGTHS), WAVELENGTHS, centres=(860, 650, 550)) @ np.array(WAVELENGTHS)
    assert np.abs(other - [860, 650, 550]).max() <= 10


def test_a_sensors_response_weighs_bands() -> None:
    response = np.zeros((3, 6))
    response[0, 4:], response[1, 2:4], response[2, :2] = 2.0, (1.0, 3.0), 1.0
    image = np.arange(6.0)
    assert (band_selection(6, response=response) @ image).tolist() == [4.5, 2.75, 0.5]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r'wavelengths of the 24 bands are unknown.*SampleSpec.*response.*inputs='):
        band_selection(24)
    with pytest.raises(ValueError, match=r'nearest to .* are at .*are the wavelengths in nm'):
        band_selection(24, np.linspace(1000, 2400, 24).tolist())
    with pytest.raises(ValueError, match='24 wavelengths and 3 centres'):
        band_selection(24, WAVELENGTHS[:5])
    with pytest.raises(ValueError, match=r'response must be \(3, 6\)'):
        band_selection(6, response=np.ones((2, 6)))
    with pytest.raises(ValueError, match='row of the response is zero'):
        band_selection(6, response=np.eye(3, 6) * [[1], [0], [1]])
    with pytest.raises(ValueError, match='4 endmembers, but 100 spectra of 24 bands have rank 3'):
        vca(pixels(simplex(100)).astype(np.float32), 4)
    with pytest.raises(ValueError, match='at least 2 endmembers'):
        vca(pixels(simplex(100)), 1)
    with pytest.raises(ValueError, match='of one C are needed'):
        fcls(np.zeros((4, 3)), E)


def test_maps_of_the_tests_are_mixtures() -> None:
    abundances = maps(3, 0)
    assert float((abundances.sum(dim=1) - 1).abs().max()) < 1e-5
    assert (abundances.amax(dim=(0, 2, 3)) > 0.99).all()
