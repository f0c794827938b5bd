"""Gradient penalty of the improved Wasserstein GAN.

Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, https://arxiv.org/abs/1704.00028, equation 3:
E[(‖∇D(x̂)‖₂ − 1)²] at random points x̂ between real and synthetic samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu


def gradient_penalty_autograd(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The penalty by double backward, for any critic.

    Args:
        critic: from (n, ...) to (n, 1) or (n,) scores, each sample's score from that sample alone.
        x: (n, ...) points x̂.

    Returns:
        () penalty, differentiable with respect to the critic's weights.
    """
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def gradient_penalty_mlp(critic: Any, x: Tensor) -> Tensor:
    """The penalty in closed form, for an MLP with leaky ReLU and one linear output.

    Such a network is piecewise linear, so its input gradient is the product of its weights masked by the slopes of
    the activations, ∇D = W₁ᵀM₁W₂ᵀM₂···w_L. The masks are piecewise constant: they come from a forward pass without
    a graph, and ordinary backward gives the exact gradient with respect to the weights. This costs about a third
    of a double backward, and it can be compiled and captured.

    Args:
        critic: the MLP.
        x: (n, C) points x̂.

    Returns:
        () penalty, equal to :func:`gradient_penalty_autograd` but for rounding.

    Raises:
        TypeError: if the critic is no such network.
    """
    if getattr(critic, 'output', None) != 'linear' or critic.linears[-1].out_features != 1:
        raise TypeError(
            'gradient_penalty_mlp needs an hsiaug.models.MLP with one linear output, found '
            f'{type(critic).__name__}; use gradient_penalty_autograd for other critics'
        )
    slope, activated = critic.negative_slope, []
    with torch.no_grad():
        for linear in critic.linears[:-1]:
            activated.append(linear(x))
            x = leaky_relu(activated[-1], slope)
    gradient: Tensor = critic.linears[-1].weight
    for linear, before in zip(reversed(critic.linears[:-1]), reversed(activated), strict=True):
        # The slopes in one pass, without a mask in memory.
        masked = torch.ops.aten.leaky_relu_backward(gradient.expand_as(before), before, slope, False)
        gradient = masked @ linear.weight
    return (gradient.norm(dim=1) - 1).square().mean()
