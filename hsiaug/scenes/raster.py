"""Rasters through GDAL: only formats that hold their own values, and nothing that lies elsewhere."""

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

from ..records import require_plausible
from .envi import envi_facts, map_envi
from .files import Content, Facts, SceneFileError, Variable
from .wavelengths import centres_of, sentinel2_centres

DRIVERS = ('GTiff', 'ENVI', 'PNG', 'JPEG', 'JP2OpenJPEG', 'BMP')
"""Formats of GDAL that are read: none that names other files or addresses (VRT, WMS, ...), under whatever suffix."""

_ALONE = {'GDAL_DISABLE_READDIR_ON_OPEN': 'EMPTY_DIR', 'GDAL_PAM_ENABLED': 'NO'}
"""GDAL opens overviews and masks next to a file with any of its formats; with these it sees the file alone."""

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

    An alpha band that ``bands`` name is a band like others.
    """
    with _open(file) as source:
        count, size = source.count, file.stat().st_size
        values = max(np.dtype(dtype).itemsize for dtype in source.dtypes) * count
        block = max((math.prod(side) for side in source.block_shapes), default=0)
        require_plausible(max(source.height * source.width, block) * values, size, where, SceneFileError)
        facts = Facts(channels_last=True)
        shown = _alpha(file, source, bands, facts)
        facts.measured = shown
        indexes = list(range(1, count + (shown is None)))
        header = {key.lower(): value for key, value in source.tags(ns='ENVI').items()}
        dtype = np.dtype(np.result_type(*(source.dtypes[i - 1] for i in indexes)))
        nodata = {value for i in indexes if (value := source.nodatavals[i - 1]) is not None}
        facts.nodata = next(iter(nodata), None)
        facts.wavelengths = _wavelengths(source, indexes, header)
        sides = [[float(values[i - 1]) for i in indexes] for values in (source.scales, source.offsets)]
        facts.scale, facts.offset = (side[0] if len(set(side)) == 1 else np.array(side) for side in sides)
        if not np.all(np.isfinite(facts.scale)) or np.any(np.asarray(facts.scale) == 0):
            facts.doubts = {'scale': f'{file} has the scale {facts.scale}, which makes no values; give scale'}
        if len([value for value in nodata if not np.isnan(value)]) + any(map(np.isnan, nodata)) > 1:
            facts.doubts = {**facts.doubts, 'nodata': f'{file} has a nodata value for each band; give nodata'}
        shape, driver = (source.height, source.width, len(indexes)), source.driver
        mapped = None
        if driver == 'ENVI':
            envi_facts(file, header, source, facts)
            mapped = map_envi(file, header, source)
        if facts.wavelengths is None:
            facts.wavelengths = sentinel2_centres([source.descriptions[i - 1] for i in indexes])
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


def _open(file: Path, drivers: Sequence[str] = DRIVERS) -> Any:
    """The raster, opened with one of the drivers."""
    path = str(file.resolve())  # absolute: no prefix of it can be one of GDAL's own (/vsicurl/, GTIFF_DIR:, zip://)
    reasons = []
    with warnings.catch_warnings():
        # A cube without map coordinates is as good as one with them here.
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        for driver in drivers:
            try:
                return rasterio.open(path, driver=driver)
            except RasterioIOError as error:
                reasons.append(str(error))
    said = [reason for reason in reasons if 'not recognized' not in reason]
    known = f'{", ".join(drivers)}; arrays are read from .npy, .npz, .mat, .h5 and .nc files'
    raise RasterioIOError(said[0] if said else f'{file} has none of the formats {known}')


def _wavelengths(source: Any, indexes: Sequence[int], header: Mapping[str, str]) -> np.ndarray | None:
    """(C,) nm from the tags of the bands."""
    common = {key.lower(): value for key, value in source.tags().items()}
    texts: list[str] = []
    units: list[str | None] = []
    for index in indexes:
        tags = {key.lower(): value for key, value in source.tags(index).items()}
        if not any(key in tags for key in _CENTRE_TAGS):
            tags = {key.lower(): value for key, value in source.tags(index, ns='IMAGERY').items()}
        key = next((key for key in _CENTRE_TAGS if key in tags), None)
        if key is None:
            return None
        said = [place[unit] for place in (tags, common, header) for unit in _UNIT_TAGS if unit in place]
        texts.append(tags[key])
        units.append(_CENTRE_TAGS[key] or (said[0] if said else None))
    return centres_of(texts, units)


def _alpha(file: Path, source: Any, bands: Sequence[int] | np.ndarray | None, facts: Facts) -> np.ndarray | None:
    """(H, W) bool: what the alpha band lets show; None where there is none, or where it is a band like the others.

    GDAL marks the last of four 8-bit bands as alpha if nobody says otherwise, so its values tell, or ``bands``.
    """
    last = source.count - 1
    if last == 0 or source.colorinterp[last] != ColorInterp.alpha or (bands is not None and last in np.asarray(bands)):
        return None
    alpha = source.read(source.count)
    shown = alpha > 0
    if bands is None and shown.any() and alpha[shown].min() != alpha.max():
        facts.notices = [
            f'{file}: band {last} (0-based) is marked as alpha, but holds more than 0 and one other value, and is read '
            f'as a band of the image; give bands={list(range(last))} if it is transparency, '
            f'bands={[*range(last), last]} if it is not'
        ]
        return None
    return shown


def _mask(file: Path) -> np.ndarray | None:
    """(H, W) bool: what the mask in or next to a GeoTIFF leaves in; None where there is none."""
    neighbour = file.with_name(f'{file.name}.msk')
    with rasterio.Env(**_ALONE):
        with _open(file, ('GTiff',)) as source:
            inside = any(MaskFlags.per_dataset in f and MaskFlags.alpha not in f for f in source.mask_flag_enums)
            if inside:
                return source.read_masks(1) > 0
            shape = (source.height, source.width)
        if not neighbour.is_file():
            return None
        with _open(neighbour, ('GTiff',)) as source:
            if (source.height, source.width) != shape:
                raise SceneFileError(f'{neighbour} is not a mask of {file}: it has another size')
            declared = source.count * shape[0] * shape[1]
            require_plausible(declared, neighbour.stat().st_size, str(neighbour), SceneFileError)
            return (source.read() > 0).all(axis=0)
