"""Fingerprint and content of a scene are of values, not of how a file stores them."""

import copy
import hashlib
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from hsiaug import __version__
from hsiaug.samples import LeakageError, Provenance, require_unseen
from hsiaug.scenes import RandomSplit, Scene
from hsiaug.seen import Footprint, SceneFingerprint, same_scene

CUBE = np.random.default_rng(0).integers(0, 9000, (12, 10, 7)).astype(np.uint16)
LABELS = np.arange(120).reshape(12, 10) % 3
STORED = ('<u2', '>u2', '<i4', '>i8', '<f4', '>f4', '<f8', '>f8')


def scene(cube: np.ndarray = CUBE, labels: np.ndarray = LABELS, **fields: object) -> Scene:
    return Scene('s', cube, labels, **fields)  # type: ignore[arg-type]


def former_fingerprint(cube: np.ndarray) -> str:
    """As version 0.1.0 computed it: the dtype of the file counted."""
    digest = hashlib.sha256(repr((cube.shape, str(cube.dtype))).encode())
    digest.update(np.ascontiguousarray(cube.reshape(-1, cube.shape[2])).tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize('dtype', STORED)
def test_the_same_values_in_another_dtype_or_byte_order_are_the_same_scene(dtype: str) -> None:
    other = scene(np.asfortranarray(CUBE.astype(dtype)), LABELS.astype(dtype))
    assert other.fingerprint == scene().fingerprint
    assert other.content == scene().content
    split = RandomSplit(fraction=0.3)(scene(), 0)
    assert RandomSplit(fraction=0.3)(other, 0).fingerprint == split.fingerprint


def test_nan_and_zero_have_one_value_whatever_their_bits() -> None:
    cube = CUBE.astype(np.float32)
    cube[0, 0] = np.nan
    cube[1, 1] = 0.0
    other = cube.copy()
    other.view(np.uint32)[0, 0] = 0xFFC00001
    other[1, 1] = -0.0
    assert scene(other).fingerprint == scene(cube).fingerprint == scene(cube.astype(np.float64)).fingerprint
    assert scene(other).content == scene(cube).content


def test_other_values_are_another_scene() -> None:
    cube = CUBE.copy()
    cube[3, 4, 5] += 1
    assert scene(cube).fingerprint != scene().fingerprint
    assert scene(cube).fingerprint != scene(CUBE[:, ::-1]).fingerprint


@pytest.mark.parametrize('written', STORED)
@pytest.mark.parametrize('read', ['<u2', '>f4', '<f8'])
def test_generators_of_older_versions_are_recognised(written: str, read: str) -> None:
    """Their provenance holds the fingerprint of the file that they were trained on."""
    former = former_fingerprint(CUBE.astype(written))
    seen = Footprint.of(former, 120, np.arange(30))
    old = Provenance.from_dict(json.loads(json.dumps(Provenance(__version__, 0, {}, 'x', seen).to_dict())))
    split = RandomSplit(fraction=0.3)(scene(CUBE.astype(read)), 0)
    with pytest.raises(LeakageError, match='evaluation pixels'):
        require_unseen(old, split.scene, split.test)
    other = RandomSplit(fraction=0.3)(scene(CUBE[::-1]), 0)
    require_unseen(old, other.scene, other.test)


def test_a_fingerprint_remembers_through_copies() -> None:
    mine = scene().fingerprint
    for again in (
        copy.deepcopy(mine),
        pickle.loads(pickle.dumps(mine)),
        replace(Footprint('', 1, ''), scene=mine).scene,
    ):
        assert isinstance(again, SceneFingerprint)
        assert again.former == mine.former
    assert json.loads(json.dumps(mine)) == mine
    assert same_scene(former_fingerprint(CUBE), mine)
    assert same_scene(mine, former_fingerprint(CUBE))
    assert not same_scene(mine, scene(CUBE + 1).fingerprint)


@pytest.mark.parametrize(
    ('field', 'change'),
    [
        ('cube', {'cube': np.where(CUBE[5, 5, 5] == CUBE, 9001, CUBE)}),
        ('labels', {'labels': LABELS[::-1]}),
        ('scale', {'scale': 1e-4}),
        ('unit', {'unit': 'radiance'}),
        ('nodata', {'nodata': 0}),
        ('bands', {'bands': np.arange(6)}),
        ('wavelengths', {'wavelengths': np.arange(7) + 400.0}),
        ('groups', {'groups': LABELS}),
        ('tile_rows', {'tile_rows': 6}),
        ('class_names', {'class_names': {1: 'water'}}),
    ],
)
def test_content_says_what_has_changed(field: str, change: dict[str, object]) -> None:
    mine, other = scene().content, scene(**change).content  # type: ignore[arg-type]
    assert {name for name in {*mine, *other} if mine.get(name) != other.get(name)} == {field}
    assert json.loads(json.dumps(other)) == other


def test_content_is_not_of_the_name_and_nodata_may_be_nan() -> None:
    mine = scene(nodata=float('nan'))
    other = Scene('another', CUBE.astype('>f8'), LABELS, nodata=np.float32('nan'))  # type: ignore[arg-type]
    assert mine.content == other.content
