import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasters import write_raster

from hsiaug.scenes import SceneFileError, open_scene
from hsiaug.scenes.config import SceneConfig

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 200, (8, 9, 4)).astype(np.uint8)


def write(file: Path, image: np.ndarray = IMAGE, **options: object) -> Path:
    return write_raster(file, image, **({'photometric': 'MINISBLACK'} if file.suffix == '.tif' else {}), **options)


def spectra(file: Path, **options: object) -> np.ndarray:
    scene = open_scene(file, **options)  # type: ignore[arg-type]
    return scene.spectra(np.arange(scene.num_pixels))


def test_scale_and_offset_are_applied_once(tmp_path: Path) -> None:
    file = write(tmp_path / 'x.tif')
    with rasterio.open(file, 'r+') as out:
        out.scales, out.offsets = (1e-2, 2e-2, 1e-2, 1e-2), (0.5, 0, 0, -1)
    expected = IMAGE.reshape(-1, 4) * np.array([1e-2, 2e-2, 1e-2, 1e-2]) + [0.5, 0, 0, -1]
    assert spectra(file) == pytest.approx(expected, rel=1e-5)
    assert spectra(file, bands=[3, 1]) == pytest.approx(expected[:, [3, 1]], rel=1e-5)
    with pytest.warns(UserWarning, match='scale 0.1 is used as given'):
        assert spectra(file, scale=0.1) == pytest.approx(IMAGE.reshape(-1, 4) * 0.1, rel=1e-6)
    with pytest.warns(UserWarning, match='scale 1 is used as given'):
        assert np.array_equal(spectra(file, scale=1.0), IMAGE.reshape(-1, 4))


@pytest.mark.parametrize(
    ('tags', 'names'),
    [
        ({}, ['400.5 nm', '500 nm', '600 nm', '700 nm']),
        ({}, ['Band 1 (400.5 Nanometers)', 'Band 2 (500.0 Nanometers)', '3 (0.6 Micrometers)', '4, 700nm']),
        ({'wavelength': '{400.5, 500, 600, 700}', 'wavelength_units': 'Nanometers'}, None),
        ({'wavelengths': '[0.4005, 0.5, 0.6, 0.7]'}, None),
        ({'WAVELENGTH_NM': '400.5,500,600,700'}, None),
    ],
)
def test_wavelengths_in_names_and_in_tags_of_the_file(
    tmp_path: Path, tags: dict[str, str], names: list[str] | None
) -> None:
    file = write(tmp_path / 'x.tif')
    with rasterio.open(file, 'r+') as out:
        out.update_tags(**tags)
        if names is not None:
            out.descriptions = names
    assert open_scene(file).wavelengths == pytest.approx([400.5, 500, 600, 700])


def test_names_of_bands_that_say_no_wavelength(tmp_path: Path) -> None:
    file = write(tmp_path / 'x.tif')
    for names in (['Band 1', '2', '10 m', 'NIR'], ['1', '2', '4', '8'], ['400 nm', '500 nm', '600 nm', 'alpha']):
        with rasterio.open(file, 'r+') as out:
            out.descriptions = names
        assert open_scene(file).wavelengths is None


def test_labels_and_other_dates_of_another_place_are_refused(tmp_path: Path) -> None:
    utm, there = 'EPSG:32632', from_origin(500_000, 5_000_000, 10, 10)
    cube = str(write(tmp_path / 'cube.tif', crs=utm, transform=there))
    labels, changed = IMAGE[:, :, :1] % 4, str(tmp_path / 'changed.npy')
    np.save(changed, labels[:, :, 0] % 2)
    for name, crs, transform, alike in (
        ('half a pixel', utm, from_origin(500_005, 5_000_005, 10, 10), True),
        ('nearly the same system', 'EPSG:25832', there, True),
        ('a system of its own', None, from_origin(0, 0, 1, 1), True),
        ('none', None, Affine.identity(), True),
        ('next to it', utm, from_origin(500_090, 5_000_000, 10, 10), False),
        ('upside down', utm, Affine(10, 0, 500_000, 0, 10, 4_999_920), False),
        ('the next zone', 'EPSG:32633', there, False),
        ('degrees', 'EPSG:4326', from_origin(9.001, 45.15, 1e-4, 1e-4), False),
    ):
        other = str(write(tmp_path / f'{name}.tif', labels, crs=crs, transform=transform))
        date = str(write(tmp_path / f'{name} 2.tif', crs=crs, transform=transform))
        for scene in (SceneConfig(cube, other), SceneConfig(cube, changed, second=date)):
            with nullcontext() if alike else pytest.raises(SceneFileError, match='do not show one place'):
                scene()


