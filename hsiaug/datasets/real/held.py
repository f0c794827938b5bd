"""Real samples held in memory, and what all datasets of real samples have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset
from torchgeo.datasets import NonGeoDataset

from ...progress import with_progress
from ...samples import Kind, Provenance, Sample, SampleSpec, Transform, class_counts, joined_provenance
from ..contract.batches import ReadAtOnce, row_numbers
from ..contract.samples import in_contract, require_values
from ..contract.wrapped import provenances_of, spec_of
from ..preview import plot_sample

IGNORE = 255
"""Value of pixels in masks that are ignored in losses and metrics."""


class RealDataset(NonGeoDataset):
    """Real samples with a spec."""

    spec: SampleSpec
    transforms: Transform | None = None

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Figure:
        """Draw one sample; see :func:`~hsiaug.datasets.preview.plot_sample`."""
        return plot_sample(sample, self.spec, show_titles, suptitle)

    def _transformed(self, sample: Sample) -> Sample:
        return sample if self.transforms is None else self.transforms(sample)


class HeldSamples(ReadAtOnce, RealDataset):
    """Samples held in memory, with attributes ``image`` and ``label`` or ``mask``.

    A subclass with a ``kind`` checks its arguments; others trust them.

    Args:
        image: (N, ...) float32 in the dataset's unit, finite.
        target: (N, ...) int64 labels or masks.
        spec: spec of the samples.
        split: the split they come from; generators that have seen its test pixels are then refused when mixing.
        transforms: function of a sample, as in torchgeo.

    Raises:
        ValueError: if images, targets and spec do not match, or hold invalid values.
    """

    kind: ClassVar[Kind | None] = None
    provenance: Provenance | None = None
    """Provenances of the generators of synthetic samples among them, such as samples read from a bank."""

    def __init__(
        self, image: Tensor, target: Tensor, spec: SampleSpec, split: Any = None, transforms: Transform | None = None
    ) -> None:
        if self.kind is not None:
            require_samples(image, target, spec, self.kind, type(self).__name__)
        self.image, self.spec, self.split, self.transforms = image, spec, split, transforms
        setattr(self, spec.target_key, target)

    @classmethod
    def from_dataset(cls, dataset: Dataset[Sample], spec: SampleSpec | None = None, progress: bool = False) -> Self:
        """All samples of a dataset, read into memory as they are.

        Args:
            dataset: map-style, in the sample contract, such as a torchgeo dataset; masks may be (H, W) or (1, H, W).
            spec: spec of the samples; the dataset's own if None.
            progress: show a progress bar.

        Raises:
            ValueError: if no spec is known, or the samples do not match it.
        """
        spec, who, length = spec or spec_of(dataset), cls.__name__, len(cast(Any, dataset))
        if spec is None:
            raise ValueError(f'{who}: {type(dataset).__name__} has no spec; give one that says what it holds')
        if spec.kind != cls.kind:
            raise ValueError(f'{who}: a spec of kind {cls.kind!r} is needed, found {spec.kind!r}')
        held = {key: torch.empty(length, *shape, dtype=dtype) for key, (dtype, shape) in spec.layout().items()}
        for index in with_progress(range(length), progress, desc=f'{cls.kind} samples', unit='sample'):
            sample = in_contract(dataset[index], f'{who}: sample {index}', spec.kind)
            image, target = (tuple(sample[key].shape) for key in held)
            if (image, target) != (spec.image_shape, spec.target_shape):
                raise ValueError(
                    f'{who}: sample {index} has image {image} and {spec.target_key} {target}, expected '
                    f'{spec.image_shape} and {spec.target_shape}; cut images of other sizes into windows, those of two '
                    'dates with BitemporalScene.from_dataset'
                )
            for key, value in sample.items():
                held[key][index] = value
        copy = cls(held['image'], held[spec.target_key], spec, getattr(dataset, 'split', None))
        if made_by := provenances_of(dataset):
            copy.provenance = joined_provenance({str(k): one for k, one in enumerate(made_by)})
        return copy

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """``image`` (n, ...) and its target (n, ...), before ``transforms``.

        Raises:
            IndexError: if an index is out of range.
        """
        rows = torch.from_numpy(row_numbers(indices, len(self), type(self).__name__))
        return {'image': self.image[rows], self.spec.target_key: self.target[rows]}

    @property
    def target(self) -> Tensor:
        """(N, ...) int64 labels or masks."""
        return cast(Tensor, getattr(self, self.spec.target_key))

    @property
    def labels(self) -> Tensor | None:
        """(N,) int64 labels; None of masks."""
        return self.target if self.spec.target_key == 'label' else None

    def class_pixels(self) -> np.ndarray:
        """(N, K) counting pixels of each class in each mask, or samples."""
        return class_pixels(self.target, self.spec).numpy()

    def class_fractions(self) -> Tensor | None:
        """(N, K) float32 share of each class in the counting pixels of each mask, see below; None of labels."""
        return None if self.spec.target_key == 'label' else class_fractions(self.target, self.spec)

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) counting pixels, or samples, of each class."""
        counted = self.target[self.spec.counted(self.target)]
        return class_counts(counted, self.spec.num_classes)

    def __str__(self) -> str:
        counts = dict(zip(self.spec.classes, self.class_counts.tolist(), strict=True))
        what = 'classes' if self.spec.target_key == 'label' else 'pixels'
        return f'{super().__str__()}\n    bands: {self.spec.bands}, size: {self.spec.size}\n    {what}: {counts}'


