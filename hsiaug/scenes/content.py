"""Identity of a scene: fingerprint of its image, and everything that a result depends on.

Both depend on values, not on how a file stores them. The fingerprint tells whether a generator has seen pixels of
the scene, whatever its labels and unit; the content tells whether a result was measured on exactly this scene.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..seen import SceneFingerprint

_FINGERPRINT_PIXELS = 4096
_FORMER_TYPES = tuple(order + code for code in ('u1', 'i2', 'u2', 'i4', 'i8', 'f4', 'f8') for order in '<>')
"""Dtypes of files whose scenes older versions may have fingerprinted."""
_CHUNK_VALUES = 8_000_000  # values in memory at once


def image_fingerprint(cube: np.ndarray) -> SceneFingerprint:
    """16 hex digits of the shape of an (H, W, C) cube and of stored values of evenly spread pixels as float32.

    The same values in another dtype or byte order have the same fingerprint. Version 0.1.0 included the dtype of the
    file; its fingerprints of these values in all usual dtypes are remembered, so that its generators are recognised.
    """
    pixels = cube.shape[0] * cube.shape[1]
    at = np.unique(np.linspace(0, pixels - 1, min(pixels, _FINGERPRINT_PIXELS)).astype(int))
    stored = np.ascontiguousarray(cube[np.divmod(at, cube.shape[1])])

    def digest(values: np.ndarray, dtype: str) -> str:
        return hashlib.sha256(repr((cube.shape, dtype)).encode() + values.tobytes()).hexdigest()[:16]

    former = {digest(stored, str(stored.dtype))}
    for dtype in map(np.dtype, _FORMER_TYPES):
        with np.errstate(over='ignore', invalid='ignore'):
            other = stored.astype(dtype)
            same = np.array_equal(other.astype(np.float64), stored.astype(np.float64), equal_nan=True)
        if same:
            former.add(digest(other, str(dtype)))
    return SceneFingerprint(digest(_canonical(stored, '<f4'), 'float32'), former)


def scene_content(scene: Any) -> dict[str, Any]:
    """Everything about a scene that a result depends on, JSON-ready: its fields but the name, empty ones left out.

    A scene is a dataclass here, whatever its fields; one of them may be another scene.

    Values count, not how they are stored: arrays are digests of the cube as float32, which is what datasets read, of
    whole numbers as int64 and of others as float64, whatever their dtype and byte order. One pass over the cube.
    """
    found = {}
    for field in dataclasses.fields(scene):
        value = getattr(scene, field.name)
        if field.name != 'name' and value is not None:
            found[field.name] = _described(value, field.name)
    return {name: value for name, value in found.items() if value != {}}


def _described(value: Any, name: str) -> Any:
    if isinstance(value, np.ndarray) and value.ndim:
        return array_digest(value, '<f4' if name == 'cube' else None)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | float | np.number | np.ndarray):
        return float(value) if np.isfinite(value) else str(float(value))  # NaN is not equal to itself
    if isinstance(value, Mapping):
        return {str(key): _described(one, name) for key, one in sorted(value.items(), key=lambda item: str(item[0]))}
    if dataclasses.is_dataclass(value):
        return scene_content(value)
    if isinstance(value, list | tuple):
        return [_described(one, name) for one in value]
    return str(value)


def array_digest(array: np.ndarray, dtype: str | None = None) -> str:
    """16 hex digits of an array's shape and values; a memory map is read in parts.

    Values are compared as ``dtype``; if None, as int64 of whole numbers, else float64.
    """
    dtype = dtype or ('<f8' if np.issubdtype(array.dtype, np.floating) else '<i8')
    digest = hashlib.sha256(json.dumps([list(array.shape), dtype]).encode())
    step = max(1, _CHUNK_VALUES // max(1, array[:1].size))
    for start in range(0, len(array), step):
        values = _canonical(np.asarray(array[start : start + step]), dtype)
        digest.update(values.data)
    return digest.hexdigest()[:16]


def _canonical(values: np.ndarray, dtype: str) -> np.ndarray:
    """A contiguous copy in one dtype, in which equal values have equal bits."""
    with np.errstate(over='ignore', invalid='ignore'):
        copy = values.astype(dtype, order='C')
    if copy.dtype.kind == 'f':
        copy += 0  # −0 equals 0
        copy[np.isnan(copy)] = np.nan  # NaN has many bit patterns
    return copy
