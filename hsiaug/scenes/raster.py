"""Rasters through GDAL: only formats that contain their own values, never references to other files.

For ENVI images also header entries that GDAL does not apply, and memory maps of the values.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.warp import transform

from ..records import require_plausible
from .files import Content, Facts, Place, SceneFileError, Variable, reading
from .labels import class_names_of, names_for
from .wavelengths import centres_in_names, centres_of, sentinel2_centres

DRIVERS = ('GTiff', 'ENVI', 'PNG', 'JPEG', 'JP2OpenJPEG', 'BMP')
"""GDAL formats that are read: none that refers to other files or addresses (VRT, WMS, ...), whatever the suffix."""

DATA_SUFFIXES = ('.img', '.dat', '.bsq', '.bil', '.bip', '.raw', '.bin')
"""Suffixes of value files next to an ENVI header."""
_AXES = {'bsq': (2, 0, 1), 'bil': (0, 2, 1), 'bip': (0, 1, 2)}
"""Order in which a raw file holds rows, columns and bands."""

_ALONE = {'GDAL_DISABLE_READDIR_ON_OPEN': 'EMPTY_DIR', 'GDAL_PAM_ENABLED': 'NO'}
"""Options that make GDAL see the file alone; else it opens overviews and masks beside it in any format."""
_AMONG_OTHERS = {'GDAL_DISABLE_READDIR_ON_OPEN': 'FALSE'}
"""That GDAL finds ENVI headers, whatever the environment: torchgeo's command line sets EMPTY_DIR there."""

_CENTRE_TAGS = {
    'wavelength': None,
    'wavelength_nm': 'nm',
    'wavelength_um': 'um',
    'central_wavelength': None,
    'center_wavelength': None,
    'central_wavelength_nm': 'nm',
    'central_wavelength_um': 'um',
}
_UNIT_TAGS = ('wavelength_units', 'wavelength_unit')


def open_raster(file: Path, where: str, bands: Sequence[int] | np.ndarray | None = None) -> Content:
    """The image of a raster as (H, W, C), called ``cube``, and what GDAL says about it.

    An alpha band named in ``bands`` is treated like any other band.
    """
    with _open(file) as source:
        count, size = source.count, file.stat().st_size
        values = max(np.dtype(dtype).itemsize for dtype in source.dtypes) * count
        block = max((math.prod(side) for side in source.block_shapes), default=0)
        require_plausible(max(source.height * source.width, block) * values, size, where, SceneFileError)
        facts = Facts(channels_last=True, place=_place(source))
        facts.measured = _alpha(file, source, bands, facts)
        indexes = list(range(1, count + (facts.measured is None)))
        shape, driver = (source.height, source.width, len(indexes)), source.driver
        dtype = np.dtype(np.result_type(*(source.dtypes[i - 1] for i in indexes)))
        if len(source.subdatasets) > 1:
            facts.notices.append(
                f'{file} holds {len(source.subdatasets)} pages, of which the first alone is read; if each is a band, '
                'save them as the bands of one image, or as .npy'
            )
        if source.colorinterp[0] == ColorInterp.palette:
            facts.notices.append(
                f'{file} holds positions in a table of colours, which are read as one band; save its colours as three '
                'bands if it is a picture'
            )
        nodata = {str(value): value for i in indexes if (value := source.nodatavals[i - 1]) is not None}
        facts.nodata = next(iter(nodata.values()), None)
        if len(nodata) > 1:
            facts.doubts['nodata'] = f'{file} has a nodata value for each band; give nodata'
        sides = [[float(values[i - 1]) for i in indexes] for values in (source.scales, source.offsets)]
        facts.scale, facts.offset = (side[0] if len(set(side)) == 1 else np.array(side) for side in sides)
        if not np.all(np.isfinite(facts.scale)) or np.any(np.asarray(facts.scale) == 0):
            facts.doubts['scale'] = f'{file} has the scale {facts.scale}, which makes no values; give scale'
        mapped, header = None, {key.lower(): value for key, value in source.tags(ns='ENVI').items()}
        if driver == 'ENVI':
            _envi_facts(file, header, count, facts)
            mapped = _map_envi(file, header, source, facts)
        else:
            facts.wavelengths = _wavelengths(source, indexes)
        names = [source.descriptions[i - 1] or '' for i in indexes]
        if facts.wavelengths is None:
            facts.wavelengths = centres_in_names(names)
        if facts.wavelengths is None:
            facts.wavelengths = sentinel2_centres(names)
            facts.nominal = facts.wavelengths is not None
    if driver == 'GTiff' and (mask := _mask(file)) is not None:
        facts.measured = mask if facts.measured is None else facts.measured & mask

    def load(rows: slice = slice(None), columns: slice = slice(None), only: Sequence[int] | None = None) -> np.ndarray:
        if mapped is not None:
            return mapped[rows, columns] if only is None else mapped[rows, columns][:, :, only]
        with _open(file) as source:
            sides = zip((rows, columns), shape, strict=False)
            window = tuple((part.start or 0, side if part.stop is None else part.stop) for part, side in sides)
            chosen = indexes if only is None else [indexes[k] for k in only]
            return np.moveaxis(source.read(chosen, window=window), 0, 2)

    stored = None if mapped is not None else size
    return Content(file, {'cube': Variable(shape, dtype, load, stored, where, part=load)}, facts)


