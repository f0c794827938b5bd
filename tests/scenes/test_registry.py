from pathlib import Path

import numpy as np
import pytest
import scipy.io
from torchgeo.datasets import DatasetNotFoundError

from hsiaug.scenes import BENCHMARK_SCENES, BadBandsError, open_benchmark_scene

RNG = np.random.default_rng(0)


def write_pavia(folder: Path, bands: int = 103) -> np.ndarray:
    facts = BENCHMARK_SCENES['pavia_university']
    cube = RNG.random((4, 4, bands))
    scipy.io.savemat(folder / facts.cube_file, {facts.cube_key: cube})
    scipy.io.savemat(folder / facts.labels_file, {facts.labels_key: np.arange(16).reshape(4, 4) % 10})
    return cube


def test_names_what_is_missing_and_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r'PaviaU.mat and PaviaU_gt.mat not found.*Download from https') as e:
        open_benchmark_scene('pavia_university', tmp_path)
    assert str(tmp_path) in str(e.value)
    write_pavia(tmp_path)
    (tmp_path / 'PaviaU_gt.mat').unlink()
    with pytest.raises(DatasetNotFoundError, match=r'Pavia University: PaviaU_gt.mat not found'):
        open_benchmark_scene('pavia_university', tmp_path)
    with pytest.raises(ValueError, match='unknown benchmark scene'):
        open_benchmark_scene('pavia', tmp_path)


def test_scene_has_what_the_registry_says(tmp_path: Path) -> None:
    cube = write_pavia(tmp_path)
    scene = open_benchmark_scene('pavia_university', tmp_path)
    assert np.array_equal(scene.cube, cube)
    assert scene.spec().classes[:2] == ('asphalt', 'meadows')
    assert scene.spec().classes[-1] == 'shadows'
    assert scene.spec().wavelengths_approximate
    write_pavia(tmp_path, bands=50)
    with pytest.raises(ValueError, match='50 bands, the public file has 103'):
        open_benchmark_scene('pavia_university', tmp_path)


def test_bad_bands_are_dropped_only_if_asked(tmp_path: Path) -> None:
    cube = write_pavia(tmp_path)
    cube[:, :, 7] = 3
    scipy.io.savemat(tmp_path / 'PaviaU.mat', {'paviaU': cube})
    with pytest.raises(BadBandsError, match=r'7 \(constant 3\)'):
        open_benchmark_scene('pavia_university', tmp_path)
    scene = open_benchmark_scene('pavia_university', tmp_path, on_bad_bands='drop')
    assert scene.num_bands == 102
    assert len(scene.spec().wavelengths or ()) == 102


@pytest.mark.parametrize('name', BENCHMARK_SCENES)
def test_wavelengths_fit_the_bands(name: str) -> None:
    facts = BENCHMARK_SCENES[name]
    assert facts.wavelengths.shape == (facts.bands,)
    assert (np.diff(facts.wavelengths) > 0).all()


def test_removed_bands_leave_their_gap() -> None:
    # Botswana keeps Hyperion's bands 10-55, 82-97, 102-119, 134-164 and 187-220; the sensor's table has their centres.
    centres = BENCHMARK_SCENES['botswana'].wavelengths
    kept = [*range(10, 56), *range(82, 98), *range(102, 120), *range(134, 165), *range(187, 221)]
    assert len(kept) == len(centres)
    table = {10: 447.17, 55: 905.05, 82: 962.91, 187: 2022.25}
    assert [centres[kept.index(band)] for band in table] == pytest.approx(list(table.values()), abs=0.5)


def test_class_counts() -> None:
    assert {name: len(facts.classes) for name, facts in BENCHMARK_SCENES.items()} == {
        'indian_pines': 16,
        'pavia_university': 9,
        'pavia_centre': 9,
        'salinas': 16,
        'salinas_a': 16,
        'botswana': 14,
        'ksc': 13,
    }


@pytest.mark.parametrize('feature', [762, 940, 1130])
def test_absorptions_of_air_lie_where_they_belong(real_data: Path, feature: int) -> None:
    with np.load(real_data / 'salinas_a' / 'salinas_a.npz', allow_pickle=False) as data:
        mean = data['cube'].reshape(-1, 204).mean(axis=0)
    w = BENCHMARK_SCENES['salinas_a'].wavelengths
    near = np.flatnonzero(np.abs(w - feature) < 50)
    continuum = np.interp(w[near], w[near[[0, -1]]], mean[near[[0, -1]]])
    assert w[near[np.argmin(mean[near] / continuum)]] == pytest.approx(feature, abs=10)
