"""Content of ``bank.json``: all that determines the samples of a bank, and its shards with their checksums."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...records import as_record, read_json, require_plausible
from ...samples import Layout, Provenance, SampleSpec

FORMAT = 3
"""From format 2 on, shards have checksums of blocks; format 1 verifies whole shards; 3 has no file checksums."""
FORMATS = (1, 2, FORMAT)
BANK_FILE = 'bank.json'
WRITING_FILE = 'bank.writing.json'
FRACTIONS = 'class_fractions'
"""Tensor of a shard that is not part of samples: (n, K) class shares in the valid pixels of each mask."""


class BankError(ValueError):
    """A bank that cannot be read, written or exported as asked."""


@dataclass(frozen=True)
class Shard:
    """One file of a bank, its size and checksums in hexadecimal.

    Args:
        file: its name.
        count: samples in it.
        bytes: its size.
        blocks: checksum of the checksums of its blocks; None in banks of format 1.
        sha256: checksum of the whole file, in banks of formats 1 and 2.
    """

    file: str
    count: int
    bytes: int
    blocks: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class BankRecord:
    """The content of ``bank.json``. All except ``shards`` is the plan of a bank, which is made before writing.

    Args:
        format: version of the format.
        spec: spec of the samples.
        provenance: provenance of the generator they were drawn from; None if unknown.
        source: type and fingerprint of the source.
        device: kind of device that draws; the same seed gives slightly different values on other kinds. This and the
            next three are None for samples copied from a dataset.
        seed: seed of labels and noise.
        labels: label policy.
        label_counts: resulting number of samples per class.
        soft_labels: whether samples have ``label_prob``.
        count: number of samples.
        chunk: samples drawn at once.
        shard_size: samples per shard, in whole chunks.
        shards: the files; empty in a plan.
    """

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
    shards: list[Shard] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> tuple[BankRecord, dict[str, Any]]:
        """The record in a file, and its JSON.

        Raises:
            FileNotFoundError: if there is no such file.
            BankError: if it is not the record of a bank, contradicts itself, or declares impossible sizes.
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
        """Check numbers against each other before any memory is allocated accordingly."""

        def refuse(problem: str) -> None:
            raise BankError(f'{path} contradicts itself: {problem}; write the bank again into another folder')

        numbers = {'count': self.count, 'chunk': self.chunk, 'shard_size': self.shard_size}
        if wrong := {name: value for name, value in numbers.items() if value < 1}:
            refuse(f'numbers must be at least 1, found {wrong}')
        if min(self.spec.size or (1,)) < 1 or not self.spec.classes:
            refuse(f'samples of size {self.spec.size} with the classes {list(self.spec.classes)} hold nothing')
        listed = [(shard.file, shard.count) for shard in self.shards]
        if len(listed) != self.num_shards or listed != [(shard_name(n), len(self.rows(n))) for n in range(len(listed))]:
            refuse(
                f'{self.count} samples in shards of {self.shard_size} are {self.num_shards} shards, it lists '
                f'{len(listed)}: {listed[:4]}...'
            )
        row_bytes = layout_bytes(self.tensors())
        for shard in self.shards:
            if shard.sha256 is shard.blocks is None or (shard.blocks is None) != (self.shards[0].blocks is None):
                refuse(f'{shard.file} has no checksum as the others have')
            if shard.bytes < shard.count * row_bytes:
                refuse(f'{shard.count} samples of {row_bytes} bytes do not fit in {shard.file} of {shard.bytes} bytes')
        counts = self.label_counts
        if counts is not None and (
            len(counts) != self.spec.num_classes or min(counts) < 0 or sum(counts) != self.count
        ):
            refuse(f'label_counts {counts[:8]} must be those of {self.spec.num_classes} classes, {self.count} in all')
        if 'type' not in self.source:
            refuse(f'the source {self.source} has no type')

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.count // self.shard_size)

    def rows(self, number: int) -> range:
        """Samples of a shard."""
        return range(number * self.shard_size, min((number + 1) * self.shard_size, self.count))

    def tensors(self) -> Layout:
        """Dtype and shape, per sample, of each tensor in a shard."""
        more: Layout = {FRACTIONS: (torch.float32, (self.spec.num_classes,))} if self.spec.target_key == 'mask' else {}
        return self.spec.layout(self.soft_labels) | more

    def plan(self) -> dict[str, Any]:
        """All that determines the samples, in the form of parsed JSON."""
        return json.loads(json.dumps({key: value for key, value in asdict(self).items() if key != 'shards'}))

    def name_of(self, number: int) -> str:
        """Internal name of a shard, unique for this plan and position."""
        settings = {key: value for key, value in self.plan().items() if key != 'format'}
        return f'{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()} {number}'

    def differences(self, record: Mapping[str, Any]) -> list[str]:
        """Settings in which the record, or the plan, of a bank differs from this plan."""
        there, here = ({k: v for k, v in r.items() if k not in ('format', 'shards')} for r in (record, self.plan()))
        return list(_differences(there, here))

    def require_same(self, record: Mapping[str, Any], root: Path) -> None:
        """Check that a bank in a folder has this plan.

        Raises:
            BankError: naming each setting that differs.
        """
        if differences := self.differences(record):
            raise BankError(
                f'{root} holds a bank of other settings:\n  '
                + '\n  '.join(differences)
                + '\nRepeat the call that it was begun with, choose another folder, or remove it.'
            )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = '') -> Iterator[str]:
    for key in {**there, **here}:
        one, other = there.get(key), here.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f'{prefix}{key}.')
        elif one != other:
            yield f'{prefix}{key}: there {reprlib.repr(one)}, here {reprlib.repr(other)}'


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f'shard-{number:05d}.safetensors'


def layout_bytes(tensors: Layout) -> int:
    """Bytes of one sample."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in tensors.values())


@cache
def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The same dtype in numpy."""
    return torch.empty(0, dtype=dtype, device='cpu').numpy().dtype


def size_problem(path: Path, shard: Shard) -> str | None:
    """Fault in the size of a shard, found without reading it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return f'{shard.file} is missing'
    except OSError as error:
        return f'{shard.file} cannot be read ({error.strerror})'
    if status.st_size != shard.bytes:
        return f'{shard.file} has {status.st_size} bytes, expected {shard.bytes}'
    require_plausible(shard.bytes, 512 * status.st_blocks, str(path), BankError)  # sparse files take no blocks
    return None