def _open(file: Path, drivers: Sequence[str] = DRIVERS, options: Mapping[str, str] = _AMONG_OTHERS) -> Any:
    """The raster, opened with one of the drivers under options of GDAL."""
    path = str(file.resolve())  # absolute: it cannot start with a prefix of GDAL (/vsicurl/, GTIFF_DIR:, zip://)
    reasons = []
    with warnings.catch_warnings(), rasterio.Env(**options):
        # A cube without map coordinates is fine here.
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        for driver in drivers:
            try:
                return rasterio.open(path, driver=driver)
            except RasterioIOError as error:
                reasons.append(str(error))
    said = [reason for reason in reasons if 'not recognized' not in reason]
    known = f'{", ".join(drivers)}; arrays are read from .npy, .npz, .mat, .h5 and .nc files'
    raw = file.suffix.lower() in (*DATA_SUFFIXES, '')
    hint = '; raw values need an ENVI header next to them, whose first line is ENVI' if raw else ''
    raise RasterioIOError(said[0] if said else f'{file} has none of the formats {known}{hint}')


def _place(source: Any) -> Place | None:
    """Position of a raster; None if unknown."""
    if source.transform.is_identity:
        return None
    a, b, x, d, e, y = source.transform[:6]
    corners = [(x, y), (x + a * source.width, y + d * source.width), (x + b * source.height, y + e * source.height)]
    return Place(source.crs, np.array(corners), (source.width, source.height))


def require_one_place(first: Content, second: Content) -> None:
    """Refuse two images of different places, or of the same place flipped: more than a pixel apart at a corner.

    Raises:
        SceneFileError: naming the files and their distance. Images of unknown position are assumed to match.
    """
    here, there = first.facts.place, second.facts.place
    if here is None or there is None:
        return
    corners = there.corners
    if here.crs != there.crs:
        if not all(crs and (crs.is_projected or crs.is_geographic) for crs in (here.crs, there.crs)):
            return  # local coordinates
        with reading(str(second.file)):
            corners = np.transpose(transform(there.crs, here.crs, *corners.T))
    along = [(found[1:] - found[0]) / np.array([sides]).T for found, sides in
             ((here.corners, here.sides), (corners, there.sides))]  # fmt: skip
    apart = np.hypot(*(here.corners - corners).T).max() / np.hypot(*np.concatenate(along).T).max()
    if not apart <= 1:
        raise SceneFileError(
            f'{first.file} and {second.file} do not show one place: by their map coordinates, their corners lie up to '
            f'{apart:.1f} pixels apart; bring them to one grid, or save arrays as .npy if the coordinates are wrong'
        )


