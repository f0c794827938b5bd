"""One pass over a dataset: sizes, classes, sums of bands and digests of all samples, and the samples where they fit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..functional.dates import stacked_dates
from ..progress import with_progress
from ..samples import Sample, SampleSpec
from ..seen import digest_of
from .contract import in_contract, require_same_wavelengths, require_targets, wavelengths_of

IN_MEMORY = 1 << 30
"""Bytes of samples up to which a dataset is held in memory for training; a larger one is read batch by batch."""


@dataclass(frozen=True)
class Look:
    """What was seen of one sample of a dataset.

    Args:
        corners: (n, 2) rows and columns of the tiles that are cut from it; one at 0, 0 where none are.
        digests: (n, d) uint64 of the images of each tile, one per date.
        whole: uint64 of the image that they are cut from.
        pixels: (n, K) pixels, or samples, of each class.
        sums: (2, dates times C) sums of values and of their squares, of all tiles.
        values: how many per band.
        size: (H, W) of the image, or None.
        tiles: the tiles themselves where they are kept.
    """

    corners: np.ndarray
    digests: np.ndarray
    whole: int
    pixels: np.ndarray
    sums: np.ndarray
    values: int
    size: tuple[int, int] | None
    tiles: tuple[Tensor, Tensor | None] | None = None


@dataclass(frozen=True)
class Looker:
    """Looks at samples, in a worker or not.

    Args:
        dataset: map-style.
        name: of the dataset, for messages.
        spec: of its samples; their size is that of tiles if ``tile``.
        tile: whether samples are cut into tiles.
        labelled: whether samples have targets.
        keep: whether the tiles are kept.
    """

    dataset: Any
    name: str
    spec: SampleSpec
    tile: bool
    labelled: bool
    keep: bool

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Look | Exception:
        """A look, or what went wrong: an error of a worker would come with its traceback for a message."""
        try:
            return self.look(row)
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
        image, (dims, bands) = sample['image'], _layout(spec)
        found = image.shape[0] if spec.kind == 'spectrum' else image.shape[-3]
        if image.ndim != dims or found != bands:
            raise ValueError(
                f'{where}: its image {tuple(image.shape)} is none of {bands} bands and kind {spec.kind!r}, as the '
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

    def look(self, row: int) -> Look:
        """One sample, looked at."""
        sample, spec = self.sample(row), self.spec
        image = sample['image']
        size = None if spec.kind == 'spectrum' else (image.shape[-2], image.shape[-1])
        target = sample.get(spec.target_key)
        if self.tile:
            corners = tile_corners(size or (0, 0), spec.size or (1, 1))
            images, targets = cut(image, target, corners, spec.size or (1, 1))
        else:
            corners, images = np.zeros((1, 2), dtype=np.int64), image[None]
            targets = None if target is None else target[None]
        digests = np.array([digests_of_dates(one) for one in images], dtype=np.uint64).reshape(-1, spec.dates)
        whole = digests_of_dates(image)[0] if self.tile else digests[0, 0]
        values = (stacked_dates(images) if size else images).double().movedim(1, 0).flatten(1)
        sums = torch.stack([values.sum(dim=1), (values**2).sum(dim=1)]).numpy()
        return Look(
            corners, digests, int(whole), class_pixels(targets, spec, len(images)), sums, values.shape[1], size,
            (images.contiguous(), targets) if self.keep else None,
        )  # fmt: skip


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


def _layout(spec: SampleSpec) -> tuple[int, int]:
    """Number of axes of an image, and of its bands."""
    return {'spectrum': 1, 'change': 4}.get(spec.kind, 3), spec.bands


def digests_of_dates(image: Tensor) -> list[int]:
    """Digest of an image or a spectrum; of a pair (2, C, H, W), that of each date."""
    return [digest_of(date.numpy()) for date in (image if image.ndim == 4 else image[None])]


def class_pixels(targets: Tensor | None, spec: SampleSpec, count: int) -> np.ndarray:
    """(n, K) pixels of each class, those that count, of masks; or samples, of labels."""
    if targets is None:
        return np.zeros((count, spec.num_classes), dtype=np.int64)
    flat = targets.flatten(1).numpy() if targets.ndim > 1 else targets[:, None].numpy()
    ok = (flat >= 0) & (flat < spec.num_classes) & (flat != (-1 if spec.ignore_index is None else spec.ignore_index))
    counts = [np.bincount(one[good], minlength=spec.num_classes) for one, good in zip(flat, ok, strict=True)]
    return np.array(counts, dtype=np.int64).reshape(count, spec.num_classes)


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


def in_order(items: Any, rows: Sequence[int] | None, workers: int, collate: Callable[[Any], Any] | None = None) -> Any:
    """A loader of single items, in order, read by worker processes where there are any."""
    return DataLoader(
        items, batch_size=None, sampler=range(len(items)) if rows is None else rows, num_workers=workers,
        collate_fn=collate or as_is, worker_init_fn=leave_signals, prefetch_factor=2 if workers else None,
    )  # fmt: skip


def as_is(item: Any) -> Any:
    """The item."""
    return item


def leave_signals(_: int) -> None:
    """In a worker: Ctrl-C is the main process's to answer, and a request to end is followed at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def usual_workers() -> int:
    """Worker processes for a dataset that does not fit in memory: one less than there are cores, four at most."""
    return max(1, min(4, (os.cpu_count() or 2) - 1))


def looks(looker: Looker, workers: int, progress: bool) -> Iterator[Look]:
    """Looks at all samples, in order.

    Raises:
        ValueError: what is wrong with the first sample of which something is.
    """
    for found in with_progress(in_order(looker, None, workers), progress, desc=looker.name, unit='sample'):
        if isinstance(found, Exception):
            raise found
        yield found


__all__ = ['IN_MEMORY', 'Look', 'Looker', 'cut', 'in_order', 'leave_signals', 'looks', 'read', 'usual_workers']
