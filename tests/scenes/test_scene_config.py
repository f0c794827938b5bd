"""What a config says of a scene beyond its files."""

from pathlib import Path

import numpy as np
import pytest

from hsiaug.scenes import PatchSplitter
from hsiaug.scenes.config import SceneConfig
from hsiaug.trainers import fit_generator, training_data


@pytest.fixture
def file(tmp_path: Path) -> str:
    np.save(tmp_path / 'cube.npy', np.random.default_rng(0).random((40, 40, 9), dtype=np.float32))
    return str(tmp_path / 'cube.npy')


def test_a_range_of_bands(file: str) -> None:
    centres = tuple(np.linspace(300, 1100, 9))
    scene = SceneConfig(file, wavelengths=centres, range_nm=(400, 700), one_class=True)()
    assert scene.band_wavelengths.tolist() == [400, 500, 600, 700]
    assert SceneConfig(file, wavelengths=centres, range_nm=(400, 700), bands=(0, 2, 7))().bands.tolist() == [2]
    with pytest.raises(ValueError, match=r'no band of cube lies in range_nm \(1, 2\); they lie from 300 to 1100 nm'):
        SceneConfig(file, wavelengths=centres, range_nm=(1, 2))()
    with pytest.raises(ValueError, match='needs wavelengths, and those of cube are unknown'):
        SceneConfig(file, range_nm=(400, 700))()


def test_a_scene_without_labels_is_learnt_from(file: str) -> None:
    with pytest.raises(ValueError, match='a split needs labels'):
        PatchSplitter(size=8)(SceneConfig(file)())
    scene = SceneConfig(file, one_class=True)()
    data = training_data(scene, PatchSplitter(size=8)(scene))
    assert data.spec.classes == ('unlabelled',)
    generator = fit_generator('msrresgan', data, {'network': 'bicubic'})
    assert generator.sample(2, seed=0)['image'].shape == (2, 9, 8, 8)
