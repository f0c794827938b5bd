"""Tensors on their way between the CPU and a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for all that a GPU has still to do.

    Pageable memory would be copied only after that; a draw between two training steps would stop them.
    """
    if device.type == 'cpu' or tensor.device.type != 'cpu':
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == 'cuda' else tensor).to(device, non_blocking=True)
