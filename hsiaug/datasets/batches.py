"""Batches of the sample contract: reading them whole, and joining real and synthetic ones."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from ..samples import Kind, Sample, SpecMismatchError, Transform
from .shared import Kept

CONTRACT = "whose samples are dictionaries with 'image' and 'label' or 'mask' (the sample contract, as in torchgeo)"


class NoSamplesError(TypeError, ValueError):
    """What is no dataset of samples: of the wrong type in Python, a wrong value on the command line."""


_LAYOUTS: dict[tuple[int | None, str, int | None], Kind] = {
    (1, 'label', 0): 'spectrum',
    (3, 'label', 0): 'scene',
    (3, 'mask', 2): 'segmentation',
    (4, 'mask', 3): 'change',
}
_TARGETS = (
    'label', 'labels', 'label_prob', 'mask', 'masks', 'weight', 'boxes', 'bbox', 'bboxes', 'bbox_xyxy', 'keypoints',
)  # fmt: skip
"""Keys of what a model learns from, in torchgeo, torchvision and here."""
_ROWS = ('indices', 'index', 'rows', 'idx')  # names of the argument of a ``batch`` that reads several samples
_NOT_INDEXED = (torch.uint16, torch.uint32, torch.uint64)  # dtypes that torch cannot index with ``index_copy``
_LARGE_ROW = 16 << 10  # bytes; above, one pass over whole rows beats a copy and an index, by five times at batch 4


def fetch(dataset: Any, rows: np.ndarray) -> dict[str, Any]:
    """Stacked samples of a map-style dataset, read whole where it can; what is no array comes as a list."""
    if rows.size == 0:
        return {}
    if reads_whole(dataset) and getattr(dataset, 'transforms', None) is None:
        return dict(dataset.batch(rows))
    return stack(fetch_samples(dataset, rows))


class ReadAtOnce(NonGeoDataset):
    """A dataset that reads several samples at once, by its ``batch``."""

    transforms: Transform | None = None

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Samples of several indices, stacked, before ``transforms``."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        samples = unstack(self.batch(indices))
        return samples if self.transforms is None else list(map(self.transforms, samples))


def row_numbers(indices: Sequence[int] | Tensor, length: int, owner: str) -> np.ndarray:
    """(n,) int64 rows of a dataset of some length; negative indices count from its end.

    Raises:
        TypeError: if one is no whole number, such as a slice.
        IndexError: if one is out of range.
    """
    rows = np.asarray(indices)
    if rows.size and rows.dtype.kind not in 'iu':
        raise TypeError(f'{owner}: whole numbers are expected as indices, found {indices!r}')
    rows = rows.astype(np.int64)
    if rows.size and not -length <= rows.min() <= rows.max() < length:
        raise IndexError(f'{owner}: index out of range for {length} samples')
    return np.where(rows < 0, rows + length, rows)


def reads_whole(dataset: Any) -> bool:
    """Whether a dataset has a ``batch`` that takes row numbers; other libraries give that name to other things."""
    return _takes_rows(getattr(type(dataset), 'batch', None))


@cache
def _takes_rows(method: Hashable) -> bool:
    if not inspect.isfunction(method):
        return False
    names = list(inspect.signature(method).parameters)
    return len(names) > 1 and names[1] in _ROWS


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


def stack(samples: list[dict[str, Any]], known: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """One batch out of samples: arrays and numbers stacked, all else as lists; ``known`` columns are so already."""

    def column(key: str) -> Any:
        values = [sample[key] for sample in samples]
        if not is_array(values[0]):
            return values
        tensors = as_tensors(values)
        if len(shapes := {tuple(tensor.shape) for tensor in tensors}) > 1:
            raise ValueError(
                f'{len(values)} samples that are to be stacked hold {key} of several shapes, {sorted(shapes)[:4]}; '
                'bring all to one, for example with hsiaug.adapt(dataset, size=...)'
            )
        return torch.stack(tensors)

    return {key: known[key] if known and key in known else column(key) for key in samples[0]}


def unstack(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The samples of a batch."""
    columns = [value.unbind(0) if isinstance(value, Tensor) else value for value in batch.values()]
    return [dict(zip(batch, row, strict=True)) for row in zip(*columns, strict=True)]


