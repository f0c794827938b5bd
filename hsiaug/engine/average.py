"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar('M', bound=nn.Module)


class Average(Generic[M]):
    """A copy of a network whose weights follow the network's, closely at first.

    After step t the decay is min(decay, (1 + t) / (10 + t)), so that the initialisation is soon forgotten.

    Args:
        network: that is followed.
        decay: of the average, in [0, 1).
    """

    def __init__(self, network: M, decay: float) -> None:
        self.network, self.decay = network, decay
        self.module: M = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move towards the network's weights after step number ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average: list[Tensor] = list(self.module.parameters())
        torch._foreach_lerp_(average, list(self.network.parameters()), 1 - decay)
