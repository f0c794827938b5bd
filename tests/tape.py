"""CUDA graphs for machines without a GPU: steps that are recorded operation by operation, and replayed on the CPU.

As in a graph, everything that the host has decided while a step was recorded is frozen: numbers, shapes, branches,
which tensors an operation reads, and where it leaves its result. What is random is drawn anew from the same generators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hsiaug.engine import training
from hsiaug.engine.checkpoint import state_of
from hsiaug.engine.cuda_graphs import undo


class Tape(TorchDispatchMode):
    """The operations that were asked for while it was open."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, tree_leaves(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        """Compute everything again, each result where it was before."""
        for function, args, kwargs, places in self.operations:
            if any(argument.alias_info and not argument.alias_info.is_write for argument in function._schema.returns):
                continue  # a view of what is computed anew
            if function is torch.ops.aten._local_scalar_dense.default:
                continue  # a number that the host knows, and does not ask for again
            results = tree_leaves(function(*args, **kwargs))
            for place, result in zip(places, results, strict=True):
                if isinstance(place, Tensor) and place is not result:
                    place.copy_(result)


def taped(
    step: Callable[[], None],
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    rng: torch.Generator,
    device: torch.device,
    warm_up: int = 3,
) -> Callable[[], None]:
    """What :func:`hsiaug.engine.cuda_graphs.capture` does, on a tape: it takes steps, and undoes them."""
    before = {key: value.clone() for key, value in state_of(modules, optimisers).items()}
    drawn = rng.get_state()
    for _ in range(warm_up):
        step()
    rng.set_state(drawn)
    undo(before, modules, optimisers)
    with Tape() as tape:
        step()
    undo(before, modules, optimisers)  # on a GPU nothing is computed while it is recorded
    rng.set_state(drawn)
    return tape.replay


@contextmanager
def recorded_on_cpu() -> Iterator[list[list[str]]]:
    """Have trainings record and replay their steps; gives the optimisers of each step that was recorded."""
    found: list[list[str]] = []

    def make_capturable(optimisers: Mapping[str, torch.optim.Optimizer], device: torch.device, rates: bool) -> None:
        for optimiser in optimisers.values() if rates else ():
            for group in optimiser.param_groups:
                group['lr'] = torch.tensor(group['lr'], dtype=torch.float64)  # so that not even rounding differs

    def capture(step: Any, modules: Any, optimisers: Any, *others: Any) -> Callable[[], None]:
        found.append(list(optimisers))
        return taped(step, modules, optimisers, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, 'wanted', lambda device: True)
        patch.setattr(training, 'make_capturable', make_capturable)
        patch.setattr(training, 'capture', capture)
        yield found
