"""Batches of the sample contract, read whole or sample by sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from ...samples import Kind, Sample, Transform

CONTRACT = "whose samples are dictionaries with 'image' and 'label' or 'mask' (the sample contract, as in torchgeo)"


class NoSamplesError(TypeError, ValueError):
    """What is no dataset of samples: of the wrong type in Python, a wrong value on the command line."""


_LAYOUTS: dict[tuple[int | None, str, int | None], Kind] = {
    (1, 'label', 0): 'spectrum',
    (3, 'label', 0): 'scene',
    (3, 'mask', 2): 'segmentation',
    (4, 'mask', 3): 'change',
}


class Arrays(list[Tensor]):
    """Arrays of a column that are not stacked, so that each is copied once, into its batch."""


def fetch(dataset: Any, rows: np.ndarray) -> dict[str, Any]:
    """Stacked samples of a map-style dataset, read whole where it can; what is no array comes as a list.

    Raises:
        ValueError: if arrays of one key have several shapes.
    """
    columns = columns_of(dataset, rows)
    for key, value in columns.items():
        if isinstance(value, Arrays) and len(shapes := {tuple(array.shape) for array in value}) > 1:
            raise ValueError(
                f'{len(value)} samples that are to be stacked hold {key} of several shapes, {sorted(shapes)[:4]}; '
                'bring all to one, for example with hsiaug.adapt(dataset, size=...)'
            )
    return stack(columns)


def columns_of(dataset: Any, rows: np.ndarray) -> dict[str, Any]:
    """Samples of a map-style dataset by key: stacked where it reads them whole, else :class:`Arrays`, and lists.

    Raises:
        TypeError: if they are not in the sample contract.
        ValueError: if the dataset has fewer than it says, or one lacks a key that the first has.
    """
    if rows.size == 0:
        return {}
    if isinstance(dataset, ReadAtOnce) and dataset.transforms is None:
        return dict(cast(Any, dataset).batch(rows))
    samples = fetch_samples(dataset, rows)
    try:
        return {key: _column([sample[key] for sample in samples]) for key in samples[0]}
    except KeyError as error:
        raise ValueError(
            f'{type(dataset).__name__}: one of the samples {rows.tolist()[:8]} has no {error}, which the first of them '
            'has; give all samples the same keys'
        ) from error


def _column(values: list[Any]) -> Any:
    types = set(map(type, values))
    if type(None) in types or not is_array(values[0]):  # a lack of a value is for the collation to judge
        return values
    tensors = values if types == {Tensor} else list(map(as_tensor, values))
    if tensors[0].ndim:
        return Arrays(tensors)
    try:
        return torch.stack(tensors)
    except RuntimeError:  # not all of them are single numbers
        return Arrays(tensors)


def stack(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns whose arrays are stacked; all else comes as lists."""
    return {key: torch.stack(value) if isinstance(value, Arrays) else value for key, value in columns.items()}


