"""Real and synthetic samples of one batch, read apart and joined: as a list of samples, or as a batch at once."""

from __future__ import annotations

import operator
from collections import UserList
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data._utils.collate import collate, collate_tensor_fn, default_collate_fn_map

from ...samples import Sample
from ..contract.batches import stack, unstack
from .columns import Extras, append_rows

_SMALL = 16 << 10  # bytes of a sample; above, the copy of its values is what a batch costs


class Part(NamedTuple):
    """Samples of one side of a batch.

    Args:
        number: 0 for real samples, k for those of the k-th source.
        places: (n,) of the samples in the batch, ascending.
        columns: the samples by key, see :func:`~hsiaug.datasets.contract.batches.columns_of`.
    """

    number: int
    places: np.ndarray
    columns: dict[str, Any]

    def is_small(self) -> bool:
        """Whether stacking costs more than copying, and collation gives what it gives."""
        first = [value[0] for value in self.columns.values()]
        known = all(isinstance(value, Tensor | str) for value in first)
        return known and sum(value.nbytes for value in first if isinstance(value, Tensor)) < _SMALL


def join(parts: Sequence[Part], extras: Extras) -> dict[str, Any]:
    """All samples in one batch, completed with ``extras``."""
    whole = [extras.complete(stack(part.columns), part.number) for part in parts]
    if len(whole) < 2:
        return next(iter(whole), {})
    return append_rows(whole, [part.places for part in parts])


def take_apart(parts: Sequence[Part], extras: Extras) -> list[Sample]:
    """The samples of all parts in their places, completed with ``extras``; images are not copied."""
    samples: list[Sample] = [{} for part in parts for _ in part.places]
    for part in parts:
        completed = unstack(extras.complete(part.columns, part.number))
        for place, sample in zip(part.places.tolist(), completed, strict=True):
            samples[place] = sample
    return samples


class JoinedSamples(UserList[Sample]):
    """The list of a batch's samples, which torch's ``default_collate`` joins without taking it apart.

    Taking a batch of spectra apart to stack it again takes longer than reading it. Whoever looks at the samples finds a
    list of dictionaries, and what is collated then is what was made of them.

    Args:
        samples: the samples of a plain list, such as one that was made of another.
        whole: their batch, which is taken apart where it must be.
    """

    def __init__(self, samples: Iterable[Sample] = (), whole: dict[str, Any] | None = None) -> None:
        self._whole, self._samples = whole or {}, list(samples) if whole is None else None
        self._first = _First((key, value[0]) for key, value in self._whole.items())  # torch looks at it to collate
        self._given = tuple(self._first.values())

    @property
    def data(self) -> list[Sample]:  # type: ignore[override]
        """The samples themselves, which count from now on."""
        if self._samples is None:
            self._samples = [self._first, *unstack(self._whole)[1:]]
        return self._samples

    def __len__(self) -> int:
        return len(self._whole['image'] if self._samples is None else self._samples)

    def __getitem__(self, index: Any) -> Any:
        return self._first if self._samples is None and index == 0 else super().__getitem__(index)

    __copy__ = UserList.copy  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self.data,)

    def joined(self) -> dict[str, Any] | None:
        """The batch; None if the samples were handed out and may have been changed."""
        same = self._samples is None and self._first.keys() == self._whole.keys()
        same = same and all(map(operator.is_, self._first.values(), self._given))
        return self._whole if same else None


class _First(dict[str, Any]):
    """The first sample of a batch that is not taken apart yet."""


def _collate(batch: Any, *, collate_fn_map: Any = None) -> Any:
    usual = (collate_fn_map or {}).get(Tensor) is collate_tensor_fn  # nobody has put another in its place
    if usual and isinstance(batch, JoinedSamples) and (whole := batch.joined()) is not None:
        return whole
    plain = [{**sample} if isinstance(sample, _First) else sample for sample in batch]
    return collate(plain, collate_fn_map=collate_fn_map)


default_collate_fn_map[_First] = _collate
