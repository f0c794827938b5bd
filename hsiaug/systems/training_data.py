"""What a generator learns from: samples, their labels and where they come from, checked before a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.real.patches import CoarseWindows
from ..engine.data import Read, require_finite_samples
from ..samples import Kind, Provenance, SampleSpec

Unlabelled = Literal['alike', 'pairs']
"""``'alike'``: images or spectra as the labelled ones are, without their labels. ``'pairs'``: pairs of dates without a
change mask, where labelled samples are single dates."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training part of a split, which generators learn from; it never holds a test pixel.

    Args:
        spec: spec of the samples.
        x: (N, C) float32 labelled training spectra, (N, C, H, W) images, or (N, 2, C, H, W) pairs of dates, in the
            dataset's unit.
        y: (N,) int64 labels, (N, H, W) masks, or (N, 1, H, W) change masks.
        unlabelled: (M, C) or (M, C, H, W) float32 samples of the training area without labels; M may be 0.
        val_x: (V, ...) validation samples, for early stopping.
        val_y: (V, ...) their labels or masks.
        provenance: provenance of the data; the generator keeps it with its own training configuration.
        coarse: the images ``x`` as seen by a coarser sensor, if the scene has them.
        val_coarse: the images ``val_x`` as seen by a coarser sensor.
        positions: (N + M, 2) int64 row and column of the spectra in ``x``, then in ``unlabelled``, if they come from an
            image; tiles are placed apart.
        source: the labelled samples if they do not fit in memory; ``x`` and ``y`` are then empty. Only trainings
            registered with ``streams`` can read them, see :func:`~hsiaug.systems.training.trains`.
        unlabelled_source: the unlabelled samples if they do not fit in memory.
    """

    spec: SampleSpec
    x: Tensor
    y: Tensor
    unlabelled: Tensor
    val_x: Tensor
    val_y: Tensor
    provenance: Provenance | None = None
    coarse: CoarseWindows | None = None
    val_coarse: CoarseWindows | None = None
    positions: Tensor | None = None
    source: Read | None = None
    unlabelled_source: Read | None = None

    def __post_init__(self) -> None:
        """Bring samples and labels, of whatever numbers, to float32 and int64."""
        wanted = {'x': torch.float32, 'y': torch.int64, 'unlabelled': torch.float32}
        for name, dtype in (wanted | {'val_x': torch.float32, 'val_y': torch.int64}).items():
            found = getattr(self, name)  # of complex numbers and fractions, something would be lost
            if isinstance(found, Tensor) and found.dtype != dtype and torch.can_cast(found.dtype, dtype):
                object.__setattr__(self, name, found.to(dtype))

    @property
    def split_name(self) -> str | None:
        """Fingerprint of the split, None where it is not known."""
        return None if self.provenance is None else self.provenance.split


def require_samples(who: str, data: TrainingData, labelled: bool = True) -> None:
    """Refuse what is no tensor, shapes that are not those of the spec, labels that are no class, and NaN.

    Args:
        who: learns from them.
        data: training data.
        labelled: whether every sample must have a label; otherwise ``y`` may be empty.
    """
    spec, what = data.spec, 'spectra' if data.spec.size is None else 'images'
    for side in (data.x, data.y):
        if not isinstance(side, Tensor):
            raise TypeError(f'{who}: {what} and {spec.target_key}s must be tensors, found {type(side).__name__}')
    x, y = (len(data.x), *spec.image_shape), (len(data.x), *spec.target_shape)
    unfit = data.x.shape != x or (data.y.shape != y and (labelled or len(data.y) > 0))
    if unfit and (len(data.x) or data.source is None):
        image, target = (', '.join(map(str, ('N', *shape[1:]))) for shape in (x, y))
        raise ValueError(
            f'{who}: {what} must be ({image}) with {spec.target_key}s ({target}), found {tuple(data.x.shape)} and '
            f'{tuple(data.y.shape)} of kind {spec.kind!r}'
        )
    if len(data.y) and data.y.is_floating_point():
        raise TypeError(f'{who}: {spec.target_key}s must be whole numbers, found {data.y.dtype}')
    if foreign := data.y[spec.foreign(data.y)].unique().tolist():
        raise ValueError(
            f'{who}: {spec.target_key}s hold the values {foreign[:8]}, but the {spec.num_classes} classes are 0 to '
            f'{spec.num_classes - 1} and the ignore index is {spec.ignore_index}; map them to classes or to the ignore '
            'index'
        )
    parts = 'pixels or bands' if spec.size is None else 'patches or bands'
    require_finite_samples(data.unlabelled, f'unlabelled {what}', parts)
    require_finite_samples(data.x, what, parts)
    require_finite_samples(data.val_x, f'validation {what}', parts)


def require_classes(who: str, data: TrainingData) -> None:
    """Refuse data without any sample of a class, which could not be learnt; the ignored one may be lacking."""
    there = set(data.y.unique().tolist())
    missing = [name for k, name in enumerate(data.spec.classes) if k not in there and name not in data.spec.uncounted]
    if missing:
        raise ValueError(
            f'{who}: no training sample of {missing[:8]} to learn from; leave these classes out of the spec'
        )


def require_images(who: str, data: TrainingData, *kinds: Kind) -> None:
    """Refuse data of other kinds, or none at all, and what :func:`require_samples` refuses."""
    spec = data.spec
    if spec.kind not in kinds:
        raise ValueError(f'{who} learns data of kind {" or ".join(map(repr, kinds))}, found {spec.kind!r}')
    require_samples(who, data)
    if len(data.x) == 0 and data.source is None:
        raise ValueError(f'{who} needs training images, found none')
    if len(data.unlabelled) and data.unlabelled.shape[1:] != spec.image_shape:
        raise ValueError(f'{who}: unlabelled images must be (M, {spec.image_shape}), found {data.unlabelled.shape}')