def unstack(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The samples of a batch."""
    each = [value.unbind(0) if isinstance(value, Tensor) else value for value in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*each, strict=True)]


class ReadAtOnce(NonGeoDataset):
    """A dataset that reads several samples at once, by its ``batch``."""

    transforms: Transform | None = None

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Samples of several indices, stacked, before ``transforms``."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Sample]:
        samples = unstack(self.batch(indices))
        return samples if self.transforms is None else list(map(self.transforms, samples))


def row_numbers(indices: Sequence[int] | Tensor, length: int, owner: str) -> np.ndarray:
    """(n,) int64 rows of a dataset of some length; negative indices count from its end.

    Raises:
        TypeError: if one is no whole number, such as a slice or a list.
        IndexError: if one is out of range.
    """
    rows = np.asarray(indices)
    if rows.ndim > 1 or (rows.size and rows.dtype.kind not in 'iu'):
        raise TypeError(f'{owner}: whole numbers are expected as indices, found {indices!r}')
    rows = rows.astype(np.int64)
    if rows.size and not -length <= rows.min() <= rows.max() < length:
        raise IndexError(f'{owner}: index out of range for {length} samples')
    return np.where(rows < 0, rows + length, rows)


def spread_rows(length: int, count: int) -> np.ndarray:
    """At most ``count`` rows, evenly spaced, the first and the last among them."""
    return np.linspace(0, length - 1, min(length, count)).astype(np.int64)


def fetch_samples(dataset: Any, rows: np.ndarray) -> list[dict[str, Any]]:
    """Samples of a map-style dataset, read whole where it can.

    Raises:
        TypeError: if they are not in the sample contract.
        ValueError: if the dataset has fewer than it says.
    """
    indices = rows.tolist()
    try:
        samples = dataset.__getitems__(indices) if hasattr(dataset, '__getitems__') else [dataset[i] for i in indices]
    except IndexError as error:  # which would end a loop over a dataset in silence
        raise ValueError(
            f'{type(dataset).__name__}: one of the samples {indices[:8]} is missing, although the dataset claims to '
            f'have {len(dataset)}: {error}'
        ) from error
    for sample in samples[:1]:
        require_sample(sample, type(dataset).__name__)
    return samples


def require_sample(sample: object, owner: str, stacked: bool = False) -> None:
    """Check that a sample is a dictionary with an image, that is, like a mask, a tensor or, if not ``stacked``, array.

    Raises:
        NoSamplesError: saying what it is instead.
    """
    hint = "wrap it in a dataset whose __getitem__ returns such a dictionary, as {'image': image, 'label': label}"
    if not isinstance(sample, Mapping):
        found = type(sample).__name__ + (f' of {len(sample)}' if isinstance(sample, tuple | list) else '')
    elif 'image' not in sample:
        found = f'a dictionary with {sorted(map(str, sample))}'
        if 'image1' in sample:
            hint = 'hsiaug.adapt(dataset) makes one image of two dates'
    elif wrong := [
        key
        for key in ('image', 'mask')
        if key in sample and not (isinstance(sample[key], Tensor) or (is_array(sample[key]) and not stacked))
    ]:
        found = f'{type(sample[wrong[0]]).__name__} as {wrong[0]!r}'
        hint = 'make a tensor of it, an image (C, H, W)'
    else:
        return
    raise NoSamplesError(f'{owner}: a dataset is expected {CONTRACT}, found {found}; {hint}')


def kind_of(sample: Mapping[str, Any]) -> Kind | None:
    """Kind of one sample by its layout; None where it has none of the sample contract."""
    ndim = {key: np.ndim(sample[key]) for key in ('image', 'label', 'mask') if key in sample}
    found = (_LAYOUTS.get((ndim.get('image'), target, ndim.get(target))) for target in ('label', 'mask'))
    return next(filter(None, found), None)


def copied(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample whose tensors may be changed in place, where a dataset may hand out those that it holds."""
    return {key: as_tensor(value).clone() if is_array(value) else value for key, value in sample.items()}


def on_each_device(places: Tensor, columns: Iterable[Any]) -> dict[torch.device, Tensor]:
    """Places, which are on the CPU, where each of the columns that are tensors lies: moved once, not for each."""
    there = {column.device for column in columns if isinstance(column, Tensor)}
    return {device: places.to(device, non_blocking=True) for device in there}


def as_tensor(value: Any) -> Tensor:
    """A tensor of a number or an array as torch collates it, on the CPU whatever the defaults; tensors as they are."""
    if isinstance(value, np.ndarray) and not (
        value.flags.writeable and value.dtype.isnative and min(value.strides, default=0) >= 0
    ):
        value = value.astype(value.dtype.newbyteorder('='), order='C')  # what torch cannot share, it takes as a copy
    if isinstance(value, Tensor):
        return value
    return torch.as_tensor(value, dtype=torch.float64 if type(value) is float else None, device='cpu')


def is_array(value: object) -> bool:
    """Whether a value is stacked in a batch."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in 'biufc'  # text is none
    return isinstance(value, Tensor | int | float | bool)
