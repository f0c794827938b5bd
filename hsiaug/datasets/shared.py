"""State shared by the processes of a training, caches of each, and the rank of this one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..settings import NOT_NEGATIVE, check_value

Key = TypeVar('Key')
Value = TypeVar('Value')


class SharedInt:
    """An integer in shared memory, written by the main process and read by persistent workers, forked or spawned.

    A copy (``copy.deepcopy``, pickle, cloudpickle) starts with the same value, in memory shared only with its own
    workers. A plain tensor would no longer be shared there, and workers would keep the first value.
    """

    def __init__(self, value: int) -> None:
        self._tensor = torch.tensor(value, dtype=torch.int64, device='cpu').share_memory_()

    @property
    def value(self) -> int:
        """The current value."""
        return int(self._tensor)

    @value.setter
    def value(self, value: int) -> None:
        self._tensor.fill_(value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A tensor sent to a worker is already shared and stays the same; one from a pickle or a copy is not.
        self._tensor = state['_tensor'].share_memory_()

    def __repr__(self) -> str:
        return f'SharedInt({self.value})'


def require_epoch(owner: str, epoch: int) -> int:
    """An epoch as a Python integer, counted from 0."""
    plain = epoch.item() if isinstance(epoch, torch.Tensor) else epoch
    return int(check_value(owner, 'epoch', plain, int, NOT_NEGATIVE))


class InEpochs:
    """Base of objects with an epoch, counted from 0, that workers see change."""

    def __init__(self) -> None:
        self._epoch = SharedInt(0)

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self._epoch.value

    def set_epoch(self, epoch: int) -> None:
        """Draw other samples from now on, in all workers; otherwise, every epoch repeats epoch 0.

        Call it between epochs: a plain loader that is being iterated over continues with the samples of the new one
        (:class:`~hsiaug.samplers.MixedBatchSampler` keeps to its own).
        """
        self._epoch.value = require_epoch(type(self).__name__, epoch)


class Kept(OrderedDict[Key, Value]):
    """Cache of the last ``most`` objects by key; a copy in another process starts empty."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """The cached object, or a new one."""
        if self.most < 1:
            return make()
        if key not in self:
            while len(self) >= self.most:
                self.popitem(last=False)
            self[key] = make()
        self.move_to_end(key)
        return self[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.most,)


def world() -> tuple[int, int]:
    """This process's rank and the number of ranks; 0 and 1 outside a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
