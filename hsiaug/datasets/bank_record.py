"""What ``bank.json`` says: the layout of a bank's samples, and its shards with their checksums."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..records import as_record, read_json, require_plausible
from ..samples import Provenance, SampleSpec

FORMAT = 2
"""2 has checksums of blocks in its shards; banks of format 1 are verified shard by shard."""
FORMATS = (1, FORMAT)
BANK_FILE = 'bank.json'
WRITING_FILE = 'bank.writing.json'
FRACTIONS = 'class_fractions'
"""Tensor of a shard that is no part of a sample: (n, K) share of each class in the counting pixels of each mask."""

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Dtype and shape, per sample, of each tensor."""


class BankError(ValueError):
    """A bank that cannot be read, written or exported as asked."""


@dataclass(frozen=True)
class Shard:
    """One file of a bank.

    Args:
        file: its name.
        count: samples in it.
        bytes: its size.
        sha256: its checksum, hexadecimal.
        blocks: checksum of the checksums of its blocks, hexadecimal; None in banks of format 1.
    """

    file: str
    count: int
    bytes: int
    sha256: str
    blocks: str | None = None


@dataclass(frozen=True)
class BankRecord:
    """The content of ``bank.json``; all but ``shards`` is what :class:`~hsiaug.datasets.bank_plan.Plan` says."""

    format: int
    spec: SampleSpec
    provenance: Provenance | None
    source: dict[str, str]
    device: str | None
    seed: int | None
    labels: str | dict[str, float] | None
    label_counts: list[int] | None
    soft_labels: bool
    count: int
    chunk: int
    shard_size: int
    shards: list[Shard]

    @classmethod
    def read(cls, path: Path) -> tuple[BankRecord, dict[str, Any]]:
        """The record in a file, and the JSON that it was.

        Raises:
            FileNotFoundError: if there is no such file.
            BankError: if it is no record of a bank, contradicts itself, or declares what no file could hold.
        """
        found = read_json(path, 'the record of a bank, or is damaged', BankError)
        if found.get('format') not in FORMATS:
            raise BankError(
                f'{path} has format {found.get("format")!r}, this hsiaug reads formats {FORMATS}; '
                'read it with the version that wrote it'
            )
        record = as_record(cls, found, f'{path} is not the record of a bank', BankError)
        record._require_consistent(path)
        return record, found

    def _require_consistent(self, path: Path) -> None:
        """Check numbers against each other before anything is as large as one of them."""

        def refuse(problem: str) -> None:
            raise BankError(f'{path} contradicts itself: {problem}; write the bank again into another folder')

        numbers = {'count': self.count, 'chunk': self.chunk, 'shard_size': self.shard_size}
        if wrong := {name: value for name, value in numbers.items() if value < 1}:
            refuse(f'numbers must be at least 1, found {wrong}')
        if min(self.spec.size or (1,)) < 1 or not self.spec.classes:
            refuse(f'samples of size {self.spec.size} with the classes {list(self.spec.classes)} hold nothing')
        wanted = -(-self.count // self.shard_size)
        listed = [(shard.file, shard.count) for shard in self.shards]
        if len(listed) != wanted or any(pair != self._expected(n) for n, pair in enumerate(listed)):
            refuse(
                f'{self.count} samples in shards of {self.shard_size} are {wanted} shards, it lists '
                f'{len(listed)}: {listed[:4]}...'
            )
        row_bytes = layout_bytes(stored_layout(self.spec, self.soft_labels))
        for shard in self.shards:
            if shard.bytes < shard.count * row_bytes:
                refuse(f'{shard.count} samples of {row_bytes} bytes do not fit in {shard.file} of {shard.bytes} bytes')
        counts = self.label_counts
        if counts is not None and (
            len(counts) != self.spec.num_classes or min(counts) < 0 or sum(counts) != self.count
        ):
            refuse(f'label_counts {counts[:8]} must be those of {self.spec.num_classes} classes, {self.count} in all')
        if 'type' not in self.source:
            refuse(f'the source {self.source} has no type')

    def _expected(self, number: int) -> tuple[str, int]:
        return shard_name(number), min(self.shard_size, self.count - number * self.shard_size)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f'shard-{number:05d}.safetensors'


def layout(spec: SampleSpec, soft_labels: bool) -> Layout:
    """Dtype and shape of each tensor of a sample."""
    tensors: Layout = {'image': (torch.float32, spec.image_shape), spec.target_key: (torch.int64, spec.target_shape)}
    if soft_labels:
        tensors['label_prob'] = (torch.float32, (spec.num_classes,))
    return tensors


def stored_layout(spec: SampleSpec, soft_labels: bool) -> Layout:
    """Dtype and shape, per sample, of each tensor in a shard."""
    more: Layout = {FRACTIONS: (torch.float32, (spec.num_classes,))} if spec.target_key == 'mask' else {}
    return layout(spec, soft_labels) | more


def layout_bytes(tensors: Layout) -> int:
    """Bytes of one sample."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in tensors.values())


@cache
def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The same dtype in numpy."""
    return torch.empty(0, dtype=dtype, device='cpu').numpy().dtype


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def size_problem(path: Path, shard: Shard) -> str | None:
    """What is wrong with the size of a shard, seen without reading it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return f'{shard.file} is missing'
    except OSError as error:
        return f'{shard.file} cannot be read ({error.strerror})'
    if status.st_size != shard.bytes:
        return f'{shard.file} has {status.st_size} bytes, expected {shard.bytes}'
    require_plausible(shard.bytes, 512 * status.st_blocks, str(path), BankError)  # holes take no blocks
    return None


def value_problem(key: str, values: Tensor, spec: SampleSpec, first: int) -> str | None:
    """What in the values of a tensor breaks the sample contract.

    Args:
        key: of the tensor.
        values: (n, ...).
        spec: of the samples.
        first: number of the first sample, for messages.
    """
    if values.is_floating_point():
        # What is not finite shows in the sum, which takes a tenth of the time; so does, rarely, what is merely large.
        if torch.isfinite(values.sum()) or torch.isfinite(values).all():
            return None
        finite = torch.isfinite(values).reshape(len(values), -1).all(dim=1)
        bad = first + int(finite.to(torch.uint8).argmin())
        return f'{int((~finite).sum())} have NaN or infinite values in {key}, the first is {bad}'
    classes = min(2, spec.num_classes) if spec.kind == 'change' else spec.num_classes
    low, high = values.aminmax()
    if low >= 0 and high < classes:
        return None
    allowed = (values >= 0) & (values < classes)
    if spec.ignore_index is not None:
        allowed |= values == spec.ignore_index
    if allowed.all():
        return None
    return (
        f'{key} holds {values[~allowed].unique().tolist()[:8]}, expected 0 to {classes - 1}'
        + (f' or ignore index {spec.ignore_index}' if spec.ignore_index is not None else '')
        + f' (classes {list(spec.classes)})'
    )
