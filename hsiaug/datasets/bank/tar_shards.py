"""Samples in tar shards of the webdataset library, accessed by index.

https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset

from ...records import read_json
from ...samples import Provenance, Sample, SampleSpec
from ...scenes.formats import npy_header
from ..contract.batches import row_numbers
from .export import RECORD_FILE

KEYS = {'npy': 'image', 'cls': 'label'}
"""Keys of members whose names consist of a suffix only."""
_PICKLES = ('pkl', 'pickle', 'pyd', 'pth', 'pt')


class TarShards(NonGeoDataset):
    """Samples in tar files: a sample consists of the members whose names agree up to the first dot of the file name.

    ``000017.image.npy`` is the ``image`` and ``000017.label.cls`` (or ``000017.cls``) the ``label`` of one sample.
    Headers are read once, samples in place. ``.npy`` gives an array, ``.cls`` a class number, ``.txt`` text; other
    members are left out, and shards with pickles are refused: nothing is ever unpickled.

    Shards written by :func:`~hsiaug.datasets.export_bank` have a spec and provenance; pass other shards to
    :func:`~hsiaug.datasets.adapt`.

    Args:
        shards: a folder of ``.tar`` files, one such file, or several. Compressed files cannot be read by index.
        keys: names of members in a sample, such as ``{'hsi.npy': 'image', 'truth.npy': 'mask'}``; others keep
            their name before the suffix.

    Raises:
        DatasetNotFoundError: if there are no shards.
        ValueError: if a file is not a tar file, holds pickles, or a sample lacks a member that the first has.
    """

    def __init__(
        self, shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], keys: Mapping[str, str] | None = None
    ) -> None:
        self.root: Path | None = None
        if isinstance(shards, str | os.PathLike):
            self.root = path = Path(shards).expanduser()
            inside = sorted([*path.glob('*.tar'), *path.glob('data/*.tar')])
            self.shards = inside if path.is_dir() else [path] * path.is_file()
        else:
            self.shards = [Path(one).expanduser() for one in shards]
        if not self.shards:
            raise DatasetNotFoundError(self)
        self._keys = {**KEYS, **(keys or {})}
        indexed = [_index(shard) for shard in self.shards]
        first = next((members for samples in indexed for members in samples.values()), None)
        if first is None:
            raise ValueError(f'TarShards: {self.shards[0]} and {len(self.shards) - 1} more hold no .npy, .cls or .txt')
        self._names = sorted(first)  # member names of every sample, from the first dot on
        places = [_places(samples, self._names, shard) for samples, shard in zip(indexed, self.shards, strict=True)]
        self._shard_of = np.repeat(np.arange(len(places)), [len(found) for found in places])
        self._places = np.concatenate(places)
        file = (self.root or Path()) / RECORD_FILE
        record = read_json(file, 'the record of exported samples') if self.root and file.is_file() else {}
        self.spec = SampleSpec.from_dict(record['spec']) if 'spec' in record else None
        known = record.get('provenance')
        self.provenance = None if known is None else Provenance.from_dict(known)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        """The members of one sample, arrays in the dtype that they are stored in.

        Raises:
            IndexError: if it is out of range.
            ValueError: naming a member that is damaged.
        """
        index = int(row_numbers([index], len(self), 'TarShards')[0])
        sample: Sample = {}
        shard = self.shards[self._shard_of[index]]
        with shard.open('rb') as file:
            for name, (offset, size) in zip(self._names, self._places[index].tolist(), strict=True):
                file.seek(offset)
                data = file.read(size)
                stem, _, suffix = name.rpartition('.')
                try:
                    sample[self._keys.get(name, stem or suffix)] = _DECODERS[suffix.lower()](data)
                except (ValueError, SyntaxError, TokenError) as error:  # of numpy's header too
                    raise ValueError(f'{shard}: {name} of sample {index} is damaged: {error}') from error
        return sample


def _index(shard: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Offset and bytes of each member of each sample."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard, 'r:') as archive:
            for member in archive:
                folder, _, file = member.name.rpartition('/')
                stem, _, name = file.partition('.')
                suffix = name.rpartition('.')[2].lower()
                if suffix in _PICKLES:
                    raise ValueError(
                        f'{shard}: {member.name} is a pickle, and such a file may run any program when it is read; '
                        'store arrays as .npy'
                    )
                if member.isfile() and suffix in _DECODERS:
                    found.setdefault(f'{folder}/{stem}', {})[name] = (member.offset_data, member.size)
        with shard.open('rb') as raw:
            raw.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
            if any(raw.read()):  # Python takes the end of the file for that of the archive
                raise tarfile.ReadError('it has no end, as if something were cut off')
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f'{shard} cannot be read as an uncompressed tar file: {error}') from error
    return found


def _places(samples: Mapping[str, Mapping[str, tuple[int, int]]], names: list[str], shard: Path) -> np.ndarray:
    """(n, members, 2) int64: :func:`_index` as one array."""
    for sample, members in samples.items():
        if missing := set(names) - set(members):
            raise ValueError(f'{shard}: sample {sample.lstrip("/")} has no {sorted(missing)}, which the first one has')
    wanted = [[members[name] for name in names] for members in samples.values()]
    return np.array(wanted, dtype=np.int64).reshape(len(wanted), len(names), 2)


def _array(data: bytes) -> Tensor:
    """An array that really fits the bytes; text, objects and records cannot become tensors."""
    stream = io.BytesIO(data)
    shape, columns, dtype = npy_header(stream)
    if dtype.kind not in 'biuf':
        raise ValueError(f'an array of {dtype} has no tensor')
    array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order='F' if columns else 'C')
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder('='), order='C'))


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    'npy': _array, 'cls': lambda data: torch.tensor(int(data), device='cpu'), 'txt': bytes.decode,
}  # fmt: skip
