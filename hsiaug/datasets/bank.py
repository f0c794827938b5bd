"""A bank: synthetic samples on disk, read at random through a memory mapping.

A folder of safetensors shards, each with the stacked tensors of consecutive samples, and ``bank.json``, which says what
they hold and is written last.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torchgeo.datasets import NonGeoDataset
from tqdm.auto import tqdm

from ..samples import Provenance, Sample, SampleSpec
from .batches import unstack

FORMAT = 1
BANK_FILE = 'bank.json'
WRITING_FILE = 'bank.writing.json'
FRACTIONS = 'class_fractions'
"""Tensor of a shard that is no part of a sample: (n, K) share of each class in the counting pixels of each mask."""

_LARGE_ROW = 16 << 10  # bytes; above, copying row by row beats an index over the shard and the copy that it makes


Group = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]
"""Samples of a batch that lie in one shard: its tensors as items, (m,) places in the batch, (m,) rows of the shard."""


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
    """

    file: str
    count: int
    bytes: int
    sha256: str


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f'shard-{number:05d}.safetensors'


def has_masks(spec: SampleSpec) -> bool:
    """Whether the target of a sample is a mask."""
    return spec.kind in ('segmentation', 'change')


def layout(spec: SampleSpec, soft_labels: bool) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape of each tensor of a sample."""
    size = spec.size or ()
    dates = (2,) if spec.kind == 'change' else ()
    tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {'image': (torch.float32, (*dates, spec.bands, *size))}
    if has_masks(spec):
        tensors['mask'] = (torch.int64, (1, *size) if spec.kind == 'change' else size)
    else:
        tensors['label'] = (torch.int64, ())
    if soft_labels:
        tensors['label_prob'] = (torch.float32, (spec.num_classes,))
    return tensors


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The same dtype in numpy."""
    return torch.empty(0, dtype=dtype).numpy().dtype


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


