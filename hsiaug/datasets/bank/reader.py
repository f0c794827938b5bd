"""Banks: synthetic samples on disk, memory-mapped for random access.

A bank is a folder of safetensors shards, each with the stacked tensors of consecutive samples, and ``bank.json``, which
describes them and is written last.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...progress import progress_bar
from ...records import checksum, read_json
from ...samples import class_counts
from ..contract.batches import ReadAtOnce, row_numbers
from ..contract.samples import value_problem
from .record import BANK_FILE, FRACTIONS, WRITING_FILE, BankError, BankRecord, Shard, size_problem
from .shard import Blocks, MappedShard, map_shard, row_values

_LARGE_ROW = 16 << 10  # bytes; above, copying row by row is faster than indexing the shard, which copies
_LONG_READ = 256 << 20  # bytes; verifying more than this shows a message


Group = tuple[MappedShard, np.ndarray | slice, np.ndarray]
"""Samples of a batch from one shard: its tensors, (m,) places in the batch, (m,) rows of the shard."""


@dataclass(frozen=True)
class _Column:
    """One tensor of all shards; its blocks are numbered from ``first`` to ``end`` - 1.

    Every shard has ``per_shard`` blocks, except the last, which may have fewer.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Blocks
    first: int
    per_shard: int
    end: int