def test_tables_of_colours_pages_and_jpeg(tmp_path: Path) -> None:
    labels = IMAGE[:, :, 0] % 4
    file = write(tmp_path / 'palette.png', labels)
    with rasterio.open(file, 'r+') as out:
        out.write_colormap(1, {value: (value, 0, 255, 255) for value in range(4)})
    np.save(tmp_path / 'cube.npy', IMAGE)
    assert np.array_equal(open_scene(tmp_path / 'cube.npy', file).labels, labels)
    with pytest.warns(UserWarning, match='holds positions in a table of colours, which are read as one band'):
        open_scene(file)
    pages = write(tmp_path / 'pages.tif')
    with rasterio.open(pages, 'w', 'GTiff', 9, 8, 1, dtype='uint8', APPEND_SUBDATASET='YES') as out:
        out.write(IMAGE[:, :, :1].transpose(2, 0, 1))
    with pytest.warns(
        UserWarning, match='holds 2 pages, of which the first alone is read; if each is a band, save them'
    ):
        assert open_scene(pages).cube.shape == IMAGE.shape
    with pytest.raises(SceneFileError, match=r'labels.jpg: JPEG changes values, and so classes; save it as PNG'):
        open_scene(tmp_path / 'cube.npy', write(tmp_path / 'labels.jpg', labels))


def test_wavelength_tags(tmp_path: Path) -> None:
    for name, tags, expected in (
        ('units', [{'wavelength': f'{w} nm'} for w in (442.0, 550.1, 665, 800)], [442, 550.1, 665, 800]),
        ('um', [{'WAVELENGTH': f'{w}', 'wavelength_units': 'um'} for w in (0.4, 0.5, 0.6, 0.7)], [400, 500, 600, 700]),
        ('names', [{'wavelength': w} for w in ('Blue', 'Green', 'Red', 'NIR')], None),
        ('some', [{'wavelength': '442'}, {}, {}, {}], None),
        ('nan', [{'wavelength': 'nan'}] * 4, None),
    ):
        file = write(tmp_path / f'{name}.tif')
        with rasterio.open(file, 'r+') as out:
            for band, tag in enumerate(tags):
                out.update_tags(band + 1, **tag)
        found = open_scene(file).wavelengths
        assert (None if found is None else pytest.approx(found.tolist())) == expected
    file = write(tmp_path / 'imagery.tif')
    with rasterio.open(file, 'r+') as out:
        for band in range(4):
            out.update_tags(band + 1, ns='IMAGERY', CENTRAL_WAVELENGTH_UM=str(0.4 + band / 10))
    assert open_scene(file).spec().wavelengths == pytest.approx((400, 500, 600, 700))


@pytest.mark.parametrize('inside', [True, False])
def test_masks_leave_pixels_out(tmp_path: Path, inside: bool) -> None:
    file, mask = write(tmp_path / 'x.tif'), np.full((8, 9), 255, dtype=np.uint8)
    mask[:2] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(file, 'r+') as out:
        out.write_mask(mask)
    assert (tmp_path / 'x.tif.msk').is_file() != inside
    scene = open_scene(file)
    assert np.array_equal(scene.valid, mask.reshape(-1) > 0)
    labels = np.ones((8, 9, 1), dtype=np.uint8)
    labelled = write(tmp_path / 'gt.tif', labels)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(labelled, 'r+') as out:
        out.write_mask(mask)
    assert (open_scene(write(tmp_path / 'y.tif'), labelled).flat_labels() == 1).sum() == 54


