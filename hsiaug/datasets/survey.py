"""One pass over a dataset: sizes, classes, sums of bands and digests of all samples, and the samples where they fit."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NoReturn, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..functional.dates import stacked_dates
from ..progress import with_progress
from ..samples import Sample, SampleSpec
from ..seen import digest_of
from .contract import in_contract, require_same_wavelengths, require_targets, wavelengths_of
from .held import class_pixels

IN_MEMORY = 1 << 30
"""Bytes of samples up to which a dataset is held in memory for training; a larger one is read batch by batch."""


@dataclass(frozen=True)
class Survey:
    """What is known of some samples of a dataset, and of the N tiles that are cut from them (or the samples whole).

    Args:
        sizes: (H, W) of the image of each sample, None of spectra.
        rows: (N,) which sample each tile is cut from.
        corners: (N, 2) where.
        digests: (N, d) uint64 of their images, one per date.
        whole: (N,) uint64 of the image that they are cut from.
        pixels: (N, K) pixels, or samples, of each class.
        sums: (2, dates times C) float64 sums of values and of their squares.
        values: how many there are per band.
        images: (N, ...) float32 where they fit in memory, else None.
        targets: (N, ...) int64, likewise; None too where samples have none.
    """

    sizes: tuple[tuple[int, int] | None, ...]
    rows: np.ndarray
    corners: np.ndarray
    digests: np.ndarray
    whole: np.ndarray
    pixels: np.ndarray
    sums: np.ndarray
    values: int
    images: Tensor | None = None
    targets: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[Survey]) -> Survey:
        """That of all samples, out of those of some each."""
        images, targets = ([getattr(part, name) for part in parts] for name in ('images', 'targets'))
        columns = ('rows', 'corners', 'digests', 'whole', 'pixels')
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        return cls(
            **arrays,
            sizes=tuple(chain.from_iterable(part.sizes for part in parts)),
            sums=np.sum([part.sums for part in parts], axis=0),
            values=sum(part.values for part in parts),
            images=None if any(one is None for one in images) else torch.cat(images),
            targets=None if any(one is None for one in targets) else torch.cat(targets),
        )


@dataclass(frozen=True)
class Reader:
    """Reads and surveys samples one by one, in a worker process or not; ``keep`` says whether with images and targets.

    Where they are cut into tiles, the size of the spec is that of a tile.
    """

    dataset: Any
    name: str
    spec: SampleSpec
    tile: bool
    labelled: bool
    keep: bool = False

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Survey | Exception:
        """The survey of a sample, or what went wrong: an error of a worker would come with its traceback in it."""
        try:
            return self.survey(row)
        except Exception as error:  # whatever a dataset raises
            return error

    def sample(self, row: int) -> Sample:
        """One whole sample in the contract, checked against the spec.

        Raises:
            ValueError: naming it.
        """
        where, spec = f'{self.name}: sample {row}', self.spec
        raw = read(self.dataset, row, self.name)
        sample = in_contract(raw, where, spec.kind if self.labelled else None, self.labelled)
        image = sample['image']
        found = image.shape[0] if spec.kind == 'spectrum' else image.shape[-3]
        if image.ndim != len(spec.image_shape) or found != spec.bands:
            raise ValueError(
                f'{where}: its image {tuple(image.shape)} is none of {spec.bands} bands and kind {spec.kind!r}, as the '
                'first sample is; bring all to the same bands'
            )
        if spec.wavelengths is not None and (carried := wavelengths_of(raw, where)) is not None:
            require_same_wavelengths(spec.wavelengths, carried, where)
        if not bool(image.isfinite().all()):
            raise ValueError(
                f'{where}: its image holds NaN or infinite values; fill them, and give their pixels the ignore index'
            )
        if self.labelled:
            require_targets(sample[spec.target_key], spec, where)
        return sample

    def survey(self, row: int) -> Survey:
        """The survey of one sample."""
        sample, spec = self.sample(row), self.spec
        image, target = sample['image'], sample.get(spec.target_key)
        size = None if spec.kind == 'spectrum' else (image.shape[-2], image.shape[-1])
        if self.tile:
            corners = tile_corners(size or (0, 0), spec.size or (1, 1))
            images, targets = cut(image, target, corners, spec.size or (1, 1))
        else:
            corners, images = np.zeros((1, 2), dtype=np.int64), image[None]
            targets = None if target is None else target[None]
        digests = np.array([digests_of_dates(one) for one in images], dtype=np.uint64).reshape(-1, spec.dates)
        whole = digests_of_dates(image)[0] if self.tile else digests[0, 0]
        pixels = np.zeros((len(images), spec.num_classes), dtype=np.int64)
        values = (stacked_dates(images) if size else images).double().movedim(1, 0).flatten(1)
        sums = torch.stack([values.sum(dim=1), (values**2).sum(dim=1)]).numpy()
        return Survey(
            (size,), np.full(len(images), row), corners, digests, np.full(len(images), whole, dtype=np.uint64),
            pixels if targets is None else class_pixels(targets, spec).numpy(), sums, values.shape[1],
            images.contiguous() if self.keep else None, targets if self.keep else None,
        )  # fmt: skip

    def survey_all(self, workers: int | None, progress: bool, most: int) -> Survey:
        """The survey of all samples, in one pass; up to ``most`` bytes of samples are kept.

        Raises:
            ValueError: what is wrong with the first sample of which something is, or if images are of several sizes
                and not cut into tiles, or all too small for one.
        """
        # how many tiles there are is known in the end: they are kept as long as they fit
        keep = most > 0 and (self.tile or len(self) * self.spec.sample_bytes <= most)
        workers = workers if workers is not None else 0 if keep else usual_workers()
        loader = DataLoader(
            cast(Any, replace(self, keep=keep)), batch_size=None, sampler=range(len(self)), num_workers=workers,
            collate_fn=_as_is, worker_init_fn=leave_signals, prefetch_factor=2 if workers else None,
        )  # fmt: skip
        parts: list[Survey] = []
        held, size = 0, None
        for found in with_progress(loader, progress, desc=self.name, unit='sample'):
            if isinstance(found, Exception):
                raise found
            parts.append(found)
            held += sum(one.nbytes for one in (found.images, found.targets) if one is not None)
            size = size or found.sizes[0]
            if keep and (held > most or (found.sizes[0] != size and not self.tile)):
                keep, parts = False, [replace(part, images=None, targets=None) for part in parts]
            elif not keep:
                parts[-1] = replace(found, images=None, targets=None)
        sizes = Counter(part.sizes[0] for part in parts)
        if len(sizes) > 1 and not self.tile:
            self._refuse_sizes(sizes, [part.sizes[0] for part in parts])
        if not any(len(part.rows) for part in parts):
            largest = max(filter(None, sizes))
            raise ValueError(
                f'{self.name}: no image is as large as size={self.spec.size}; the largest is {largest}; give a smaller '
                'size='
            )
        return Survey.joined(parts)

    def _refuse_sizes(self, counts: Counter[Any], sizes: Sequence[Any]) -> NoReturn:
        listed = ', '.join(
            f'{h} x {w} ({count}, first sample {sizes.index((h, w))})' for (h, w), count in list(counts.items())[:5]
        )
        raise ValueError(
            f'{self.name}: images of {len(counts)} sizes: {listed}{", ..." if len(counts) > 5 else ""}; give size= to '
            f'cut all into patches of one size, at most {min(min(size) for size in counts)} to use every image'
        )


def read(dataset: Any, row: int, name: str) -> Any:
    """One sample of a dataset.

    Raises:
        ValueError: with the sample's number and what the dataset itself says.
    """
    try:
        return dataset[row]
    except IndexError as error:
        raise ValueError(
            f'{name}: sample {row} is not there, though the dataset says that it has {len(dataset)}'
            + (f': {error}' if str(error) else '')
        ) from error
    except Exception as error:
        raise ValueError(f'{name}: sample {row} cannot be read: {type(error).__name__}: {error}') from error


def digests_of_dates(image: Tensor) -> list[int]:
    """Digest of an image or a spectrum; of a pair (2, C, H, W), that of each date."""
    return [digest_of(date.numpy()) for date in (image if image.ndim == 4 else image[None])]


def tile_corners(size: tuple[int, int], tile: tuple[int, int]) -> np.ndarray:
    """(n, 2) upper-left corners of the tiles of an image that do not overlap, none if it is smaller than one."""
    rows, columns = (np.arange(side // step) * step for side, step in zip(size, tile, strict=True))
    return np.stack(np.meshgrid(rows, columns, indexing='ij'), axis=-1).reshape(-1, 2)


def cut(
    image: Tensor, target: Tensor | None, corners: np.ndarray, size: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """Tiles (n, ..., h, w) of an image (..., H, W), and of its mask; an image's label is that of each tile."""

    def windows(values: Tensor) -> Tensor:
        parts = [values[..., top : top + size[0], left : left + size[1]] for top, left in corners.tolist()]
        return torch.stack(parts) if parts else values.new_empty((0, *values.shape[:-2], *size))

    if target is None:
        return windows(image), None
    return windows(image), windows(target) if target.ndim else target.expand(len(corners)).clone()


def _as_is(item: Any) -> Any:
    return item


def leave_signals(_: int) -> None:
    """In a worker: Ctrl-C is the main process's to answer, and a request to end is followed at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def usual_workers() -> int:
    """Worker processes for a dataset that does not fit in memory: one less than there are cores, four at most."""
    return max(1, min(4, (os.cpu_count() or 2) - 1))
