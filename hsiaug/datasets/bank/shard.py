"""A shard of a bank: a safetensors file of stacked tensors, each with the checksums of its blocks.

A block is a run of rows of one tensor, about 64 KiB. Its SHA-256 is in the same file, written at the same time, so that
a shard can be verified before its bank has a record, and a reader verifies only the blocks that it accesses.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...samples import Layout
from .record import BankError, layout_bytes, numpy_dtype

BLOCK_BYTES = 64 << 10
DIGEST_BYTES = 32
TABLE = '.sha256'
"""Suffix of the names of checksum tables: (blocks, 32) uint8."""

_NAME = 'shard'
_HEADER_BYTES = 1 << 20  # far above the few hundred of a shard
_DTYPES = {torch.float32: 'F32', torch.int64: 'I64', torch.uint8: 'U8'}


@dataclass(frozen=True)
class Blocks:
    """Division of a tensor into blocks of ``rows``, each row an opaque item, which numpy copies at once."""

    rows: int
    item: np.dtype[Any]

    @classmethod
    def of(cls, dtype: torch.dtype, shape: tuple[int, ...]) -> Blocks:
        """Blocks of a tensor whose rows have this dtype and shape."""
        return cls.of_items(np.dtype((np.void, dtype.itemsize * math.prod(shape))))

    @classmethod
    def of_items(cls, item: np.dtype[Any]) -> Blocks:
        """Blocks of rows that are such items."""
        return cls(max(1, BLOCK_BYTES // item.itemsize), item)

    def number(self, count: int) -> int:
        """Blocks of ``count`` rows."""
        return -(-count // self.rows)

    def digests(self, items: np.ndarray, blocks: Iterable[int]) -> np.ndarray:
        """(b, 32) uint8 SHA-256 of some blocks of (n,) rows."""
        parts = (items[block * self.rows : (block + 1) * self.rows] for block in blocks)
        joined = b''.join(hashlib.sha256(part.view(np.uint8).data).digest() for part in parts)
        return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)


@dataclass(frozen=True)
class MappedShard:
    """A shard through a memory mapping.

    Args:
        items: (n,) rows of each tensor, as opaque items.
        tables: (blocks, 32) checksums of each tensor; None in a shard that has none.
        name: name given by its writer, if any.
    """

    items: Mapping[str, np.ndarray]
    tables: Mapping[str, np.ndarray] | None
    name: str | None = None

    @property
    def root(self) -> str | None:
        """Checksum of the checksums of all blocks, hexadecimal."""
        if self.tables is None:
            return None
        return hashlib.sha256(b''.join(self.tables[key].tobytes() for key in sorted(self.tables))).hexdigest()

    def altered(self) -> Iterator[str]:
        """Blocks that do not match their checksums; none in a shard without checksums."""
        for key, table in (self.tables or {}).items():
            found = Blocks.of_items(self.items[key].dtype).digests(self.items[key], range(len(table)))
            for block in np.flatnonzero((found != table).any(axis=1)).tolist():
                yield f'block {block} of {key} was altered'


def as_items(values: Tensor) -> np.ndarray:
    """(n,) view of contiguous (n, ...) with one item per row."""
    array = values.numpy()
    size = array.dtype.itemsize * math.prod(array.shape[1:])
    return array.reshape(len(array), -1).view(np.dtype((np.void, size)))[:, 0]


def write_shard(file: BinaryIO, tensors: Mapping[str, Tensor], name: str) -> None:
    """Write a shard of (n, ...) contiguous tensors, computing checksums on the way.

    The file equals that of ``safetensors.torch.save``, which would copy all values. Its name identifies its bank.
    """
    # Widest dtype first, so that all tensors are aligned.
    ordered = dict(sorted(tensors.items(), key=lambda pair: (-pair[1].dtype.itemsize, pair[0])))
    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(_block_tables, ordered)
        file.write(_header({key: (values.dtype, tuple(values.shape)) for key, values in ordered.items()}, name))
        file.writelines(values.reshape(-1).view(torch.uint8).numpy().data for values in ordered.values())
        file.flush()
        if hasattr(os, 'fdatasync'):
            os.fdatasync(file.fileno())
        tables = hashed.result()
    file.writelines(tables[key].data for key in sorted(tables))


def _block_tables(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    found = {}
    for key, values in tensors.items():
        blocks = Blocks.of(values.dtype, tuple(values.shape[1:]))
        found[key] = blocks.digests(as_items(values), range(blocks.number(len(values))))
    return found


def _header(whole: Layout, name: str) -> bytes:
    described: dict[str, Any] = {'__metadata__': {_NAME: name}}
    end = 0
    for key, (dtype, shape) in (whole | _tables(whole)).items():
        start, end = end, end + dtype.itemsize * math.prod(shape)
        described[key] = {'dtype': _DTYPES[dtype], 'shape': list(shape), 'data_offsets': [start, end]}
    text = json.dumps(described, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    return len(text).to_bytes(8, 'little') + text


def _tables(whole: Layout) -> Layout:
    """The tables of checksums of whole tensors."""
    numbers = {key: Blocks.of(dtype, shape[1:]).number(shape[0]) for key, (dtype, shape) in sorted(whole.items())}
    return {key + TABLE: (torch.uint8, (number, DIGEST_BYTES)) for key, number in numbers.items()}


def map_shard(path: Path, tensors: Layout, count: int) -> MappedShard:
    """Map a shard of ``count`` samples; its header is read and checked, its values are not.

    Pages of the mapping belong to the page cache; values are read on access.

    Raises:
        BankError: saying what the file is instead.
    """
    expected: Layout = {key: (dtype, (count, *shape)) for key, (dtype, shape) in tensors.items()}
    tables = _tables(expected)
    try:
        _require_short_header(path)
        with safe_open(path, framework='pt') as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            found = {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}
            with_tables = any(key in found for key in tables)
            _require_equal(path, found, expected | tables if with_tables else expected)
            items = {key: as_items(file.get_tensor(key)) for key in expected}
            if not with_tables:
                return MappedShard(items, None)
            name = (file.metadata() or {}).get(_NAME)
            return MappedShard(items, {key: file.get_tensor(key + TABLE).numpy() for key in expected}, name)
    except SafetensorError as error:
        raise BankError(f'{path.name} is no whole safetensors file ({error})') from error
    except OSError as error:
        raise BankError(f'{path.name} cannot be read ({error.strerror or error})') from error


def shard_bytes(tensors: Layout, count: int) -> int:
    """Approximate size of the file of a shard."""
    tables = _tables({key: (dtype, (count, *shape)) for key, (dtype, shape) in tensors.items()})
    return count * layout_bytes(tensors) + layout_bytes(tables) + 1024  # its header


def _require_short_header(path: Path) -> None:
    with path.open('rb') as file:
        length = int.from_bytes(file.read(8), 'little')
    if length > _HEADER_BYTES:
        raise BankError(f'{path.name} is not a shard: its header declares {length} bytes, a shard has hundreds')


def _require_equal(path: Path, found: Mapping[str, tuple[str, tuple[int, ...]]], expected: Layout) -> None:
    wanted = {key: (_DTYPES[dtype], shape) for key, (dtype, shape) in expected.items()}
    if problems := [
        f'{key} {_described(found.get(key))}, expected {_described(wanted.get(key))}'
        for key in sorted({**wanted, **found})
        if found.get(key) != wanted.get(key)
    ]:
        raise BankError(f'{path.name} does not hold what the record says: ' + '; '.join(problems[:4]))


def _described(what: tuple[str, tuple[int, ...]] | None) -> str:
    return 'is not there' if what is None else f'{what[0]} {what[1]}'


def row_values(items: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """(n, ...) values of (n,) rows."""
    return torch.from_numpy(items.view(numpy_dtype(dtype)).reshape(len(items), *shape))
