"""Training steps as CUDA graphs: launching kernels limits the speed of small networks, and a replay is one launch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..datasets.shared import world
from .checkpoint import Optimisers, restore, state_of

SWITCH = 'HSIAUG_CUDA_GRAPHS'
"""Environment variable; ``0`` turns recording off, should it ever fail: operations are then launched one by one."""


def wanted(device: torch.device) -> bool:
    """Whether to record steps on a device: on a GPU, in a training of one process, unless switched off."""
    if device.type != 'cuda' or world()[1] > 1:
        return False
    if (switch := os.environ.get(SWITCH, '1')) not in ('0', '1'):
        raise ValueError(f'{SWITCH} must be 0 or 1, or not set, found {switch!r}; set it to 0 to turn CUDA graphs off')
    return switch == '1'


def make_capturable(optimisers: Optimisers, device: torch.device, rates: bool) -> None:
    """Move to the device what changes between steps: step counts and, if a schedule changes them, learning rates."""
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
    """Record a step on a CUDA device; calling the result replays it.

    CUDA graphs need warm-up steps; these are undone, so that training continues as if without a graph. The modules
    must include everything that a step changes, and the optimisers must be capturable. Random numbers come from
    ``rng`` or the default generator of the device, both of which may be reseeded between replays.

    Raises:
        RuntimeError: if a step synchronises with the host, or memory runs out.
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
    """Restore a state from :func:`~hsiaug.engine.checkpoint.state_of` in place, since graphs hold on to the tensors.

    Optimisers that had not taken a step yet had no state; that of Adam and RMSprop starts at 0. It must exist before
    a step is recorded, or every replay would create it anew.
    """
    restore(before, modules, {})
    for key, value in state_of({}, optimisers).items():
        value.copy_(before[key]) if key in before else value.zero_()