def test_alpha_is_no_band_and_leaves_pixels_out(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[:, :, 3] = 255
    image[:3, :, 3] = 0
    file = write(tmp_path / 'x.tif', image)
    with rasterio.open(file, 'r+') as out:
        out.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    scene = open_scene(file)
    assert np.array_equal(scene.cube, image[:, :, :3])
    assert (~scene.valid).sum() == 27
    assert open_scene(file, bands=[0, 3]).cube.shape == (8, 9, 4)
    file = write(tmp_path / 'nir.png', IMAGE)  # of four 8-bit bands the last is marked as alpha unasked
    with pytest.warns(UserWarning, match=r'give bands=\[0, 1, 2\] if it is transparency'):
        assert np.array_equal(open_scene(file).cube, IMAGE)


def test_one_band_and_many(tmp_path: Path) -> None:
    for count in (1, 300):
        image = RNG.integers(1, 4000, (5, 6, count)).astype(np.uint16)
        for file in (write(tmp_path / f'{count}.tif', image), write(tmp_path / f'{count}.img', image)):
            assert np.array_equal(open_scene(file).cube, image)
            assert np.array_equal(open_scene(file, cube_key='cube').cube, image)


@pytest.mark.parametrize('nodata', [-9999.0, 1e20, -9999.9, -3.4e38, float('nan'), 1e10 + 1])
def test_nodata_that_float32_rounds(tmp_path: Path, nodata: float) -> None:
    image = RNG.random((8, 9, 4)).astype(np.float32)
    image[0, :4] = nodata
    assert (~open_scene(write(tmp_path / 'x.tif', image, nodata=nodata)).valid).sum() == 4
    np.savez(tmp_path / 'x.npz', cube=image, nodata=np.float64(nodata))
    assert (~open_scene(tmp_path / 'x.npz').valid).sum() == 4


@pytest.mark.parametrize(('dtype', 'nodata'), [('int16', -32768), ('float32', np.nan)])
def test_border_of_a_swath_is_no_bad_band(tmp_path: Path, dtype: str, nodata: float) -> None:
    rows, columns = np.indices((40, 40))
    border = (rows + columns < 22) | (rows + columns > 56)
    image = RNG.integers(100, 9000, (40, 40, 5)).astype(dtype)
    image[border] = nodata
    scene = open_scene(write(tmp_path / 'x.tif', image, nodata=nodata))
    assert scene.num_bands == 5
    assert np.array_equal(scene.valid, ~border.reshape(-1))
    image[10:30, 10:30, 2] = nodata
    file = write(tmp_path / 'hole.tif', image, nodata=nodata)
    assert open_scene(file, on_bad_bands='drop').spec().bands == 4
    with pytest.raises(ValueError, match=r'1 of 5 bands carry no information: 2 \(\d\d% of the pixels missing\)'):
        open_scene(file)


def test_a_raster_that_declares_far_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    sizes = {'width': 32_768, 'height': 32_768, 'count': 8, 'dtype': 'uint8'}
    with rasterio.open(
        tmp_path / 'x.tif', 'w', driver='GTiff', SPARSE_OK=True, tiled=True, blockxsize=4096, blockysize=4096, **sizes
    ):
        pass
    with pytest.raises(SceneFileError, match=r'x.tif .* declares 8,192 MiB of values and holds'):
        open_scene(tmp_path / 'x.tif')


class Visits(BaseHTTPRequestHandler):
    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """Address of a local server, and what was asked of it."""
    paths: list[str] = []
    server = ThreadingHTTPServer(('127.0.0.1', 0), type('Here', (Visits,), {'paths': paths}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', paths
    server.shutdown()


def vrt(source: str) -> str:
    return (
        '<VRTDataset rasterXSize="9" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>'
    )


@pytest.mark.parametrize('suffix', ['.tif', '.vrt', '.img', '.png', ''])
def test_rasters_reach_nothing_beyond_themselves(tmp_path: Path, suffix: str, visits: tuple[str, list[str]]) -> None:
    address, asked = visits
    (tmp_path / 'secret.bin').write_bytes(bytes(range(72)))
    raw = vrt('x').replace('<VRTRasterBand dataType', '<VRTRasterBand subClass="VRTRawRasterBand" dataType')
    raw = raw.replace('<SimpleSource>', '').replace('</SimpleSource>', '').replace('>x<', '>secret.bin<')
    wms = f'<GDAL_WMS><Service name="WMS"><ServerUrl>{address}/wms</ServerUrl><Layers>a</Layers></Service></GDAL_WMS>'
    for text in (vrt(f'/vsicurl/{address}/a.tif'), vrt(str(write(tmp_path / 'other.tif'))), raw, wms, f'{address}/b'):
        (tmp_path / f'x{suffix}').write_text(text)
        with pytest.raises(SceneFileError, match='has none of the formats GTiff, ENVI, '):
            open_scene(tmp_path / f'x{suffix}')
    for path in (f'/vsicurl/{address}/c.tif', f'{address}/d.tif', f'WMS:{address}', 'zip://x.zip!y.tif'):
        with pytest.raises(FileNotFoundError):
            open_scene(path)
    assert asked == []


@pytest.mark.parametrize('beside', ['x.tif.msk', 'x.tif.ovr', 'x.tif.aux.xml'])
def test_what_lies_beside_a_raster_reaches_nothing(tmp_path: Path, beside: str, visits: tuple[str, list[str]]) -> None:
    address, asked = visits
    text = vrt(f'/vsicurl/{address}/a.tif')
    if beside.endswith('.xml'):
        text = (
            '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
            f'/vsicurl/{address}/a.tif</MDI></Metadata></PAMDataset>'
        )
    file = write(tmp_path / 'x.tif')
    (tmp_path / beside).write_text(text)
    if beside.endswith('.msk'):
        with pytest.raises(SceneFileError, match=r'x\.tif\.msk'):
            open_scene(file)
    else:
        assert np.array_equal(open_scene(file).cube, IMAGE)
    assert asked == []
