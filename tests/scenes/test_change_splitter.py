"""Windows of pairs of dates balanced by a splitter, and scenes of two dates from a config."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsiaug.scenes import BitemporalScene, ChangeSplitter, PatchSplitter, SimulatedScene, make_splitter
from hsiaug.scenes.config import SceneConfig
from hsiaug.systems.fit import training_data

FOLLOWS = {'height': 48, 'width': 64, 'classes': 3, 'dates': 2, 'change': 0.02, 'seed': 3}


@pytest.fixture(scope='module')
def scene() -> BitemporalScene:
    return BitemporalScene.from_simulated(SimulatedScene(**FOLLOWS))


def test_a_splitter_balances_what_it_trains_on(scene: BitemporalScene) -> None:
    plain = PatchSplitter(size=8, stride=4, regions='halves')
    found = ChangeSplitter(size=8, stride=4, regions='halves', max_train=12, change_share=0.5, min_change=0)(scene, 1)
    expected = plain(scene, 1)
    for part in ('val', 'test'):
        np.testing.assert_array_equal(found.windows(part), expected.windows(part))  # type: ignore[arg-type]
    assert len(found.train) == 12
    labels = scene.flat_labels().reshape(scene.shape)
    held = [(labels[row : row + 8, column : column + 8] == 2).any() for row, column in found.train]
    assert sum(held) == 6
    assert (found.strategy['name'], found.strategy['max_train'], found.strategy['change_share']) == (
        'ChangeSplitter', 12, 0.5,
    )  # fmt: skip
    assert any('balance' in words for words in found.dropped)


def test_windows_that_balance_leaves_out_are_unlabelled(scene: BitemporalScene) -> None:
    plain = ChangeSplitter(size=8, stride=4, regions='halves', max_train=12, min_change=0)
    found = replace(plain, max_unlabelled=10**6)(scene, 1)
    assert found.fingerprint == plain(scene, 1).fingerprint
    every = PatchSplitter(size=8, stride=4, regions='halves')(scene, 1).train
    both = np.concatenate([found.train, found.unlabelled])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(every, axis=0))
    assert len(both) == len(every)
    data = training_data(scene, found)
    assert data.unlabelled.shape == (len(found.unlabelled), *data.x.shape[1:])
    row, column = found.unlabelled[3]
    first = scene.cube[row : row + 8, column : column + 8, : data.spec.bands]
    np.testing.assert_allclose(data.unlabelled[3, 0].movedim(0, -1).numpy(), first, rtol=1e-6)


def test_a_splitter_is_found_by_its_name(scene: BitemporalScene) -> None:
    splitter = make_splitter('change_patches', size=8, change_share=0.25)
    assert splitter == ChangeSplitter(size=8, change_share=0.25)
    assert splitter(scene, 0).fingerprint != PatchSplitter(size=8)(scene, 0).fingerprint
    with pytest.raises(TypeError, match="scene 'simulated' has one date; use PatchSplitter"):
        splitter(SimulatedScene(32, 32, classes=3), 0)
    with pytest.raises(ValueError, match=r'change_share must be in \(0, 1\], found 0'):
        ChangeSplitter(size=8, change_share=0)(scene, 0)


def test_two_simulated_dates_from_a_config(scene: BitemporalScene) -> None:
    opened = SceneConfig(simulated=FOLLOWS)
    assert opened.dates == 2
    assert opened().fingerprint == scene.fingerprint
    one = SceneConfig(simulated={**FOLLOWS, 'dates': 1})
    assert one.dates == 1
    assert not isinstance(one(), BitemporalScene)


def test_two_files_from_a_config(scene: BitemporalScene, tmp_path: Path) -> None:
    half = scene.cube.shape[2] // 2
    change = scene.flat_labels().reshape(scene.shape).astype(np.uint8) - 1
    change[0, :5] = 255
    for name, array in (('first', scene.cube[..., :half]), ('second', scene.cube[..., half:]), ('mask', change)):
        np.save(tmp_path / f'{name}.npy', array)
    config = SceneConfig(
        path=str(tmp_path / 'first.npy'),
        second=str(tmp_path / 'second.npy'),
        labels=str(tmp_path / 'mask.npy'),
        name='place',
    )
    opened = config()
    assert config.dates == 2
    assert isinstance(opened, BitemporalScene)
    assert opened.name == 'place'
    np.testing.assert_array_equal(opened.cube, scene.cube)
    labels = scene.flat_labels().reshape(scene.shape).copy()
    labels[0, :5] = 0
    np.testing.assert_array_equal(opened.flat_labels().reshape(scene.shape), labels)
    with pytest.raises(ValueError, match='give the file of their change mask as labels'):
        replace(config, labels=None)()
    with pytest.raises(ValueError, match='give that of the first as path'):
        SceneConfig(second=config.second)()
    np.save(tmp_path / 'second.npy', scene.cube[:40, :, half:])
    with pytest.raises(ValueError, match='crop_to_common'):
        config()
