"""Columns of a batch, one for each key: real and synthetic ones completed, compared and joined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ...samples import SpecMismatchError
from ..contract.batches import Arrays, on_each_device

_TARGETS = (
    'label', 'labels', 'label_prob', 'mask', 'masks', 'weight', 'boxes', 'bbox', 'bboxes', 'bbox_xyxy', 'keypoints',
)  # fmt: skip
"""Keys of what a model learns from, in torchgeo, torchvision and here."""
_NOT_INDEXED = (torch.uint16, torch.uint32, torch.uint64)  # dtypes that torch cannot index with ``index_copy``
_LARGE_ROW = 16 << 10  # bytes; above, one pass over whole rows beats a copy and an index, by five times at batch 4


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
        weight_dtype: of the weights of real samples, where they have some that are floating.
    """

    num_classes: int | None = None
    weight: float | None = None
    absent: Mapping[str, Any] | None = None
    tagged: bool = False
    weight_dtype: torch.dtype | None = None

    def complete(self, columns: Mapping[str, Any], source: int) -> dict[str, Any]:
        """Columns with them; their source is 0 for real samples, else the number of the source, from 1."""
        image, synthetic = columns['image'], source > 0
        size, device = len(image), image.device if isinstance(image, Tensor) else torch.device('cpu')
        whole = dict(columns)
        if self.absent is not None:
            whole = {key: value for key, value in columns.items() if isinstance(value, Tensor | Arrays)}
            for key, value in self.absent.items():
                if not synthetic:
                    if key in columns and key not in whole:  # text, or None for lack of a value
                        whole[key] = list(columns[key])
                elif isinstance(value, str):
                    whole[key] = [value] * size
                elif key not in whole:
                    whole[key] = torch.stack([value] * size) if size else value[None][:0]
        kept = {'synthetic', 'weight'} & set(whole) if source == 0 else set()  # of samples that were mixed before
        if 'synthetic' not in kept:
            whole['synthetic'] = torch.full((size,), synthetic, dtype=torch.bool, device=device)
        if self.num_classes is not None and 'label_prob' not in whole:
            label = whole['label'][..., None]
            classes = torch.arange(self.num_classes, device=label.device)
            whole['label_prob'] = (label == classes).to(torch.float32)  # of none where it is ignored
        if self.weight is not None and 'weight' not in kept:
            weight = float(self.weight) if synthetic else 1.0
            whole['weight'] = torch.full((size,), weight, dtype=self.weight_dtype, device=device)
        if self.tagged:
            whole['source'] = torch.full((size,), source, dtype=torch.int64, device=device)
        return whole


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
    cast = dict(synthetic)
    for key, value in synthetic.items():
        like = real.get(key)
        if not isinstance(value, Tensor) or not isinstance(like, Tensor) or value.dtype == like.dtype:
            continue
        if value.is_floating_point() and like.is_floating_point():
            cast[key] = cast_like(value, like, key, owner)
    return cast


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
    there = on_each_device(places, real.values())
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
