"""Data of the speed benchmarks: noise, in a bank, in a memory-mapped file, or in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from hsiaug.datasets import SyntheticBank, write_bank
from hsiaug.datasets.contract.batches import ReadAtOnce
from hsiaug.samples import Sample, SampleSpec

CLASSES = tuple(f'class {k}' for k in range(10))
PATCHES = SampleSpec('segmentation', 100, CLASSES, size=(64, 64))
SPECTRA = SampleSpec('spectrum', 200, CLASSES)


class Sizes(Protocol):
    """Number of samples of each kind."""

    @property
    def patches(self) -> int:
        """Image-mask pairs."""

    @property
    def spectra(self) -> int:
        """Spectra."""


class InMemory(NonGeoDataset):
    """A dataset of tensors, as users write it; samples repeat if it is longer than the tensors.

    Args:
        spec: of the samples.
        number: of samples in memory.
        length: of the dataset; ``number`` if None.
        seed: of the values.
    """

    def __init__(self, spec: SampleSpec, number: int, length: int | None = None, seed: int = 0) -> None:
        self.spec, self.number, self.length = spec, number, length or number
        noise = Noise(spec, number).batch(range(seed, seed + number))
        self.image, self.label = noise['image'], noise['mask' if spec.size else 'label']
        self.target = 'mask' if spec.size else 'label'

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        index %= self.number
        return {'image': self.image[index], self.target: self.label[index]}


class Runs(ReadAtOnce, InMemory):
    """The same, read in runs of consecutive samples, as a bank is written from it."""

    def batch(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Views of consecutive samples, copies of others; consecutive ones are recognised by the first and the last."""
        first, last = int(rows[0]), int(rows[-1])
        chosen = slice(first, last + 1) if last - first + 1 == len(rows) else torch.as_tensor(rows)
        return {'image': self.image[chosen], self.target: self.label[chosen]}


class Noise(ReadAtOnce):
    """Random samples; speed does not depend on what they show."""

    def __init__(self, spec: SampleSpec, length: int) -> None:
        self.spec, self.length = spec, length

    def __len__(self) -> int:
        return self.length

    def batch(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Samples of several indices; the first index is the seed."""
        rng = torch.Generator().manual_seed(int(rows[0]))
        size = self.spec.size or ()
        image = torch.rand((len(rows), self.spec.bands, *size), generator=rng)
        target = torch.randint(self.spec.num_classes, (len(rows), *size), generator=rng)
        return {'image': image, 'mask' if size else 'label': target}


class Mapped(NonGeoDataset):
    """Samples of a memory-mapped file, repeated: a real dataset with an epoch of any length.

    Args:
        path: file of rows of float32, each an image and its int64 target.
        spec: of the samples.
        length: number of samples in an epoch.
    """

    def __init__(self, path: Path, spec: SampleSpec, length: int) -> None:
        self.spec, self.length = spec, length
        self.shape = (spec.bands, *(spec.size or ()))
        values, targets = math.prod(self.shape), math.prod(spec.size or ())
        self.values, self.target = values, 'mask' if spec.size else 'label'
        self.rows = np.memmap(path, np.float32, mode='c').reshape(-1, values + 2 * targets)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index % len(self.rows)]
        target = row[self.values :].view(np.int64).reshape(self.spec.size or ())
        image = row[: self.values].reshape(self.shape)
        return {'image': torch.from_numpy(image), self.target: torch.from_numpy(np.asarray(target))}


class Files:
    """A bank and a memory-mapped file of the same bytes for each kind of sample, written on first use."""

    def __init__(self, folder: Path, scale: Sizes) -> None:
        self.folder, self.scale = folder, scale

    @cached_property
    def patches(self) -> tuple[SyntheticBank, Path]:
        """100 bands, 64 x 64."""
        return self._write('patches', PATCHES, self.scale.patches)

    @cached_property
    def spectra(self) -> tuple[SyntheticBank, Path]:
        """200 bands."""
        return self._write('spectra', SPECTRA, self.scale.spectra)

    def _write(self, name: str, spec: SampleSpec, count: int) -> tuple[SyntheticBank, Path]:
        start = time.perf_counter()
        bank = write_bank(Noise(spec, count), None, self.folder / name)
        self.writing_seconds = round(time.perf_counter() - start, 2)
        path = self.folder / f'{name}.rows'
        with path.open('wb') as file:
            for batch in pieces(bank):
                columns = [value.numpy().reshape(len(value), -1).view(np.float32) for value in batch.values()]
                np.concatenate(columns, axis=1).tofile(file)
        return bank, path


def pieces(bank: SyntheticBank) -> Iterator[dict[str, Tensor]]:
    """A whole bank, shard by shard."""
    for start in range(0, len(bank), bank.shard_size):
        yield bank.batch(range(start, min(start + bank.shard_size, len(bank))))
