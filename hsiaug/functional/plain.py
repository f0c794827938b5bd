"""The state of torch that sampling and training are written for, whatever a caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

_AUTOCASTING = ('cpu', 'cuda', 'mps', 'xpu')


@contextmanager
def plain_torch() -> Iterator[None]:
    """Tensors on the CPU and of float32 where nothing else is said, and no autocast; also a decorator.

    A seed must mean the same sample under ``torch.autocast``, with another default dtype or with another default device
    too: noise is drawn on the CPU in float32, and networks compute in the precision that they were trained in. What is
    set already costs nothing.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.get_default_device().type != 'cpu':
            stack.enter_context(torch.device('cpu'))
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        for kind in _AUTOCASTING:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def learning() -> Iterator[None]:
    """:func:`plain_torch` where gradients are recorded, even if a caller has turned them off."""
    with plain_torch(), torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def as_trained(module: nn.Module) -> Iterator[None]:
    """A module in eval mode, then in its own again.

    A model that holds a generator puts it in training mode with itself, and there each draw would change the statistics
    of batch normalisation, and with them all draws that follow.
    """
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True