class SyntheticBank(ReadAtOnce):
    """Synthetic samples in a folder written by :func:`~hsiaug.datasets.write_bank`.

    Opening reads ``bank.json`` and checks that every shard is present and has the right size. Contents are verified
    against the record on first access by any of the processes that share this object: the tensors of a shard and the
    checksums of its blocks, then the checksum and values of each accessed block of about 64 KiB (of the whole shard in
    banks of format 1, which have no checksums of blocks). :meth:`verify` checks everything.

    Args:
        root: folder of the bank; a relative path remains valid if the working directory changes.

    Attributes:
        spec: spec of the samples.
        provenance: provenance of the generator they were drawn from; None if unknown.
        seed: seed of the draw; None for samples copied from a dataset.
        labels_policy: label policy of the draw; None for samples copied from a dataset.
        soft_labels: whether samples have ``label_prob``.
        count: number of samples.
        record: the content of ``bank.json``.

    Raises:
        BankError: if the folder holds no finished bank, a shard is missing or has the wrong size, or the record
            contradicts itself.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser().absolute()
        record = self._read_record()
        self.spec, self.provenance = record.spec, record.provenance
        self.seed, self.labels_policy = record.seed, record.labels
        self.soft_labels, self.count = record.soft_labels, record.count
        self.chunk, self.shard_size = record.chunk, record.shard_size
        self.shards, self._tensors = tuple(record.shards), record.tensors()
        self._refuse(size_problem(self.root / shard.file, shard) for shard in self.shards)
        self._columns = self._cut(record)
        blocks = max(column.end for column in self._columns.values())
        # For each block, in shared memory, so that the workers of a loader verify it only once.
        self._verified = torch.zeros(blocks, dtype=torch.uint8).share_memory_()
        self._all_verified = False  # known to this process
        self._mapped: dict[int, MappedShard] = {}

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> SyntheticBank:
        """Open a bank; the same as calling the class."""
        return cls(root)

    def _read_record(self) -> BankRecord:
        path = self.root / BANK_FILE
        try:
            self._stamp = _stamp(path)
            record, self.record = BankRecord.read(path)
            self._digest = checksum(path)
        except (FileNotFoundError, NotADirectoryError):
            raise BankError(_why_not(self.root)) from None
        except OSError as error:
            raise BankError(f'{path} cannot be read ({error.strerror}); is this the folder of a bank?') from error
        return record

    @staticmethod
    def _cut(record: BankRecord) -> dict[str, _Column]:
        """All tensors, with the positions of their blocks."""
        columns, end = {}, 0
        for key, (dtype, shape) in record.tensors().items():
            blocks, first = Blocks.of(dtype, shape), end
            if record.shards[0].blocks is None:
                blocks = Blocks(record.shard_size, blocks.item)
            per_shard = blocks.number(len(record.rows(0)))
            end = first + per_shard * (record.num_shards - 1) + blocks.number(record.shards[-1].count)
            columns[key] = _Column(dtype, shape, blocks, first, per_shard, end)
        return columns

    # --- integrity --------------------------------------------------------------------------------------------------

    def verify(self, progress: bool = False) -> None:
        """Read every shard and check its checksum and values.

        Args:
            progress: show a progress bar.

        Raises:
            BankError: naming each shard that is missing, truncated, altered, or does not match the record.
        """
        problems = []
        with progress_bar(progress, total=len(self.shards), desc='verify', unit='shard') as advance:
            for number in range(len(self.shards)):
                problems.append(self._problem(number))
                advance(1)
        self._refuse(problems)
        self._verified.fill_(1)

    def _problem(self, number: int) -> str | None:
        """What is wrong with a shard, read whole."""
        shard = self.shards[number]
        path = self.root / shard.file
        try:
            if (problem := size_problem(path, shard)) is not None:
                return problem
            if shard.blocks is None and (found := checksum(path)) != shard.sha256:
                return f'{shard.file} has SHA-256 {found}, expected {shard.sha256}'
            mapped = self._map(shard)
        except BankError as error:
            return str(error)
        except OSError as error:
            return f'{shard.file} cannot be read ({error.strerror})'
        blocks = ((key, k) for key, column in self._columns.items() for k in range(column.blocks.number(shard.count)))
        problems = (self._block_problem(mapped, number, key, block) for key, block in blocks)
        return next(filter(None, problems), None)

    def _map(self, shard: Shard) -> MappedShard:
        """A mapped shard whose tensors and checksums match the record; its values are not yet verified.

        Raises:
            BankError: saying what it is instead.
        """
        mapped = map_shard(self.root / shard.file, self._tensors, shard.count)
        if shard.blocks is None:
            return MappedShard(mapped.items, None)
        if mapped.root != shard.blocks:
            raise BankError(
                f'{shard.file}: the checksums of its blocks have SHA-256 {mapped.root}, expected {shard.blocks}'
            )
        return mapped

    def _block_problem(self, mapped: MappedShard, number: int, key: str, block: int) -> str | None:
        """What is wrong with a block: its checksum, where it has one, or its values."""
        column, file = self._columns[key], self.shards[number].file
        items, start = mapped.items[key], block * column.blocks.rows
        if mapped.tables is not None and (column.blocks.digests(items, [block]) != mapped.tables[key][block]).any():
            return f'{file}: block {block} of {key} was altered'
        values = row_values(items[start : start + column.blocks.rows], column.dtype, column.shape)
        problem = value_problem(key, values, self.spec, number * self.shard_size + start)
        return problem and f'{file}: {problem}'

    def _refuse(self, problems: Iterable[str | None]) -> None:
        if found := [problem for problem in problems if problem]:
            raise BankError(
                f'{self.root}: {len(found)} of {len(self.shards)} shards cannot be used:\n  '
                + '\n  '.join(found)
                + '\nRestore them from a copy, or write the bank again into another folder.'
            )

    def _shard(self, number: int) -> MappedShard:
        """A mapped shard, compared with the record."""
        if number not in self._mapped:
            self._require_same_record()
            shard = self.shards[number]
            self._refuse([size_problem(self.root / shard.file, shard)])
            try:
                self._mapped[number] = self._map(shard)
            except BankError as error:
                self._refuse([str(error)])
        return self._mapped[number]

    def _require_same_record(self) -> None:
        path = self.root / BANK_FILE
        try:
            # A copy in its place, or with another time stamp, is the same bank.
            if (stamp := _stamp(path)) != self._stamp and checksum(path) == self._digest:
                self._stamp = stamp
            replaced = stamp != self._stamp
        except OSError:
            replaced = True
        if replaced:
            raise BankError(f'{self.root}: the bank was replaced or removed while it was in use; open it again')

    def _touch(self, keys: Iterable[str], numbers: np.ndarray, rows: np.ndarray) -> None:
        """Verify blocks of some tensors with these (n,) rows of (n,) shards, unless already verified."""
        if self._all_verified:
            return
        flags = self._verified.numpy()
        if flags.all():
            self._all_verified = True
            return
        missing = []
        for key in keys:
            column = self._columns[key]
            places = column.first + numbers * column.per_shard + rows // column.blocks.rows
            missing += [(key, place) for place in np.unique(places[flags[places] == 0]).tolist()]
        if missing:
            self._verify_blocks(missing)

    def _verify_blocks(self, missing: Sequence[tuple[str, int]]) -> None:
        """Verify blocks, given by tensor and position."""
        flags, name = self._verified.numpy(), self.root.name
        sizes = [self._columns[key].blocks.rows * self._columns[key].blocks.item.itemsize for key, _ in missing]
        shown, total = sum(sizes) >= _LONG_READ, sum(sizes)
        with progress_bar(shown, total=total, desc=f'verify {name}', unit='B', unit_scale=True) as advance:
            for (key, place), size in zip(missing, sizes, strict=True):
                column = self._columns[key]
                number, block = divmod(place - column.first, column.per_shard)
                mapped = self._shard(number)
                if mapped.tables is not None:
                    self._refuse([self._block_problem(mapped, number, key, block)])
                    flags[place] = 1
                elif not flags[place]:  # the checksum of format 1 is of all tensors, each of which is one block
                    self._refuse([self._problem(number)])
                    flags[[other.first + number for other in self._columns.values()]] = 1
                advance(size)

    def __getstate__(self) -> dict[str, Any]:
        """State without mappings: a spawned worker makes its own."""
        return {**self.__dict__, '_mapped': {}, '_all_verified': False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self._verified.is_shared():  # sent to where files may differ
            self._verified = torch.zeros_like(self._verified).share_memory_()

    # --- samples ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int] | Tensor, keys: Collection[str] | None = None) -> dict[str, Tensor]:
        """Samples at several indices, stacked in their order: ``image`` (n, ...), ``label`` (n,) or ``mask``, ...

        Args:
            indices: indices of the samples, which may repeat.
            keys: read only these tensors.

        Raises:
            IndexError: if an index is out of range.
            BankError: if a shard is missing, its checksum is wrong, or samples have no such tensor.
        """
        if unknown := set(keys or ()) - set(self._columns):
            raise BankError(f'{self.root}: samples have no {sorted(unknown)}; choose from {list(self._columns)}')
        rows = row_numbers(indices, self.count, 'SyntheticBank')
        wanted = [key for key in self._columns if key != FRACTIONS and (keys is None or key in keys)]
        groups = self._by_shard(rows, wanted)
        batch = {}
        for key in wanted:
            column = self._columns[key]
            # Memory of numpy, which requests huge pages; with torch's, page faults would cost more than the copy.
            items = np.empty(rows.size, column.blocks.item)
            for shard, places, within in groups:
                source = shard.items[key]
                if items.itemsize < _LARGE_ROW:
                    items[places] = source[within]
                    continue
                for place, row in zip(np.arange(rows.size)[places].tolist(), within.tolist(), strict=True):
                    items[place : place + 1] = source[row : row + 1]
            batch[key] = row_values(items, column.dtype, column.shape)
        return batch

    def _by_shard(self, rows: np.ndarray, keys: Sequence[str]) -> list[Group]:
        """(n,) rows by shard, verified for these tensors."""
        if rows.size == 0:
            return []
        numbers, within = np.divmod(rows, self.shard_size)
        self._touch(keys, numbers, within)
        if (numbers == numbers[0]).all():
            return [(self._shard(int(numbers[0])), slice(None), within)]
        places = numbers.argsort(kind='stable')
        numbers, within = numbers[places], within[places]
        edges = [0, *((numbers[1:] != numbers[:-1]).nonzero()[0] + 1).tolist(), rows.size]
        return [
            (self._shard(int(numbers[start])), places[start:stop], within[start:stop])
            for start, stop in pairwise(edges)
        ]

    def labels(self) -> Tensor | None:
        """(N,) int64 labels; None where samples have masks."""
        return None if self.spec.target_key == 'mask' else self._whole_column('label')

    def class_fractions(self) -> Tensor | None:
        """(N, K) float32 share of each class in the counting pixels of each mask; None where samples have labels."""
        return self._whole_column(FRACTIONS) if self.spec.target_key == 'mask' else None

    def _whole_column(self, key: str) -> Tensor:
        column = self._columns[key]
        unknown = np.flatnonzero(self._verified[column.first : column.end].numpy() == 0) + column.first
        self._verify_blocks([(key, place) for place in unknown.tolist()])
        items = np.concatenate([self._shard(number).items[key] for number in range(len(self.shards))])
        return row_values(items, column.dtype, column.shape)

    @property
    def class_counts(self) -> np.ndarray | None:
        """(K,) number of samples per class; None where samples have masks."""
        labels = self.labels()
        return None if labels is None else class_counts(labels, self.spec.num_classes)

    def __str__(self) -> str:
        return f'{super().__str__()}\n    bank: {self.root}, kind {self.spec.kind}, {len(self.shards)} shards'


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _why_not(root: Path) -> str:
    """Reason why a folder without ``bank.json`` cannot be opened."""
    if root.is_file():
        return f'{root} is a file; give the folder of the bank that holds {BANK_FILE} (an archive has to be unpacked)'
    if not root.is_dir():
        return f'no folder {root}; give the folder that hsiaug sample or write_bank wrote'
    found = sorted(path.name for path in root.iterdir())
    if WRITING_FILE not in found:
        return f'{root} holds no {BANK_FILE} (found {found[:8]}); was it written by hsiaug sample or write_bank?'
    try:
        plan = read_json(root / WRITING_FILE, 'the plan of a bank')
        total = str(-(-plan['count'] // plan['shard_size']))
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        total = 'unknown'
    done = sum(name.startswith('shard-') and name.endswith('.safetensors') for name in found)
    return (
        f'{root} is a bank that is being written, or whose writing was cut short: {done} of {total} shards are done; '
        'wait for its writer, or give the same command (the same write_bank call) again and it continues from there'
    )


__all__ = ['BANK_FILE', 'WRITING_FILE', 'BankError', 'SyntheticBank', 'checksum']
