"""Weights that are kept besides those of the last step: their average, and those that scored best."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar('M', bound=nn.Module)
_LOWEST = torch.finfo(torch.float64).min  # finite, as all that a checkpoint keeps


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


class Best(nn.Module, Generic[M]):
    """A copy of a network with the weights that scored best so far, in the form that checkpoints keep."""

    module: M
    score: Tensor

    def __init__(self, network: M) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer('score', torch.tensor(_LOWEST, dtype=torch.float64))

    @property
    def found(self) -> bool:
        """Whether any weights have been kept."""
        return float(self.score) > _LOWEST

    def keep(self, network: nn.Module, score: float) -> None:
        """Take the weights of a network that has this score, whatever others had."""
        self.module.load_state_dict(network.state_dict())
        self.score.fill_(score)
