"""A shard of a bank: a safetensors file of stacked tensors, and beside each the checksums of its blocks.

A block is a run of rows of one tensor, about 64 KiB. Its SHA-256 lies in the same file, written in the same moment, so
that a shard speaks for itself where a bank has no record yet, and a reader verifies only what it touches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .bank_record import BankError, Layout, layout_bytes, numpy_dtype

BLOCK_BYTES = 64 << 10
DIGEST_BYTES = 32
TABLE = '.sha256'
"""Ending of the name of a table of checksums: (blocks, 32) uint8."""

_NAME = 'shard'
_HEADER_BYTES = 1 << 20  # the header of a shard has hundreds
_DTYPES = {torch.float32: 'F32', torch.int64: 'I64', torch.uint8: 'U8'}


@dataclass(frozen=True)
class Blocks:
    """How a tensor of a shard is cut.

    Args:
        rows: in a block.
        item: a whole row as one opaque item, which numpy copies at once instead of value by value.
    """

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
        name: what its writer called it, None where it has no name.
    """

    items: Mapping[str, np.ndarray]
    tables: Mapping[str, np.ndarray] | None
    name: str | None = None

    @property
    def root(self) -> str | None:
        """Checksum of the checksums, hexadecimal."""
        return None if self.tables is None else root_of(self.tables)

    def altered(self) -> Iterator[str]:
        """Which blocks do not have their checksums; none in a shard without."""
        for key, table in (self.tables or {}).items():
            found = Blocks.of_items(self.items[key].dtype).digests(self.items[key], range(len(table)))
            for block in np.flatnonzero((found != table).any(axis=1)).tolist():
                yield f'block {block} of {key} was altered'


def as_items(values: Tensor) -> np.ndarray:
    """(n,) view of contiguous (n, ...) with one item per row."""
    array = values.numpy()
    size = array.dtype.itemsize * math.prod(array.shape[1:])
    return array.reshape(len(array), -1).view(np.dtype((np.void, size)))[:, 0]


def root_of(tables: Mapping[str, np.ndarray]) -> str:
    """Checksum of the checksums of all blocks, hexadecimal."""
    return hashlib.sha256(b''.join(tables[key].tobytes() for key in sorted(tables))).hexdigest()


def packed(tensors: Mapping[str, Tensor], name: str) -> tuple[bytes, str]:
    """The file of a shard and the checksum of its checksums.

    Args:
        tensors: (n, ...) each, on the CPU.
        name: to know it by where no record names it.
    """
    tables = {}
    for key, values in tensors.items():
        blocks = Blocks.of(values.dtype, tuple(values.shape[1:]))
        tables[key] = blocks.digests(as_items(values.contiguous()), range(blocks.number(len(values))))
    joined = {key: values.contiguous() for key, values in tensors.items()}
    joined |= {key + TABLE: torch.from_numpy(table.copy()) for key, table in tables.items()}
    # One entry: safetensors writes several in random order.
    return save(joined, {_NAME: name}), root_of(tables)


def map_shard(path: Path, tensors: Layout, count: int) -> MappedShard:
    """Map a shard; its header is read and compared, its values are not.

    Pages of the mapping come and go with the page cache, and nothing is read before it is asked for.

    Args:
        path: of the file.
        tensors: that it must hold.
        count: samples that it must hold.

    Raises:
        BankError: saying what the file is instead.
    """
    expected: Layout = {key: (dtype, (count, *shape)) for key, (dtype, shape) in tensors.items()}
    tables: Layout = {
        key + TABLE: (torch.uint8, (Blocks.of(dtype, shape).number(count), DIGEST_BYTES))
        for key, (dtype, shape) in tensors.items()
    }
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
    """About how large the file of a shard is."""
    tables = sum(Blocks.of(dtype, shape).number(count) for dtype, shape in tensors.values()) * DIGEST_BYTES
    return count * layout_bytes(tensors) + tables + 1024  # its header


def _require_short_header(path: Path) -> None:
    with path.open('rb') as file:
        length = int.from_bytes(file.read(8), 'little')
    if length > _HEADER_BYTES:
        raise BankError(f'{path.name} is no shard: its header declares {length} bytes, a shard has hundreds')


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
