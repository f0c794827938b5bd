"""ENVI images: header entries that GDAL does not apply, and memory maps of their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import Facts, SceneFileError
from .labels import class_names_of, names_for
from .wavelengths import centres_of

DATA_SUFFIXES = ('.img', '.dat', '.bsq', '.bil', '.bip', '.raw', '.bin')
_AXES = {'bsq': (1, 2, 0), 'bil': (0, 2, 1), 'bip': (0, 1, 2)}


def data_file(header: Path) -> Path:
    """The file of the values next to an ENVI header."""
    stem = header.name[: -len(header.suffix)]
    neighbours = [
        path
        for path in sorted(header.parent.iterdir())
        if path != header and path.is_file() and (path.name == stem or path.stem.lower() == stem.lower())
    ]
    exact = [path for path in neighbours if path.name == stem]
    usual = [path for path in neighbours if path.suffix.lower() in DATA_SUFFIXES]
    found = exact or usual or [path for path in neighbours if path.suffix.lower() not in ('.hdr', '.xml', '.sta')]
    if len(found) != 1:
        names = [path.name for path in found]
        raise SceneFileError(
            f'{header} is an ENVI header, and '
            + (
                f'its values may be in any of {names}'
                if names
                else f'no file named {stem} or {stem}.img lies next to it'
            )
            + '; give the file of the values'
        )
    return found[0]


def envi_facts(file: Path, header: Mapping[str, str], source: Any, facts: Facts) -> None:
    """Complete ``facts`` by a header: reflectance scale factor, bad bands, class names, wavelengths in any unit.

    Fields of the header are in lower case with ``_`` for spaces. GDAL, which opened the ``source``, has applied none of
    them, but read nodata, gains and offsets.
    """
    count = source.count
    facts.wavelengths = None
    texts = listed(header.get('wavelength', ''))
    if len(texts) == count:
        facts.wavelengths = centres_of(texts, [header.get('wavelength_units')] * count)
    names = class_names_of(header.get('class_names', '').strip().strip('{}').split(','))
    facts.class_names = names_for(None, names)
    doubts = dict(facts.doubts)

    factor = numbers(header.get('reflectance_scale_factor', ''))
    if factor is not None and len(factor) == 1 and factor[0] > 0 and math.isfinite(factor[0]):
        if np.any(np.asarray(facts.scale) != 1) or np.any(np.asarray(facts.offset) != 0):
            doubts['scale'] = (
                f'{file}: its header has data gain or offset values and a reflectance scale factor of {factor[0]:g}, '
                f'and does not say which the stored values are meant for; give scale={1 / factor[0]:g} for the '
                'second, or take it out of the header for the first'
            )
        else:
            facts.scale, facts.unit = 1 / factor[0], 'reflectance'

    good = numbers(header.get('bbl', ''))
    if good is not None:
        if len(good) != count or not any(good):
            doubts['bands'] = (
                f'{file}: its bad band list (bbl) has {len(good)} values for {count} bands, '
                f'{int(np.count_nonzero(good))} of them good; give bands'
            )
        elif not all(good):
            facts.good_bands = np.flatnonzero(good)
    facts.doubts = doubts
    for field in ('major_frame_offsets', 'minor_frame_offsets'):
        if any(numbers(header.get(field, '')) or []):
            raise SceneFileError(f'{file}: its header has {field.replace("_", " ")}, which are not read')


def map_envi(file: Path, header: Mapping[str, str], source: Any) -> np.ndarray | None:
    """(H, W, C) view of a raw ENVI file's memory map; None where the file is not plain."""
    dtype = np.dtype(source.dtypes[0])
    dtype = dtype.newbyteorder('>' if header.get('byte_order', '0').strip() == '1' else '<')
    offset = int(header.get('header_offset', '0').strip() or 0)
    height, width, channels = source.height, source.width, source.count
    if header.get('file_compression', '0').strip() not in ('', '0') or offset < 0:
        return None
    found, expected = file.stat().st_size, offset + height * width * channels * dtype.itemsize
    if found < expected:
        raise SceneFileError(
            f'{file}: {found} bytes, but its header describes {expected}: {height} lines x {width} samples x '
            f'{channels} bands of {dtype.name} after {offset} bytes. Is it complete, and of that format?'
        )
    interleave = header.get('interleave', '').strip().lower()[:3]
    shapes = {'bsq': (channels, height, width), 'bil': (height, channels, width), 'bip': (height, width, channels)}
    if interleave not in shapes:
        return None
    return np.memmap(file, dtype, 'r', offset, shapes[interleave]).transpose(_AXES[interleave])


def listed(text: str) -> list[str]:
    """What a list such as ``{1, 2}`` holds, or a single value."""
    return [part.strip() for part in text.strip().strip('{}').split(',') if part.strip()]


def numbers(text: str) -> list[float] | None:
    """Numbers of a list, or a single one; None where it holds anything else."""
    try:
        return [float(part) for part in listed(text)] or None
    except ValueError:
        return None