class HeldMasks(HeldSamples):
    """Images (N, ..., H, W) with masks (N, ..., H, W), held in memory; see :class:`HeldSamples`."""

    mask: Tensor

    def __init__(
        self,
        image: Tensor,
        mask: Tensor,
        spec: SampleSpec,
        split: Any = None,
        transforms: Transform | None = None,
    ) -> None:
        super().__init__(image, mask, spec, split, transforms)


def require_samples(image: Tensor, target: Tensor, spec: SampleSpec, kind: Kind, who: str) -> None:
    """Check (N, ...) images and labels or masks against a spec, which must be of a given kind.

    Raises:
        ValueError: naming what was found and expected, and for values the first such sample.
    """
    if spec.kind != kind or (kind == 'change' and spec.num_classes != 2):
        two = ' with two classes' if kind == 'change' else ''
        raise ValueError(f'{who}: a spec of kind {kind!r}{two} is needed, found {spec.kind!r} with {spec.classes}')
    for (name, (dtype, shape)), tensor in zip(spec.layout().items(), (image, target), strict=True):
        if tuple(tensor.shape[1:]) != shape or tensor.dtype != dtype or len(tensor) != len(image):
            raise ValueError(
                f'{who}: {name} must be {(len(image), *shape)} {dtype}, found {tuple(tensor.shape)} {tensor.dtype}'
            )
    require_values({'image': image, spec.target_key: target}, spec, who)


def class_pixels(target: Tensor, spec: SampleSpec) -> Tensor:
    """(n, K) int64 counting pixels of each class in each of (n, ...) masks, or samples, of (n,) labels."""
    flat, classes = target.reshape(len(target), target[:1].numel()), spec.num_classes
    # Each sample has its own K bins in one long histogram.
    places = flat + classes * torch.arange(len(flat))[:, None]
    counts = torch.bincount(places[spec.counted(flat)], minlength=classes * len(flat))
    return counts.reshape(len(flat), classes)


def class_fractions(mask: Tensor, spec: SampleSpec) -> Tensor:
    """(n, K) float32 share of each class in the counting pixels of each of (n, ...) masks; zeros where none counts."""
    return as_fractions(class_pixels(mask, spec))


def as_fractions(counts: Tensor) -> Tensor:
    """(n, K) float32 shares of (n, K) counts; zeros where there are none."""
    return (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).to(torch.float32)


def fill_missing(image: np.ndarray, valid: np.ndarray) -> None:
    """Give the pixels of a (C, H, W) image that are not ``valid`` (H, W) the mean of the others, 0 without any."""
    if not valid.all():
        image[:, ~valid] = image[:, valid].mean(axis=1, keepdims=True) if valid.any() else 0
