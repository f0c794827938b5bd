"""Training steps as CUDA graphs: small networks are bound by kernel launches, and a replay needs only one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..datasets.shared import world
from .checkpoint import Optimisers, restore, state_of

SWITCH = 'HSIAUG_CUDA_GRAPHS'
"""Environment variable; with ``0`` every step is launched operation by operation, should recording it ever fail."""


def wanted(device: torch.device) -> bool:
    """Whether steps on a device are to be recorded: on a GPU that processes do not share, unless switched off."""
    return device.type == 'cuda' and world()[1] == 1 and os.environ.get(SWITCH) != '0'


def make_capturable(optimisers: Optimisers, device: torch.device, rates: bool) -> None:
    """Keep on the device what changes from step to step: numbers of steps taken, and learning ``rates`` if they do."""
    for optimiser in optimisers.values():
        for group in optimiser.param_groups:
            group['capturable'] = True
            if rates:
                group['lr'] = torch.as_tensor(group['lr'], device=device)
        for state in optimiser.state.values():
            state['step'] = torch.as_tensor(state['step'], device=device)


def capture(
    step: Callable[[], None],
    modules: Mapping[str, nn.Module],
    optimisers: Optimisers,
    rng: torch.Generator,
    device: torch.device,
    warm_up: int = 3,
) -> Callable[[], None]:
    """Record one step on a CUDA device, without synchronisation; each call of the result replays it.

    The steps of the warm-up, which CUDA graphs need, are undone: training continues as without a graph. Modules are all
    that a step changes, and their optimisers must be capturable; all random numbers of a step come from ``rng``, or
    from the device's default generator; both may be seeded anew between replays.

    Raises:
        RuntimeError: if a step asks the host for something, or memory is short.
    """
    before = {key: value.clone() for key, value in state_of(modules, optimisers).items()}
    drawn = rng.get_state()
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_up):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        undo(before, modules, optimisers)
        rng.set_state(drawn)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(rng)  # replays draw new numbers
        try:
            with torch.cuda.graph(graph, capture_error_mode='thread_local'):
                step()
        except RuntimeError as error:
            raise RuntimeError(
                f'a training step could not be recorded as a CUDA graph ({error}); set the environment variable '
                f'{SWITCH}=0, and its operations are launched one by one'
            ) from error
    return graph.replay


def undo(before: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimisers: Optimisers) -> None:
    """Put back a state of :func:`~hsiaug.engine.checkpoint.state_of`, in the very tensors that graphs know.

    An optimiser that had not stepped yet had no state: of Adam and RMSprop it is 0 at first. Made inside a graph, it
    would be made anew by each replay.
    """
    restore(before, modules, {})
    for key, value in state_of({}, optimisers).items():
        value.copy_(before[key]) if key in before else value.zero_()
