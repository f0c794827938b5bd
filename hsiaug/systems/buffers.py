"""Modules that keep what they have learnt in buffers: of shapes known only after fitting, and in full precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class BufferedModule(nn.Module):
    """A module whose buffers named in ``fitted`` get their shapes from the training data, or from a saved state."""

    fitted: ClassVar[tuple[str, ...]] = ()
    """Names of buffers whose shapes are known only after fitting."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[str, str], tuple[Tensor, int, Tensor]] = {}
        for name in self.fitted:
            self.register_buffer(name, torch.empty(0))

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        """Load a state, of which the buffers in ``fitted`` first take shape and type."""
        for name in self.fitted:
            own, saved = getattr(self, name), state.get(prefix + name)
            if saved is not None and (own.shape, own.dtype) != (saved.shape, saved.dtype):
                setattr(self, name, torch.empty_like(saved, device=own.device))
        super()._load_from_state_dict(state, prefix, *args)  # type: ignore[no-untyped-call]

    def on_cpu(self, name: str) -> Tensor:
        """A buffer on the CPU, where draws begin; copied once, as a copy waits for all that a GPU has still to do."""
        value: Tensor = getattr(self, name)
        return value if value.device.type == 'cpu' else self.made_of(name, Tensor.cpu)

    def made_of(self, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``make``, known by its name, makes of a buffer: once, as long as that stays what it is."""
        value: Tensor = getattr(self, name)
        key = name, make.__qualname__
        version = 0 if value.is_inference() else value._version  # which a tensor of inference mode does not count
        kept = self._made.get(key)
        if kept is None or kept[0] is not value or kept[1] != version:
            kept = self._made[key] = (value, version, make(value))
        return kept[2]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move the module, but keep its numbers as they are, for ``half()``, ``bfloat16()`` and ``to(dtype)`` too.

        Rounded weights make other samples, and a model in half precision that holds a generator wants no other samples.
        """

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
