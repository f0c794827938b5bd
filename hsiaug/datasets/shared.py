"""Numbers that data-loader workers see change."""

from __future__ import annotations

from typing import Any

import torch


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
        """Its value."""
        return f'SharedInt({self.value})'
