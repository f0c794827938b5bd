"""Multilayer perceptron with leaky ReLU: generator, critic and classifier of Audebert et al. 2018."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


class MLP(nn.Module):
    """Fully connected layers with leaky ReLU between them.

    "4-layers deep fully connected networks with 512 neurons" is read as four hidden layers and a linear output, as in
    the authors' published notebook.

    Args:
        in_features: inputs.
        out_features: outputs.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        negative_slope: of the leaky ReLU.
        output: ``'linear'`` or ``'sigmoid'``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: int = 512,
        layers: int = 4,
        negative_slope: float = 0.2,
        output: Literal['linear', 'sigmoid'] = 'linear',
    ) -> None:
        super().__init__()
        if output not in ('linear', 'sigmoid'):
            raise ValueError(f"MLP: unknown output {output!r}; choose from 'linear', 'sigmoid'")
        widths = [in_features, *[hidden] * layers, out_features]
        self.linears = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.negative_slope, self.output = negative_slope, output

    def forward(self, x: Tensor) -> Tensor:
        """(n, out_features) of (n, in_features)."""
        for linear in self.linears[:-1]:
            x = leaky_relu(linear(x), self.negative_slope)
        x = self.linears[-1](x)
        return torch.sigmoid(x) if self.output == 'sigmoid' else x
