"""What users say of a scene, or a file says of itself, that cannot be meant."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hsiaug.datasets import PairFolder, SceneFolder, adapt
from hsiaug.scenes import Scene, SceneFileError, open_library, open_scene

CUBE = np.random.default_rng(0).uniform(0.1, 1, (6, 8, 4)).astype('f4')
LABELS = np.arange(48).reshape(6, 8) % 4


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / 'scene.npz', **{'cube': CUBE, 'gt': LABELS, **arrays})
    return folder / 'scene.npz'


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['a', 'b', 'c'], {1: 'a', 2: 'b', 3: 'c'}),  # no place for the unlabelled
        (['', 'a', 'b', 'c'], {1: 'a', 2: 'b', 3: 'c'}),
        (['soil?', 'a', 'b', 'c'], {1: 'a', 2: 'b', 3: 'c'}),
    ],
)
def test_a_list_of_names_begins_where_the_labels_say(
    tmp_path: Path, names: list[str], expected: dict[int, str]
) -> None:
    file = saved(tmp_path, class_names=np.array(names))
    assert open_scene(file).class_names == expected
    np.savez(tmp_path / 'gt.npz', gt=LABELS, class_names=np.array(names))
    np.save(tmp_path / 'cube.npy', CUBE)
    assert open_scene(tmp_path / 'cube.npy', tmp_path / 'gt.npz').class_names == expected
    spectra = {'spectra': CUBE.reshape(-1, 4), 'y': LABELS.reshape(-1), 'class_names': np.array(names)}
    np.savez(tmp_path / 'library.npz', **spectra)
    assert open_library(tmp_path / 'library.npz', 'y').class_names == expected


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'bands': np.array([True, False, True, True])}, r'indices in \[0, 4\).*numpy.flatnonzero\(mask\)'),
        ({'bands': [1, 1, 2]}, 'none twice'),
        ({'bands': [0.0, 1.5]}, 'none twice'),
        ({'bands': 2}, 'none twice'),
        ({'bands': slice(2)}, 'none twice'),
        ({'scale': 0}, 'a scale of 0'),
        ({'nodata': '-9999'}, "nodata must be .* number, found '-9999'"),
        ({'class_names': {'1': 'soil'}}, r"class ids in class_names must be whole numbers.*\['1'\]"),
        ({'on_bad_bands': 'dorp'}, "unknown on_bad_bands 'dorp'"),
        ({'ignore': 'maize'}, "ignore must be label values, which are numbers, found 'maize'"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_scene(saved(tmp_path), **settings)


def test_a_typo_drops_no_bands() -> None:
    scene = Scene('x', np.concatenate([CUBE, np.zeros((6, 8, 1), 'f4')], axis=2), LABELS)
    with pytest.raises(ValueError, match="unknown on_bad_bands 'dorp'; choose from"):
        scene.checked('dorp')  # type: ignore[arg-type]


def test_one_ignored_value_may_come_by_itself(tmp_path: Path) -> None:
    file = saved(tmp_path, gt=np.where(LABELS == 0, 255, LABELS))
    assert open_scene(file, ignore=255).class_ids == (1, 2, 3)
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / 'images' / 'a.npy', CUBE)
    np.save(tmp_path / 'masks' / 'a.npy', np.where(LABELS < 2, LABELS, 9))
    pairs = PairFolder(tmp_path, ['a', 'b'], ignore=9, bands=np.array([0, 2]))
    assert set(pairs[0]['mask'].unique().tolist()) == {0, 1, 255}
    assert pairs[0]['image'].shape == (2, 6, 8)
    with pytest.raises(ValueError, match='PairFolder: bands must be indices'):
        PairFolder(tmp_path, ['a', 'b'], ignore=9, bands=[0.5, 1.5])  # type: ignore[list-item]


def test_an_array_is_no_path(tmp_path: Path) -> None:
    for arguments in ((CUBE,), (saved(tmp_path), LABELS)):
        with pytest.raises(
            TypeError, match=r'file was expected, found ndarray; of arrays.*Scene\(name, cube, labels\)'
        ):
            open_scene(*arguments)


@pytest.mark.parametrize(
    ('unit', 'values', 'expected'),
    [
        ('Nanometers', '0.45, 0.55, 0.65, 0.85', [450, 550, 650, 850]),
        ('Micrometers', '450, 550, 650, 850', [450, 550, 650, 850]),
        ('Micrometers', '0.45, 0.55, 0.65, 120', [450, 550, 650, 120_000]),
        ('Nanometers', '1, 2, 3, 4', None),
        ('Unknown', '450 nm, 550 nm, 650 nm, 850 nm', [450, 550, 650, 850]),
        ('Nanometers', '0.45 um, 0.55 um, 0.65 um, 0.85 um', [450, 550, 650, 850]),
    ],
)
def test_units_that_contradict_their_values(
    tmp_path: Path, unit: str, values: str, expected: list[float] | None
) -> None:
    (tmp_path / 'a.img').write_bytes(CUBE.transpose(2, 0, 1).astype('<f4').tobytes())
    (tmp_path / 'a.hdr').write_text(
        'ENVI\nsamples = 8\nlines = 6\nbands = 4\nheader offset = 0\nfile type = ENVI Standard\ndata type = 4\n'
        f'interleave = bsq\nbyte order = 0\nwavelength units = {unit}\nwavelength = {{{values}}}\n'
    )
    centres = open_scene(tmp_path / 'a.img').wavelengths
    assert (centres is None) == (expected is None)
    if centres is not None:
        assert centres == pytest.approx(expected)


def test_a_missing_variable_is_still_named(tmp_path: Path) -> None:
    with pytest.raises(SceneFileError, match="holds no 'truth'"):
        open_scene(saved(tmp_path), labels_key='truth')


def test_a_scene_is_made_of_anything_like_an_array() -> None:
    for cube, labels in ((CUBE.tolist(), LABELS.tolist()), (torch.tensor(CUBE), torch.tensor(LABELS))):
        scene = Scene('x', cube, labels)
        assert np.array_equal(scene.spectra(np.arange(48)), CUBE.reshape(-1, 4))
        assert scene.class_ids == (1, 2, 3)
    for dtype in (np.complex64, object):
        with pytest.raises(ValueError, match='cube must hold real numbers, found dtype'):
            Scene('x', CUBE.astype(dtype), LABELS)


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_what_is_masked_is_not_measured(dtype: Any) -> None:
    stored = (1000 * CUBE).astype(dtype)
    mask = np.zeros(stored.shape, dtype=bool)
    mask[:2] = True
    scene = Scene('x', np.ma.masked_array(stored, mask), np.ma.masked_array(LABELS, LABELS == 2))
    assert np.array_equal(scene.valid, ~mask.any(axis=2).reshape(-1))
    assert np.array_equal(scene.spectra(np.arange(16, 48)), stored.reshape(-1, 4)[16:].astype('f4'))
    assert scene.class_ids == (1, 3)


def test_spectra_and_tiles_are_made_of_anything_like_an_array() -> None:
    pandas = pytest.importorskip('pandas')
    table, labels = CUBE.reshape(-1, 4), LABELS.reshape(-1)
    for spectra, classes in ((table.tolist(), labels.tolist()), (pandas.DataFrame(table), pandas.Series(labels))):
        scene = Scene.from_spectra('x', spectra, classes)
        assert np.array_equal(scene.spectra(np.arange(48)), table)
        assert np.array_equal(scene.flat_labels(), labels)
    tiles = Scene.from_tiles('x', [CUBE, CUBE], [LABELS, LABELS])
    assert tiles.shape == (12, 8)
    assert np.array_equal(tiles.flat_labels(), np.tile(labels, 2))


@pytest.mark.parametrize('dtype', [bool, int, np.uint8, float])
def test_a_mask_of_measured_pixels_may_be_numbers(dtype: type) -> None:
    mask = (np.arange(48).reshape(6, 8) > 9).astype(dtype)
    if dtype is float:
        mask[mask == 0] = np.nan
    scene = Scene('x', CUBE, LABELS, measured=mask)
    assert np.array_equal(scene.valid, np.arange(48) > 9)
    assert np.array_equal(scene.spectra(scene.valid), CUBE.reshape(-1, 4)[10:])  # a mask chooses, as indices do


def test_text_of_whole_numbers_is_numbers(tmp_path: Path) -> None:
    for kind in ('U', 'S'):  # 0 is no class, and 10 not between 1 and 2
        scene = open_scene(saved(tmp_path, gt=np.where(LABELS == 3, 10, LABELS).astype(kind)))
        assert scene.class_ids == (1, 2, 10)
        assert scene.class_names == {}


def test_labels_are_not_sought_among_coordinates(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with h5py.File(tmp_path / 'x.h5', 'w') as file:
        file['reflectance'], file['y'] = CUBE, np.arange(6.0)
        file['location/lat'] = file['location/lon'] = LABELS + 0.5
        file['bands/Wavelength'] = [400, 500, 600, 700]
    scene = open_scene(tmp_path / 'x.h5')
    assert scene.wavelengths == pytest.approx([400, 500, 600, 700])  # whatever the case of its name
    assert not recwarn.list


def test_classic_netcdf_is_told_from_a_torn_file(tmp_path: Path) -> None:
    (tmp_path / 'x.nc').write_bytes(b'CDF\x01' + bytes(60))
    with pytest.raises(SceneFileError, match='NetCDF is read from version 4 on; convert it with nccopy'):
        open_scene(tmp_path / 'x.nc')


def test_micrometres_are_recognised_wherever_they_are_given(tmp_path: Path) -> None:
    centres, expected = [0.45, 0.55, 0.65, 0.85], [450, 550, 650, 850]
    assert Scene('x', CUBE, LABELS, wavelengths=np.array(centres)).wavelengths == pytest.approx(expected)
    words = [f'{centre} um' for centre in centres]
    assert Scene('x', CUBE, LABELS, wavelengths=words).wavelengths == pytest.approx(expected)
    for odd in ([1, 2, 3, 4], [400, 500, np.nan, 700]):
        with pytest.raises(ValueError, match="Scene 'x': wavelengths must be band centres in nm, positive and no indi"):
            Scene('x', CUBE, LABELS, wavelengths=np.array(odd))
    samples = [{'image': torch.rand(4, 8, 8), 'label': torch.tensor(0)}]
    assert adapt(samples, classes=['a', 'b'], wavelengths=centres).spec.wavelengths == pytest.approx(expected)
    with pytest.raises(ValueError, match='wavelengths must be band centres in nm, positive and no indices'):
        adapt(samples, classes=['a', 'b'], wavelengths=[1, 2, 3, 4])


def test_one_text_is_no_list_of_classes(tmp_path: Path) -> None:
    samples = [{'image': torch.rand(4, 8, 8), 'label': torch.tensor(0)}]
    for make in (
        lambda: adapt(samples, classes='water'),
        lambda: PairFolder(tmp_path, 'water'),
        lambda: SceneFolder(tmp_path, 'water'),
    ):
        with pytest.raises(ValueError, match=r"classes must be a list of names, found 'water'; give \['water'\]"):
            make()


@pytest.mark.parametrize('label_map', [{'1': 0, '2': 1}, {1: 'a', 2: 'b'}])
def test_masks_hold_numbers(tmp_path: Path, label_map: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match='label_map must map numbers to 0'):
        PairFolder(tmp_path, ['a', 'b'], label_map=label_map)