def copied(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample whose tensors may be changed in place, where a dataset may hand out those that it holds."""
    return {key: as_tensor(value).clone() if is_array(value) else value for key, value in sample.items()}


def gather_chunks(
    rows: np.ndarray,
    chunk: int,
    kept: Kept[tuple[int, int], dict[str, Tensor]],
    epoch: int,
    draw: Callable[[int, int], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Rows of an epoch out of aligned chunks, in the order asked for; chunks that are not kept are drawn."""

    def taken(number: int, places: np.ndarray) -> dict[str, Tensor]:
        batch = kept.get_or_make((epoch, number), lambda: draw(epoch, number))
        return take_rows(batch, torch.from_numpy(places))

    numbers, within = np.divmod(rows, chunk)
    if (numbers == numbers[0]).all():
        return taken(int(numbers[0]), within)
    order = np.argsort(numbers, kind='stable')
    parts = [taken(number, within[order[numbers[order] == number]]) for number in np.unique(numbers).tolist()]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return take_rows(joined, torch.from_numpy(np.argsort(order)))


def take_rows(columns: Mapping[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    """The rows of columns at ``places`` (n,), which are on the CPU and moved once to where the columns are."""
    there = _on_each_device(places, columns.values())
    return {name: value[there[value.device]] for name, value in columns.items()}


def _on_each_device(places: Tensor, columns: Iterable[Any]) -> dict[torch.device, Tensor]:
    """Places, which are on the CPU, where each of the columns that are tensors lies: moved once, not for each."""
    there = {column.device for column in columns if isinstance(column, Tensor)}
    return {device: places.to(device, non_blocking=True) for device in there}


def absent_values(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a synthetic sample has in place of what only real ones have, such as file names, places and numbers.

    Text is empty; numbers are NaN, -1 where they are whole, the largest where they have no sign, and False. Targets of
    models have no such value: a sample without one cannot be learnt from.

    Raises:
        SpecMismatchError: for lists of targets, such as the boxes of each image.
    """
    found: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, list | tuple):
            if key in _TARGETS and not all(isinstance(item, int | float) for item in value):
                _refuse_form([f'{key!r}: real samples have it, synthetic ones do not'])
            if all(isinstance(item, str) for item in value):
                found[key] = ''
        elif isinstance(value, Tensor) and value.ndim and key not in (*_TARGETS, 'image'):
            found[key] = value.new_full(value.shape[1:], _absent(value.dtype))
    return found


def _absent(dtype: torch.dtype) -> float:
    if dtype.is_floating_point or dtype.is_complex:
        return math.nan
    return 0 if dtype == torch.bool else -1 if dtype.is_signed else torch.iinfo(dtype).max


@dataclass(frozen=True)
class Extras:
    """What every sample of a mixture carries besides its own, and ``synthetic``.

    Args:
        num_classes: K where mixed samples have soft labels: those without get a one-hot ``label_prob``.
        weight: loss weight of synthetic samples; real ones without a ``weight`` of their own weigh 1. None for no such
            key where samples have none.
        absent: what synthetic samples have where real ones alone have something (:func:`absent_values`); all else
            that is no tensor is left out. None leaves all as it is.
        tagged: note the source as ``source``.
    """

    num_classes: int | None = None
    weight: float | None = None
    absent: Mapping[str, Any] | None = None
    tagged: bool = False

    def complete(self, batch: Mapping[str, Any], source: int) -> dict[str, Any]:
        """A batch with them; its source is 0 for real samples, else the number of the source, from 1."""
        size, image, synthetic = len(batch['image']), batch['image'], source > 0
        whole = dict(batch)
        if self.absent is not None:
            whole = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
            for key, value in self.absent.items():
                if isinstance(value, str):
                    whole[key] = [value] * size if synthetic else list(batch[key])
                elif synthetic and key not in whole:
                    whole[key] = torch.stack([value] * size) if size else value[None][:0]
        kept = {'synthetic', 'weight'} & set(whole) if source == 0 else set()  # of samples that were mixed before
        if 'synthetic' not in kept:
            whole['synthetic'] = torch.full((size,), synthetic, dtype=torch.bool, device=image.device)
        if self.num_classes is not None and 'label_prob' not in whole:
            label = whole['label'][..., None]
            classes = torch.arange(self.num_classes, device=label.device)
            whole['label_prob'] = (label == classes).to(torch.float32)  # of none where it is ignored
        if self.weight is not None and 'weight' not in kept:
            whole['weight'] = torch.full((size,), float(self.weight) if synthetic else 1.0, device=image.device)
        if self.tagged:
            whole['source'] = torch.full((size,), source, dtype=torch.int64, device=image.device)
        return whole

    def complete_samples(self, samples: list[dict[str, Any]], source: int) -> list[dict[str, Any]]:
        """Samples with them, whose arrays are not copied."""
        thin = {'image': torch.empty(len(samples), device='cpu')}  # only its length counts
        soft = self.num_classes is not None and 'label_prob' not in samples[0]
        if soft:
            thin['label'] = torch.stack([as_tensor(sample['label']) for sample in samples])
        extras = replace(self, num_classes=self.num_classes if soft else None, absent=None).complete(thin, source)
        rows = unstack({key: value for key, value in extras.items() if key not in thin})
        completed = []
        for sample, extra in zip(samples, rows, strict=True):
            whole: dict[str, Any] = {}
            for key, value in sample.items():
                if isinstance(value, Tensor):
                    whole[key] = value
                elif is_array(value):
                    whole[key] = as_tensor(value)
                elif self.absent is None or isinstance(self.absent.get(key), str):
                    whole[key] = value
            completed.append({**whole, **extra} if source else {**extra, **whole})
        return completed


def require_same_form(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> None:
    """Check that two completed batches can be joined.

    Raises:
        SpecMismatchError: naming each key that only one side has and each shape or dtype that differs.
    """
    problems = []
    for key in sorted(set(real) ^ set(synthetic)):
        has, lacks = ('real', 'synthetic') if key in real else ('synthetic', 'real')
        problems.append(f'{key!r}: {has} samples have it, {lacks} ones do not')
    for key in sorted(set(real) & set(synthetic)):
        one, other = real[key], synthetic[key]
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            continue
        if one.shape[1:] != other.shape[1:]:
            problems.append(f'{key!r}: real shape {tuple(one.shape[1:])}, synthetic {tuple(other.shape[1:])}')
        if one.dtype != other.dtype:
            problems.append(f'{key!r}: real dtype {one.dtype}, synthetic {other.dtype}')
    if problems:
        _refuse_form(problems)


def _refuse_form(problems: list[str]) -> NoReturn:
    raise SpecMismatchError(
        'real and synthetic samples do not match:\n  '
        + '\n  '.join(problems)
        + '\nBring both to the same keys, shapes and dtypes (image float32, label and mask int64), as '
        'hsiaug.adapt(dataset) does; with size=... it cuts images.'
    )


def in_dtypes_of(real: Mapping[str, Any], synthetic: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Synthetic samples whose floating-point values have the dtypes of the real ones; all else as it is.

    Raises:
        SpecMismatchError: if values would become infinite.
    """
    both = [key for key, value in synthetic.items() if _is_floating(value) and _is_floating(real.get(key))]
    return {**synthetic, **{key: cast_like(synthetic[key], real[key], key, owner) for key in both}}


def _is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def append_rows(batches: Sequence[Mapping[str, Any]], places: Sequence[np.ndarray] | None = None) -> dict[str, Any]:
    """The samples of completed batches of one form, one after the other or at (n,) places of each."""
    for other in batches[1:]:
        require_same_form(batches[0], other)
    back = None if places is None else np.argsort(np.concatenate(places))
    joined: dict[str, Any] = {}
    for key, value in batches[0].items():
        columns = [batch[key] for batch in batches]
        if not isinstance(value, Tensor):
            items = list(chain.from_iterable(columns))
            joined[key] = items if back is None else [items[row] for row in back]
        elif places is None:
            joined[key] = torch.cat([column.to(value.device, non_blocking=True) for column in columns])
        else:  # one new tensor, where cat and an index would make two
            joined[key] = value.new_empty((sum(map(len, places)), *value.shape[1:]))
            for column, rows in zip(columns, places, strict=True):
                joined[key].index_copy_(0, torch.from_numpy(rows).to(value.device), column.to(value.device))
    return joined


def put_rows(value: Tensor, places: Tensor, rows: Tensor, there: Tensor | None = None) -> Tensor:
    """A new tensor (B, ...) like ``value`` with ``rows`` (n, ...) at ``places`` (n,).

    Places are on the CPU, and where ``value`` is too if ``there`` is given.
    """
    if math.prod(value.shape[1:]) * value.element_size() < _LARGE_ROW and value.dtype not in _NOT_INDEXED:
        return value.index_copy(0, places.to(value.device, non_blocking=True) if there is None else there, rows)
    parts = list(value.unbind(0))
    for place, row in zip(places.tolist(), rows.unbind(0), strict=True):
        parts[place] = row
    return torch.stack(parts)


def replace_rows(real: Mapping[str, Any], synthetic: Mapping[str, Any], places: Tensor) -> dict[str, Any]:
    """Real samples with those at ``places`` replaced; both completed. The real batch stays as it was."""
    require_same_form(real, synthetic)
    replaced: dict[str, Any] = {}
    there = _on_each_device(places, real.values())
    for key, value in real.items():
        if isinstance(value, Tensor):
            rows = synthetic[key].to(value.device, non_blocking=True)
            replaced[key] = put_rows(value, places, rows, there[value.device])
        else:
            replaced[key] = list(value)
            for place, text in zip(places.tolist(), synthetic[key], strict=True):
                replaced[key][place] = text
    return replaced


def cast_like(values: Tensor, real: Tensor, what: str, owner: str) -> Tensor:
    """Synthetic values (``what``: ``'image'`` or ``'mask'``) in dtype and on device of the real ones that they replace.

    Raises:
        SpecMismatchError: if the dtype cannot hold the values: an image would become infinite, a class another one.
    """
    cast = values.to(real, non_blocking=True)
    if cast.dtype == values.dtype or values.numel() == 0:
        return cast
    if values.is_floating_point() and cast.is_floating_point():
        # float32 goes a hair beyond bfloat16, which is not worth waiting for a GPU
        if torch.finfo(cast.dtype).max >= 0.99 * torch.finfo(values.dtype).max or torch.isfinite(cast).all():
            return cast
        wrong, hint = bool((~torch.isfinite(cast) & torch.isfinite(values.to(cast.device))).any()), 'mix in float32'
    else:
        wrong, hint = not torch.equal(cast.to(values), values), 'give int64'
    if wrong:
        raise SpecMismatchError(
            f'{owner}: found {what}s of dtype {real.dtype}, which cannot hold the synthetic values from '
            f'{values.min().item():g} to {values.max().item():g}; {hint}, or mix before the batch is converted'
        )
    return cast


def as_tensor(value: Any) -> Tensor:
    """A tensor of a number or an array, on the CPU whatever the default device; tensors as they are."""
    if isinstance(value, np.ndarray) and not (
        value.flags.writeable and value.dtype.isnative and min(value.strides, default=0) >= 0
    ):
        value = value.astype(value.dtype.newbyteorder('='), order='C')  # what torch cannot share, it takes as a copy
    return value if isinstance(value, Tensor) else torch.as_tensor(value, device='cpu')


def as_tensors(values: list[Any]) -> list[Tensor]:
    """:func:`as_tensor` of many values."""
    return values if set(map(type, values)) == {Tensor} else [as_tensor(value) for value in values]


def is_array(value: object) -> bool:
    """Whether a value is stacked in a batch."""
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in 'biufc'  # text is none
    return isinstance(value, Tensor | int | float | bool)
