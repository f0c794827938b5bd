"""Band centres in nm, from the various forms in files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

MICROMETRES_BELOW = 100.0
"""Centres without a unit are in micrometres if all are below this: no sensor has bands below 100 nm."""

SENTINEL2_NM = {
    'B01': 442.7, 'B02': 492.4, 'B03': 559.8, 'B04': 664.6, 'B05': 704.1, 'B06': 740.5, 'B07': 782.8, 'B08': 832.8,
    'B8A': 864.7, 'B09': 945.1, 'B10': 1373.5, 'B11': 1613.7, 'B12': 2202.4,
}  # fmt: skip
"""Centres of Sentinel-2A's bands (ESA, spectral response functions 3.0); those of 2B and 2C differ by up to 17 nm."""

_TO_NM = {
    **dict.fromkeys(('nanometer', 'nanometre', 'nm'), 1.0),
    **dict.fromkeys(('micrometer', 'micrometre', 'micron', 'um', 'µm', 'μm'), 1e3),
    **dict.fromkeys(('angstrom', 'ångström', 'å'), 0.1),
    **dict.fromkeys(('millimeter', 'millimetre', 'mm'), 1e6),
    **dict.fromkeys(('centimeter', 'centimetre', 'cm'), 1e7),
    **dict.fromkeys(('meter', 'metre', 'm'), 1e9),
}
_WAVENUMBERS = ('wavenumber', 'cm-1', 'cm^-1', '1/cm')
_UNSAID = ('', 'unknown')
_NUMBER_AND_UNIT = re.compile(r'\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\s\d,;][^,;]*)?\s*')

_WITHIN_NAME = re.compile(r'\d+(\.\d+)?\s*(nm|nanomet\w+|[uµμ]m|micromet\w+|microns?)\b', re.IGNORECASE)


def to_nanometres(values: Sequence[float | str] | np.ndarray, unit: str | None = None) -> np.ndarray | None:
    """(C,) band centres in nm, of numbers or of texts such as ``'442.0 nm'``; None if the values are not wavelengths.

    If the unit in the file is None, empty or ``'Unknown'``, or would put all bands where no sensor has any, the size
    of the values distinguishes nm from micrometres. None for NaN and values that are not positive, for indices,
    frequencies and unknown units: no wavelengths are better than wrong ones.
    """
    found = np.asarray(values).reshape(-1)
    if found.dtype.kind == 'U':
        return centres_of(found.tolist(), [unit] * found.size)
    numbers = found.astype(np.float64)
    name = (unit or '').strip(' ()[]{}').lower()
    name = name if name in _TO_NM or name in _WAVENUMBERS else name.removesuffix('s')
    if not numbers.size or not np.isfinite(numbers).all() or numbers.min() <= 0:
        return None
    factor = _TO_NM.get(name)
    if (factor == 1 and numbers.max() < MICROMETRES_BELOW) or (factor == 1e3 and numbers.min() >= MICROMETRES_BELOW):
        name, factor = '', None
    if factor is not None:
        return numbers * factor
    if name in _WAVENUMBERS:
        return 1e7 / numbers
    if name not in _UNSAID or (numbers.size > 1 and np.array_equal(numbers, np.arange(1, numbers.size + 1))):
        return None
    return numbers * 1000 if numbers.max() < MICROMETRES_BELOW else numbers


def given_centres(values: Sequence[float] | np.ndarray | None, where: str) -> np.ndarray | None:
    """(C,) nm from centres given by a user in nm or micrometres; None for None.

    Raises:
        ValueError: if they are no wavelengths.
    """
    centres = None if values is None else to_nanometres(values)
    if values is not None and centres is None:
        raise ValueError(f'{where}: wavelengths must be band centres in nm, positive and no indices, found {values}')
    return centres


def centres_in_names(names: Sequence[str]) -> np.ndarray | None:
    """(C,) nm from names that say a wavelength each, such as ``'Band 1 (423.03 Nanometers)'``; None for others."""
    found = [_WITHIN_NAME.search(name) for name in names]
    said = [match[0] for match in found if match is not None]
    return centres_of(said, [None] * len(said)) if len(said) == len(names) else None


def sentinel2_centres(names: Any) -> np.ndarray | None:
    """(C,) nm of bands named like those of Sentinel-2 (``'B04'``, ``'S2_B04'``); None for other names.

    Landsat's bands have such names too, in HLS even with the zero, but there is no B8A or B08; if there are bands
    beyond the visible, one of these must be among them.
    """
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        return None
    plain = [name.strip().upper().removeprefix('S2_').split(' ')[0] for name in names]
    if not set(plain) <= SENTINEL2_NM.keys() or len(set(plain)) < len(plain):
        return None
    if not {'B08', 'B8A'} & set(plain) and not set(plain) <= {'B01', 'B02', 'B03', 'B04'}:
        return None
    return np.array([SENTINEL2_NM[name] for name in plain])


def centres_of(texts: Sequence[str], units: Sequence[str | None]) -> np.ndarray | None:
    """(C,) nm from one text, such as ``'442.0 nm'``, and one unit per band; None where any is not a wavelength."""
    parsed = [(_NUMBER_AND_UNIT.fullmatch(text), unit) for text, unit in zip(texts, units, strict=True)]
    pairs = [(float(found[1]), found[2] or unit) for found, unit in parsed if found is not None]
    if not pairs or len(pairs) < len(parsed):
        return None
    if len({unit for _, unit in pairs}) == 1:  # together: size tells nm from micrometres for all bands at once
        return to_nanometres([value for value, _ in pairs], pairs[0][1])
    each = [to_nanometres([value], unit) for value, unit in pairs]
    known = [centre for centre in each if centre is not None]
    return np.concatenate(known) if len(known) == len(each) else None
