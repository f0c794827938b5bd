import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.env import set_gdal_config

from hsiaug.scenes import BadBandsError, SceneFileError, open_library, open_scene
from hsiaug.scenes.config import SceneConfig

CUBE = np.random.default_rng(0).integers(100, 9000, (6, 8, 4)).astype('<i2')
HEADER = {
    'samples': '8', 'lines': '6', 'bands': '4', 'header offset': '0', 'file type': 'ENVI Standard', 'data type': '2',
    'interleave': 'bsq', 'byte order': '0',
}  # fmt: skip
CENTRES = {'wavelength units': 'Nanometers', 'wavelength': '{450, 550, 650, 850}'}


def write(folder: Path, image: str = 'a.img', header: str | None = 'a.hdr', **fields: str) -> Path:
    (folder / image).write_bytes(np.ascontiguousarray(CUBE.transpose(2, 0, 1)).tobytes())
    if header is not None:
        lines = {**HEADER, **{key.replace('_', ' '): value for key, value in fields.items()}}
        text = 'ENVI\n' + ''.join(f'{key} = {value}\n' for key, value in lines.items())
        (folder / header).write_text(text, encoding='utf-8')
    return folder / image


def test_the_environment_of_torchgeos_command_line_hides_no_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = 'GDAL_DISABLE_READDIR_ON_OPEN'
    monkeypatch.setenv(option, 'EMPTY_DIR')
    try:
        assert open_scene(write(tmp_path, **CENTRES)).wavelengths == pytest.approx([450, 550, 650, 850])
    finally:
        set_gdal_config(option, None)  # rasterio keeps what the environment said


@pytest.mark.parametrize('key', ['reflectance scale factor', 'Reflectance Scale Factor', 'REFLECTANCE SCALE FACTOR'])
def test_reflectance_scale_factor(tmp_path: Path, key: str) -> None:
    file = write(tmp_path, **{key: '10000'}, **CENTRES)
    scene = open_scene(file)
    assert (scene.scale, scene.unit) == (1e-4, 'reflectance')
    assert scene.spectra(np.arange(48)) == pytest.approx(CUBE.reshape(-1, 4) / 1e4, rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        assert np.array_equal(open_scene(file, scale=1e-4).spectra(np.arange(48)), scene.spectra(np.arange(48)))
    with pytest.warns(UserWarning, match='scale 1 is used as given'):
        assert SceneConfig(str(file), scale=1.0)().spectra(np.arange(48)).max() == CUBE.max()


@pytest.mark.parametrize('factor', ['0', '-1', 'nan', 'inf', 'many', '{1, 2}'])
def test_a_factor_that_is_none_is_not_applied(tmp_path: Path, factor: str) -> None:
    assert open_scene(write(tmp_path, reflectance_scale_factor=factor)).scale == 1


def test_gains_and_offsets(tmp_path: Path) -> None:
    gains = {'data gain values': '{0.01, 0.02, 0.04, 1}', 'data offset values': '{0.5, 0.5, 0.5, 0}'}
    scene = open_scene(write(tmp_path, **gains))
    expected = CUBE.reshape(-1, 4) * np.array([0.01, 0.02, 0.04, 1]) + [0.5, 0.5, 0.5, 0]
    assert scene.spectra(np.arange(48)) == pytest.approx(expected, rel=1e-6)
    file = write(tmp_path, **gains, reflectance_scale_factor='10000')
    with pytest.raises(
        SceneFileError, match=r'data gain or offset values and a reflectance scale factor of 10000.* scale'
    ):
        open_scene(file)
    with pytest.warns(UserWarning, match='used as given'):
        assert open_scene(file, scale=1e-4).scale == 1e-4


@pytest.mark.parametrize('key', ['bbl', 'BBL'])
def test_bad_band_list(tmp_path: Path, key: str) -> None:
    scene = open_scene(write(tmp_path, **{key: '{1, 0, 1.0, 0}'}, **CENTRES))
    assert scene.spec().wavelengths == (450, 650)
    assert np.array_equal(open_scene(tmp_path / 'a.img', bands=[1]).bands, [1])
    for wrong in ('{1, 0}', '{0, 0, 0, 0}'):
        with pytest.raises(SceneFileError, match=r'bad band list \(bbl\) has . values for 4 bands, .* give bands'):
            open_scene(write(tmp_path, bbl=wrong))


def test_lists_that_gdal_does_not_understand(tmp_path: Path) -> None:
    value = int(CUBE[2, 3, 1])
    assert open_scene(write(tmp_path, data_ignore_value=f'{{{value}}}')).nodata == value
    assert open_scene(write(tmp_path, data_ignore_value='none')).nodata is None
    assert open_scene(write(tmp_path, wavelength='{.45, .55, .65, .85}', wavelength_units='{um}')).wavelengths[0] == 450
    for fields, message in (
        ({'data_ignore_value': '{-1, -2}'}, r'data ignore values \[-2.0, -1.0\]; give nodata'),
        ({'data_gain_values': '{2}'}, 'data gain values are not 4 numbers, one per band; give scale'),
        ({'bbl': '{good, bad, good, good}'}, r'\(bbl\) has 0 values for 4 bands, 0 of them good; give bands'),
        ({'data_type': '6', 'lines': '1'}, 'complex64.* save their magnitude'),
    ):
        with pytest.raises(SceneFileError, match=message):
            open_scene(write(tmp_path, **fields))
    with pytest.warns(UserWarning, match='384 bytes, but its header describes 192 only'):
        open_scene(write(tmp_path, lines='3'))


def test_units_and_nodata(tmp_path: Path) -> None:
    assert open_scene(write(tmp_path, wavelength_units='Index', wavelength='{1, 2, 3, 4}')).wavelengths is None
    scene = open_scene(write(tmp_path, Wavelength_Units='Micrometers', Wavelength='{.45, .55,\n .65, .85}'))
    assert scene.spec().wavelengths == pytest.approx((450, 550, 650, 850))
    value = CUBE[2, 3, 1]
    scene = open_scene(write(tmp_path, data_ignore_value=str(value)))
    assert np.array_equal(scene.valid, (value != CUBE).all(axis=2).reshape(-1))


def test_class_names_of_a_label_image(tmp_path: Path) -> None:
    cube, labels = write(tmp_path), (np.arange(48) % 3).astype(np.uint8)
    gt = write(
        tmp_path, 'gt.dat', 'gt.hdr', bands='1', data_type='1', file_type='ENVI Classification', classes='3',
        class_names='{Unclassified, roof tile, tree}',
    )  # fmt: skip
    gt.write_bytes(labels.tobytes())
    scene = open_scene(cube, gt)
    assert [scene.class_name(i) for i in scene.class_ids] == ['roof tile', 'tree']
    assert open_scene(cube, tmp_path / 'gt.hdr', class_names={1: 'a'}).class_name(1) == 'a'


@pytest.mark.parametrize(
    ('image', 'header', 'given'),
    [
        ('a.img', 'a.hdr', 'a.hdr'),
        ('a.img', 'a.img.hdr', 'a.img.hdr'),
        ('a', 'a.hdr', 'a.hdr'),
        ('a.xyz', 'a.hdr', 'a.hdr'),
        ('A.IMG', 'A.HDR', 'A.HDR'),
        ('a.v1.bsq', 'a.v1.hdr', 'a.v1.hdr'),
    ],
)
def test_the_header_will_do(tmp_path: Path, image: str, header: str, given: str) -> None:
    write(tmp_path, image, header)
    assert np.array_equal(open_scene(tmp_path / given).cube, CUBE)


def test_a_header_whose_values_are_not_found_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / 'a.dat').write_bytes(b'')
    with pytest.raises(SceneFileError, match=r"may be in any of \['a.dat', 'a.img'\]; give the file of the values"):
        open_scene(tmp_path / 'a.hdr')
    (tmp_path / 'b.hdr').write_text('ENVI\n')
    with pytest.raises(SceneFileError, match=r'no file named b or b.img lies next to it; give the file of the values'):
        open_scene(tmp_path / 'b.hdr')
    with pytest.raises(SceneFileError, match='ENVI spectral libraries are not read; save spectra'):
        open_library(write(tmp_path, 'a.sli', None), 'labels')


