"""A training update as one CUDA graph: small networks are bound by kernel launches, of which a replay needs one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Capturable(Protocol):
    """A training whose state can be taken and put back, and whose random numbers come from one generator."""

    device: torch.device
    rng: torch.Generator

    def update(self) -> None:
        """One iteration on the device, without synchronisation; its optimisers must be capturable."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that the next iteration depends on; optimiser states under keys that begin with 'optimiser.'."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from such a state."""
        ...


def capture(training: Capturable, warm_up: int = 3) -> Callable[[], None]:
    """Record one update; each call of the result replays it.

    The updates of the warm-up, which CUDA graphs need, are undone: training goes on as without a
    graph.

    Raises:
        ValueError: if the training is not on a CUDA device.
    """
    if training.device.type != 'cuda':
        raise ValueError(f'CUDA graphs need a CUDA device, found {training.device}; leave cuda_graph off')
    before = training.state()
    stream = torch.cuda.Stream(training.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(training.device))
    with torch.cuda.stream(stream):
        for _ in range(warm_up):
            training.update()
    torch.cuda.current_stream(training.device).wait_stream(stream)
    # An optimiser that has not stepped yet has no state, and would make it inside the graph, anew at each replay. Zero
    # is what Adam and RMSprop start from.
    for key, value in training.state().items():
        if key.startswith('optimiser.') and key not in before:
            before[key] = torch.zeros_like(value)
    training.load_state(before)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(training.rng)  # replays draw new numbers
    with torch.cuda.graph(graph):
        training.update()
    return graph.replay