def _wavelengths(source: Any, indexes: Sequence[int]) -> np.ndarray | None:
    """(C,) nm from the tags of the bands, or from a list in those of the file."""
    common = {key.lower(): value for key, value in source.tags().items()}
    texts: list[str] = []
    units: list[str | None] = []
    for index in indexes:
        tags = {key.lower(): value for key, value in source.tags(index).items()}
        if not any(key in tags for key in _CENTRE_TAGS):
            tags = {key.lower(): value for key, value in source.tags(index, ns='IMAGERY').items()}
        if (key := next((key for key in _CENTRE_TAGS if key in tags), None)) is not None:
            said = [place[unit] for place in (tags, common) for unit in _UNIT_TAGS if unit in place]
            texts.append(tags[key])
            units.append(_CENTRE_TAGS[key] or (said[0] if said else None))
    if not texts and (key := next((key for key in (*_CENTRE_TAGS, 'wavelengths') if key in common), None)) is not None:
        texts = [text.strip() for text in common[key].strip(' {}[]()').split(',')]
        units = [_CENTRE_TAGS.get(key) or next((common[unit] for unit in _UNIT_TAGS if unit in common), None)]
        units *= len(texts)
    return centres_of(texts, units) if len(texts) == len(indexes) else None


def _alpha(file: Path, source: Any, bands: Sequence[int] | np.ndarray | None, facts: Facts) -> np.ndarray | None:
    """(H, W) bool: pixels visible through the alpha band; None without one, or if it is an ordinary band.

    GDAL marks the last of four 8-bit bands as alpha by default, so its values decide, or ``bands``.
    """
    last = source.count - 1
    if last == 0 or source.colorinterp[last] != ColorInterp.alpha or (bands is not None and last in np.asarray(bands)):
        return None
    alpha = source.read(source.count)
    shown = alpha > 0
    if bands is None and shown.any() and alpha[shown].min() != alpha.max():
        facts.notices.append(
            f'{file}: band {last} (0-based) is marked as alpha, but holds more than 0 and one other value, and is read '
            f'as a band of the image; give bands={list(range(last))} if it is transparency, '
            f'bands={[*range(last), last]} if it is not'
        )
        return None
    return shown


def _mask(file: Path) -> np.ndarray | None:
    """(H, W) bool: pixels valid in the mask in or next to a GeoTIFF; None without one."""
    neighbour = file.with_name(f'{file.name}.msk')
    with rasterio.Env(**_ALONE):
        with _open(file, ('GTiff',), _ALONE) as source:
            inside = any(MaskFlags.per_dataset in f and MaskFlags.alpha not in f for f in source.mask_flag_enums)
            if inside:
                return source.read_masks(1) > 0
            shape = (source.height, source.width)
        if not neighbour.is_file():
            return None
        with _open(neighbour, ('GTiff',), _ALONE) as source:
            if (source.height, source.width) != shape:
                raise SceneFileError(f'{neighbour} is not a mask of {file}: it has another size')
            declared = source.count * shape[0] * shape[1]
            require_plausible(declared, neighbour.stat().st_size, str(neighbour), SceneFileError)
            return (source.read() > 0).all(axis=0)


# --- ENVI -------------------------------------------------------------------------------------------------------------


def data_file(header: Path) -> Path:
    """The value file next to an ENVI header."""
    stem = header.name[: -len(header.suffix)]
    neighbours = [path for path in sorted(header.parent.iterdir()) if path != header and path.is_file()]
    near = [path for path in neighbours if path.name == stem or path.stem.lower() == stem.lower()]
    exact = [path for path in near if path.name == stem]
    usual = [path for path in near if path.suffix.lower() in DATA_SUFFIXES]
    found = exact or usual or [path for path in near if path.suffix.lower() not in ('.hdr', '.xml', '.sta')]
    if len(found) == 1:
        return found[0]
    names = [path.name for path in found]
    why = f'its values may be in any of {names}' if names else f'no file named {stem} or {stem}.img lies next to it'
    raise SceneFileError(f'{header} is an ENVI header, and {why}; give the file of the values')


