"""A training step as one CUDA graph: small networks are bound by kernel launches, and a replay needs only one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from .checkpoint import restore, state_of


def capture(
    step: Callable[[], None],
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    rng: torch.Generator,
    device: torch.device,
    warm_up: int = 3,
) -> Callable[[], None]:
    """Record one step on the device, without synchronisation; each call of the result replays it.

    The steps of the warm-up, which CUDA graphs need, are undone: training continues as without a graph. Modules are all
    that a step changes, and their optimisers must be capturable; all random numbers of a step come from ``rng``, which
    may be seeded anew between replays.
    """
    if device.type != 'cuda':
        raise ValueError(f'CUDA graphs need a CUDA device, found {device}; leave cuda_graph off')
    before = {key: value.clone() for key, value in state_of(modules, optimisers).items()}
    drawn = rng.get_state()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    # An optimiser that has not stepped yet has no state, and would make it inside the graph, anew at each replay. Zero
    # is what Adam and RMSprop start from
    for key, value in state_of(modules, optimisers).items():
        if key.startswith('optimiser/') and key not in before:
            before[key] = torch.zeros_like(value)
    restore(before, modules, optimisers)
    rng.set_state(drawn)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(rng)  # replays draw new numbers
    with torch.cuda.graph(graph):
        step()
    return graph.replay
