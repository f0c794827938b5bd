"""How the samples of a user's dataset are read: with its name in errors, and ahead by worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader

T = TypeVar('T')
IN_MEMORY = 1 << 30
"""Bytes of samples up to which a dataset is held in memory for training; a larger one is read batch by batch."""


def read(dataset: Any, row: int, name: str) -> Any:
    """One sample of a dataset.

    Raises:
        ValueError: with the sample's number and what the dataset itself says.
    """
    try:
        return dataset[row]
    except IndexError as error:
        raise ValueError(
            f'{name}: sample {row} is missing, although the dataset claims to have {len(dataset)}'
            + (f': {error}' if str(error) else '')
        ) from error
    except Exception as error:
        raise ValueError(f'{name}: sample {row} cannot be read: {type(error).__name__}: {error}') from error


@dataclass(frozen=True)
class _OrError(Generic[T]):
    """What is made of an item, or what went wrong: an error of a worker would come with its traceback in it."""

    make: Callable[[Any], T]

    def __getitem__(self, item: Any) -> T | Exception:
        try:
            return self.make(item)
        except Exception as error:  # whatever a dataset raises
            return error


def read_ahead(make: Callable[[Any], T], items: Iterable[Any], workers: int) -> Iterator[T]:
    """What is made of each item, in order, ahead by worker processes, if any; an error is raised as it is."""
    loader = DataLoader(
        cast(Any, _OrError(make)), batch_size=None, sampler=items, num_workers=workers, worker_init_fn=_leave_signals,
        prefetch_factor=2 if workers else None,
    )  # fmt: skip
    for found in loader:
        if isinstance(found, Exception):
            raise found
        yield found


def _leave_signals(_: int) -> None:
    """In a worker: Ctrl-C is the main process's to answer, and a request to end is followed at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def usual_workers() -> int:
    """Worker processes for a dataset that does not fit in memory: one less than there are cores, four at most."""
    return max(1, min(4, (os.cpu_count() or 2) - 1))
