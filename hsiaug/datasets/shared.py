"""What the processes of a training share, what each keeps for itself, and which of the ranks this one is."""

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
    """An integer in shared memory: what the main process writes, persistent workers read, forked or spawned.

    A copy (``copy.deepcopy``, pickle, cloudpickle) starts with the same value, in memory that it shares with its own
    workers alone. A plain tensor would lose its sharing there, and workers would keep the first value.
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
        # Sent to a worker, the tensor is shared already, and stays the very same; from a pickle or a copy, it is not.
        self._tensor = state['_tensor'].share_memory_()

    def __repr__(self) -> str:
        return f'SharedInt({self.value})'


def require_epoch(owner: str, epoch: int) -> int:
    """An epoch as Python's integer, if it is one: they are counted from 0."""
    plain = epoch.item() if isinstance(epoch, torch.Tensor) else epoch
    return int(check_value(owner, 'epoch', plain, int, NOT_NEGATIVE))


class InEpochs:
    """What has an epoch, counted from 0, which workers see change."""

    def __init__(self) -> None:
        self._epoch = SharedInt(0)

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return self._epoch.value

    def set_epoch(self, epoch: int) -> None:
        """Draw other samples from now on, in all workers. Without it every epoch repeats epoch 0.

        Call it between epochs: a plain loader that is being iterated over continues with the samples of the new one
        (:class:`~hsiaug.samplers.MixedBatchSampler` keeps to its own).
        """
        self._epoch.value = require_epoch(type(self).__name__, epoch)


class Kept(OrderedDict[Key, Value]):
    """What was made last, ``most`` of it by key; a copy in another process begins empty."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """What is kept, or made now."""
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
