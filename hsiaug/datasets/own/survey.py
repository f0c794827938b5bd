"""What one pass over a dataset finds: sizes, classes, sums of bands, digests, and the samples where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ...seen import digest_of


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


def digests_of_dates(image: Tensor) -> list[int]:
    """Digest of an image or a spectrum; of a pair (2, C, H, W), that of each date."""
    return [digest_of(date.numpy()) for date in (image if image.ndim == 4 else image[None])]


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