class SyntheticBank(NonGeoDataset):
    """Synthetic samples of a folder that :func:`~hsiaug.datasets.bank_writer.write_bank` wrote.

    Opening reads ``bank.json`` and checks that every shard is there with its size. The checksum of a shard is verified
    when one of the processes that share this object touches it first.

    Args:
        root: folder of the bank.

    Attributes:
        spec: what the samples are.
        provenance: of the generator that they were drawn from, None where it is unknown.
        seed: of the draw; None for samples that were copied from a dataset.
        labels_policy: label policy of the draw; None for samples that were copied from a dataset.
        soft_labels: whether samples carry ``label_prob``.
        count: number of samples.
        record: the content of ``bank.json``.

    Raises:
        BankError: if the folder holds no finished bank, or a shard is missing or has another size.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        record = self._read_record()
        try:
            if record['format'] != FORMAT:
                raise BankError(
                    f'{self.root / BANK_FILE} has format {record["format"]}, this hsiaug reads format {FORMAT}; '
                    'read it with the version that wrote it'
                )
            self.record = record
            self.spec = SampleSpec.from_dict(record['spec'])
            self.provenance = Provenance.from_dict(record['provenance']) if record['provenance'] else None
            self.seed, self.labels_policy = record['seed'], record['labels']
            self.soft_labels, self.count = bool(record['soft_labels']), int(record['count'])
            self.chunk, self.shard_size = int(record['chunk']), int(record['shard_size'])
            self.shards = tuple(Shard(**shard) for shard in record['shards'])
            self._require_whole()
        except (KeyError, TypeError, AttributeError) as error:
            raise BankError(f'{self.root / BANK_FILE} is not the record of a bank: {error!r}') from error
        self._refuse(self._problem(number, whole=False) for number in range(len(self.shards)))
        # In shared memory, so that the workers of a loader verify a shard once between them.
        self._verified = torch.zeros(len(self.shards), dtype=torch.uint8).share_memory_()
        self._mapped: dict[int, dict[str, np.ndarray]] = {}
        self._layout = {
            key: (_item(numpy_dtype(dtype), shape), numpy_dtype(dtype), shape)
            for key, (dtype, shape) in layout(self.spec, self.soft_labels).items()
        }

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> SyntheticBank:
        """Open a bank; the same as calling the class."""
        return cls(root)

    def _read_record(self) -> Any:
        path = self.root / BANK_FILE
        try:
            self._stamp = _stamp(path)
            return json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BankError(f'{path} is damaged: {error}; write the bank again into another folder') from error
        except (FileNotFoundError, NotADirectoryError):
            raise BankError(_why_not(self.root)) from None

    def _require_whole(self) -> None:
        names = [shard_name(number) for number in range(math.ceil(self.count / self.shard_size))]
        counts = [min(self.shard_size, self.count - number * self.shard_size) for number in range(len(names))]
        if [(shard.file, shard.count) for shard in self.shards] != list(zip(names, counts, strict=True)):
            raise BankError(
                f'{self.root / BANK_FILE} contradicts itself: {self.count} samples in shards of {self.shard_size} are '
                f'{len(names)} shards, it lists {[(shard.file, shard.count) for shard in self.shards[:4]]}...; '
                'write the bank again into another folder'
            )

    # --- integrity --------------------------------------------------------------------------------------------------

    def _problem(self, number: int, whole: bool) -> str | None:
        """What is wrong with a shard; ``whole`` reads all of it."""
        shard = self.shards[number]
        path = self.root / shard.file
        try:
            if (size := path.stat().st_size) != shard.bytes:
                return f'{shard.file} has {size} bytes, expected {shard.bytes}'
            if whole and (found := checksum(path)) != shard.sha256:
                return f'{shard.file} has SHA-256 {found}, expected {shard.sha256}'
        except FileNotFoundError:
            return f'{shard.file} is missing'
        return None

    def _refuse(self, problems: Iterable[str | None]) -> None:
        if found := [problem for problem in problems if problem]:
            raise BankError(
                f'{self.root}: {len(found)} of {len(self.shards)} shards cannot be used:\n  '
                + '\n  '.join(found)
                + '\nRestore them from a copy, or write the bank again into another folder.'
            )

    def verify(self, progress: bool = False) -> None:
        """Read every shard and compare its checksum.

        Args:
            progress: show a progress bar.

        Raises:
            BankError: naming each shard that is missing, truncated or altered.
        """
        numbers = tqdm(range(len(self.shards)), desc='verify', unit='shard', disable=not progress)
        self._refuse([self._problem(number, whole=True) for number in numbers])
        self._verified.fill_(1)

    def _shard(self, number: int) -> dict[str, np.ndarray]:
        """Memory-mapped tensors of a shard, as items."""
        if number not in self._mapped:
            try:
                replaced = _stamp(self.root / BANK_FILE) != self._stamp
            except FileNotFoundError:
                replaced = True
            if replaced:
                raise BankError(f'{self.root}: the bank was replaced or removed while it was in use; open it again')
            self._refuse([self._problem(number, whole=not self._verified[number])])
            self._verified[number] = 1
            # The tensors are views of a private mapping of the file: pages come and go with the page cache, and
            # nothing is read before it is asked for.
            with safe_open(self.root / self.shards[number].file, framework='pt') as file:
                keys = file.keys()
                self._mapped[number] = {key: _as_items(file.get_tensor(key).numpy()) for key in keys}
        return self._mapped[number]

    def __getstate__(self) -> dict[str, Any]:
        """Without the mappings: a spawned worker makes its own."""
        return {**self.__dict__, '_mapped': {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self._verified.is_shared():  # sent elsewhere, where the files may be others
            self._verified = torch.zeros_like(self._verified).share_memory_()

    # --- samples ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of samples."""
        return self.count

    def batch(self, indices: Sequence[int] | Tensor, keys: Collection[str] | None = None) -> dict[str, Tensor]:
        """Samples of several indices, stacked in their order: ``image`` (n, ...), ``label`` (n,) or ``mask``, ...

        Args:
            indices: which samples; one may come several times.
            keys: read these tensors only.

        Raises:
            IndexError: if an index is out of range.
            BankError: if a shard is missing or its checksum is wrong.
        """
        rows = np.asarray(indices, dtype=np.int64)
        groups = self._by_shard(rows)
        batch = {}
        for key, (item, dtype, shape) in self._layout.items():
            if keys is not None and key not in keys:
                continue
            # numpy's memory, not torch's: it asks for huge pages, without which page faults cost more than the copy.
            items = np.empty(rows.size, item)
            _copy(groups, key, items)
            batch[key] = torch.from_numpy(items.view(dtype).reshape(rows.size, *shape))
        return batch

    def _by_shard(self, rows: np.ndarray) -> list[Group]:
        """(n,) rows, shard by shard."""
        if rows.size == 0:
            return []
        places = rows.argsort()
        ordered = rows[places]
        if ordered[0] < 0 or ordered[-1] >= self.count:
            raise IndexError(f'SyntheticBank: index out of range for {self.count} samples')
        numbers, within = np.divmod(ordered, self.shard_size)
        edges = [0, *((numbers[1:] != numbers[:-1]).nonzero()[0] + 1).tolist(), rows.size]
        return [
            (self._shard(int(numbers[start])), places[start:stop], within[start:stop])
            for start, stop in pairwise(edges)
        ]

    def __getitem__(self, index: int) -> Sample:
        """One sample in the sample contract."""
        return self.__getitems__([index + self.count if index < 0 else index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Samples of a whole batch, read at once."""
        return unstack(self.batch(indices))

    def labels(self) -> Tensor | None:
        """(N,) int64 labels; None where samples have masks."""
        return None if has_masks(self.spec) else torch.from_numpy(self._column('label', torch.int64))

    def class_fractions(self) -> Tensor | None:
        """(N, K) float32 share of each class in the counting pixels of each mask; None where samples have labels."""
        if not has_masks(self.spec):
            return None
        return torch.from_numpy(self._column(FRACTIONS, torch.float32).reshape(self.count, self.spec.num_classes))

    def _column(self, key: str, dtype: torch.dtype) -> np.ndarray:
        items = np.concatenate([self._shard(number)[key] for number in range(len(self.shards))])
        return items.view(numpy_dtype(dtype))

    @property
    def class_counts(self) -> np.ndarray | None:
        """(K,) number of samples per class; None where samples have masks."""
        labels = self.labels()
        if labels is None:
            return None
        counted = labels[(labels >= 0) & (labels < self.spec.num_classes)]
        return np.bincount(counted.numpy(), minlength=self.spec.num_classes)

    def __str__(self) -> str:
        """Folder, kind and size."""
        return f'{super().__str__()}\n    bank: {self.root}, kind {self.spec.kind}, {len(self.shards)} shards'


def _copy(groups: list[Group], key: str, items: np.ndarray) -> None:
    """Copy one tensor of all groups to their places in a batch."""
    if items.itemsize < _LARGE_ROW:
        for shard, places, rows in groups:
            items[places] = shard[key][rows]
        return
    for shard, places, rows in groups:
        source = shard[key]
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            items[place : place + 1] = source[row : row + 1]


def _item(dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.dtype[Any]:
    """A whole row as one opaque item, which numpy copies at once instead of value by value."""
    return np.dtype((np.void, dtype.itemsize * math.prod(shape)))


def _as_items(array: np.ndarray) -> np.ndarray:
    """(n,) view of (n, ...) with one item per row."""
    return array.reshape(len(array), -1).view(_item(array.dtype, array.shape[1:]))[:, 0]


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _why_not(root: Path) -> str:
    """Why a folder without ``bank.json`` cannot be opened."""
    if not root.is_dir():
        return f'no folder {root}; give the folder that hsiaug sample or write_bank wrote'
    try:
        plan = json.loads((root / WRITING_FILE).read_text())
        total = math.ceil(plan['count'] / plan['shard_size'])
    except (OSError, ValueError, KeyError, TypeError):
        found = sorted(path.name for path in root.iterdir())[:8]
        return f'{root} holds no {BANK_FILE} (found {found}); was it written by hsiaug sample or write_bank?'
    done = sum((root / shard_name(number)).exists() for number in range(total))
    return (
        f'{root} is a bank that is being written, or whose writing was cut short: {done} of {total} shards are done; '
        'wait for its writer, or give the same command (the same write_bank call) again and it goes on from there'
    )