def _envi_facts(file: Path, header: Mapping[str, str], count: int, facts: Facts) -> None:
    """Complete ``facts`` from a header: reflectance scale factor, bad bands, class names, wavelengths in any unit.

    Header fields are in lower case with ``_`` for spaces. GDAL applies none of these; it reads nodata, gains and
    offsets.
    """
    listed = {field: [part.strip() for part in text.strip(' {}').split(',')] for field, text in header.items()}
    numbers = {field: _numbers(texts) for field, texts in listed.items()}
    if len(texts := [text for text in listed.get('wavelength', []) if text]) == count:
        facts.wavelengths = centres_of(texts, [header.get('wavelength_units')] * count)
    facts.class_names = names_for(None, class_names_of(listed.get('class_names', [])))

    factor = numbers.get('reflectance_scale_factor')
    if factor is not None and len(factor) == 1 and factor[0] > 0 and math.isfinite(factor[0]):
        if np.any(np.asarray(facts.scale) != 1) or np.any(np.asarray(facts.offset) != 0):
            facts.doubts['scale'] = (
                f'{file}: its header has data gain or offset values and a reflectance scale factor of {factor[0]:g}, '
                f'and does not say which the stored values are meant for; give scale={1 / factor[0]:g} for the '
                'second, or take it out of the header for the first'
            )
        else:
            facts.scale, facts.unit = 1 / factor[0], 'reflectance'
    for field in ('data_gain_values', 'data_offset_values'):
        if any(listed.get(field, [])) and len(numbers[field] or []) != count:
            facts.doubts['scale'] = (
                f'{file}: its {field.replace("_", " ")} are not {count} numbers, one per band; give scale'
            )
    if header.get('data_ignore_value'):  # GDAL takes a list, and words, for 0
        ignored = set(numbers['data_ignore_value'] or [])
        facts.nodata = min(ignored, default=None)
        if len(ignored) > 1:
            facts.doubts['nodata'] = f'{file}: its header has the data ignore values {sorted(ignored)}; give nodata'
    if any(listed.get('bbl', [])):
        facts.take_good_bands(numbers['bbl'] or [], {count}, file)
    for field in ('major_frame_offsets', 'minor_frame_offsets'):
        if any(numbers.get(field) or []):
            raise SceneFileError(f'{file}: its header has {field.replace("_", " ")}, which are not read')


def _numbers(texts: Sequence[str]) -> list[float] | None:
    """The numbers that texts hold; None if there are none, or anything else."""
    try:
        return [float(text) for text in texts if text] or None
    except ValueError:
        return None


def _map_envi(file: Path, header: Mapping[str, str], source: Any, facts: Facts) -> np.ndarray | None:
    """(H, W, C) view of a raw ENVI file's memory map; None where the file is not plain."""
    big = header.get('byte_order', '0').strip() == '1'
    dtype = np.dtype(source.dtypes[0]).newbyteorder('>' if big else '<')
    offset = int(header.get('header_offset', '0').strip() or 0)
    shape = (source.height, source.width, source.count)
    if header.get('file_compression', '0').strip() not in ('', '0') or offset < 0:
        return None
    found, expected = file.stat().st_size, offset + math.prod(shape) * dtype.itemsize
    if found < expected:
        raise SceneFileError(
            f'{file}: {found} bytes, but its header describes {expected}: {shape[0]} lines x {shape[1]} samples x '
            f'{shape[2]} bands of {dtype.name} after {offset} bytes. Is it complete, and of that format?'
        )
    if found > expected:
        facts.notices.append(
            f'{file}: {found} bytes, but its header describes {expected} only; check its lines, samples, bands, data '
            'type and header offset if values look wrong'
        )
    axes = _AXES.get(header.get('interleave', '').strip().lower()[:3])
    if axes is None:
        facts.notices.append(f'{file}: its header says no interleave (bsq, bil or bip); it is read as bsq')
        return None
    return np.memmap(file, dtype, 'r', offset, tuple(shape[axis] for axis in axes)).transpose(np.argsort(axes))
