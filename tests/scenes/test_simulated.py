import numpy as np
import pytest
from sklearn.svm import SVC

from hsiaug.scenes import RandomSplit, SimulatedScene
from hsiaug.scenes.simulated import MATERIALS


@pytest.mark.parametrize('seed', range(3))
def test_linear_svm_finds_it_neither_trivial_nor_hopeless(seed: int) -> None:
    scene = SimulatedScene(seed=seed)
    split = RandomSplit(fraction=0.03, on_rare='drop')(scene, seed)
    labels, train = scene.flat_labels(), np.concatenate([split.train, split.val])
    x = scene.spectra(train)
    scaled = [(scene.spectra(p) - x.mean(axis=0)) / x.std(axis=0) for p in (train, split.test[::2])]
    for c in (1, 100):
        accuracy = SVC(C=c, kernel='linear').fit(scaled[0], labels[train]).score(scaled[1], labels[split.test[::2]])
        assert 0.80 < accuracy < 0.95, c


def test_same_seed_same_scene_any_size_and_grid() -> None:
    first, again, other = (SimulatedScene(20, 30, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.cube, again.cube)
    assert not np.array_equal(first.cube, other.cube)
    assert first.cube.shape == (20, 30, 100)
    assert SimulatedScene(16, 16, wavelengths=np.arange(450, 900, 10.0)).num_bands == 45


def test_a_band_looks_the_same_on_any_grid() -> None:
    coarse, fine = (
        SimulatedScene(16, 16, wavelengths=w, noise=0) for w in (np.arange(500, 900, 100), np.arange(400, 900, 50))
    )
    assert np.allclose(coarse.cube, fine.cube[:, :, 2::2], atol=1e-6)


def test_noise_is_strongest_where_water_vapour_absorbs() -> None:
    w = np.array([800.0, 1390.0])
    noisy, clean = (SimulatedScene(64, 64, wavelengths=w, noise=n).cube for n in (0.01, 0))
    assert (noisy - clean).std(axis=(0, 1)) == pytest.approx([0.01, 0.05], rel=0.05)


def test_abundances_and_labels_agree() -> None:
    scene = SimulatedScene(40, 40)
    assert np.allclose(scene.abundance.sum(axis=2), 1, atol=1e-6)
    assert np.array_equal(scene.labels, scene.abundance.argmax(axis=2) + 1)
    assert (scene.abundance.max(axis=2) < 0.9).mean() > 0.05  # borders are mixed


def value(material: str, nm: float) -> float:
    return float(MATERIALS[material](np.array([nm]), np.zeros((1, 4)))[0, 0])


def test_spectra_have_the_features_of_their_materials() -> None:
    for plant in ('grass', 'trees'):
        assert value(plant, 860) > 5 * value(plant, 670)  # red edge
        assert value(plant, 550) > value(plant, 670)  # green peak
        assert value(plant, 1450) < 0.7 * value(plant, 1270)  # leaf water
    assert value('clay soil', 2205) < 0.95 * (value('clay soil', 2120) + value('clay soil', 2300)) / 2
    assert value('water', 1600) < 0.02 < value('water', 550)
    for material, spectrum in ((m, f(np.linspace(400, 2500, 200), np.zeros((1, 4)))) for m, f in MATERIALS.items()):
        assert spectrum.min() > 0, material
        assert spectrum.max() < 0.8, material


def test_two_dates_change_where_the_mask_says() -> None:
    scene = SimulatedScene(64, 64, dates=2, change=0.05)
    assert scene.second_date is not None
    assert scene.change is not None
    assert 0.02 < scene.change.mean() < 0.06
    unit = [c / np.linalg.norm(c, axis=2, keepdims=True) for c in (scene.cube, scene.second_date)]
    angle = np.arccos(np.clip((unit[0] * unit[1]).sum(axis=2), -1, 1))
    assert np.median(angle[scene.change == 1]) > 2 * np.median(angle[scene.change == 0])
    assert np.median(angle[scene.change == 0]) > 0.01  # season and light change everything a little


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match='SimulatedScene: unknown dates 3; choose from'):
        SimulatedScene(dates=3)
    with pytest.raises(ValueError, match='micrometres times 1000'):
        SimulatedScene(wavelengths=np.linspace(0.4, 2.5, 10))
    with pytest.raises(ValueError, match='SimulatedScene: classes must be in'):
        SimulatedScene(classes=12)
    assert SimulatedScene(8, 8, wavelengths=range(400, 900, 100)).num_bands == 5
    with pytest.raises(ValueError, match='SimulatedScene: height must be at least 4'):
        SimulatedScene(height=3)
    with pytest.raises(ValueError, match='SimulatedScene: width must be a whole number'):
        SimulatedScene(width='96')