def test_byte_order_in_any_case(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_bytes(CUBE.transpose(2, 0, 1).astype('>i2').tobytes())
    header = tmp_path / 'a.hdr'
    header.write_text(header.read_text().replace('byte order = 0', 'Byte Order = 1'))
    assert np.array_equal(open_scene(file).cube, CUBE)


KEYS = [
    *HEADER, *CENTRES, 'bbl', 'reflectance scale factor', 'data gain values', 'data offset values', 'data ignore value',
    'class names', 'classes', 'file compression', 'major frame offsets', 'band names', 'default bands', 'description',
]  # fmt: skip
VALUES = st.one_of(
    st.integers(-(2**40), 2**40).map(str),
    st.floats().map(str),
    st.lists(st.one_of(st.floats().map(str), st.text(max_size=4)), max_size=6).map(lambda v: '{' + ', '.join(v) + '}'),
    st.sampled_from(['bil', 'bip', 'BSQ', '{', '}', '{{1}}', '1e400', 'ENVI Classification', '0x10', '']),
    st.text(max_size=12),
)


@pytest.mark.parametrize('factor', ['1.1e-231', '1e200', '1e30'])
def test_a_scale_that_no_sensor_has_is_refused(tmp_path: Path, factor: str) -> None:
    file = write(tmp_path, **{'reflectance scale factor': factor})
    with pytest.raises(SceneFileError, match='which no sensor does; give scale'):
        open_scene(file)
    assert np.isfinite(open_scene(file, scale=1e-4).spectra(np.arange(4))).all()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=4), tail=st.binary(max_size=20))
def test_whatever_a_header_says_is_read_or_refused(tmp_path: Path, fields: dict[str, str], tail: bytes) -> None:
    file = write(tmp_path, **fields)
    with (tmp_path / 'a.hdr').open('ab') as header:
        header.write(tail)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            scene = open_scene(file)
        assert np.isfinite(scene.spectra(np.flatnonzero(scene.valid))).all()
    except (SceneFileError, BadBandsError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20


def test_what_a_header_leaves_out_is_said(tmp_path: Path) -> None:
    file = write(tmp_path)
    header = file.with_suffix('.hdr').read_text()
    file.with_suffix('.hdr').write_text(header.replace('interleave = bsq\n', ''))
    with pytest.warns(
        UserWarning, match=r'a.img: its header says no interleave \(bsq, bil or bip\); it is read as bsq'
    ):
        assert np.array_equal(open_scene(file).cube, CUBE)
    for text in ('\ufeff' + header, None):  # as some editors begin a file; no header at all
        file.with_suffix('.hdr').unlink() if text is None else file.with_suffix('.hdr').write_text(text, 'utf-8')
        with pytest.raises(SceneFileError, match='need an ENVI header next to them, whose first line is ENVI'):
            open_scene(file)
