"""Batch normalisation with separate statistics for synthetic samples.

Xie et al., "Adversarial Examples Improve Image Recognition" (AdvProp), CVPR 2020, https://arxiv.org/abs/1911.09665: in
training, samples of another distribution pass through an auxiliary normalisation. The main one sees real samples only,
and is the one used afterwards. All other layers are shared.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

M = TypeVar('M', bound=nn.Module)


class AuxiliaryBatchNorm(nn.Module):
    """A batch normalisation for real samples, and a copy of it for synthetic ones.

    Statistics and affine parameters are separate. Without flags, and in evaluation mode, all samples use the main one.
    If a side holds a single value per channel, which has no variance, its running statistics are used, unchanged.

    Args:
        main: the normalisation of the network.
    """

    def __init__(self, main: _BatchNorm) -> None:
        super().__init__()
        self.main, self.auxiliary = main, copy.deepcopy(main)
        self.synthetic: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, C, ...).

        Raises:
            ValueError: if the flags are not those of n samples.
        """
        flags = self.synthetic
        if flags is None or not self.training:
            return self.main(x)
        if len(flags) != len(x):
            raise ValueError(
                f'AuxiliaryBatchNorm: {len(flags)} flags for {len(x)} rows; a network that folds dates or windows into '
                'the batch cannot say which rows are synthetic'
            )
        if not flags.any() or flags.all():
            return _normalise(self.auxiliary if flags.any() else self.main, x)
        parts = [(rows, _normalise(norm, x[rows])) for norm, rows in ((self.main, ~flags), (self.auxiliary, flags))]
        y = torch.empty_like(x, dtype=parts[0][1].dtype)
        for rows, part in parts:
            y[rows] = part
        return y


def _normalise(norm: _BatchNorm, x: Tensor) -> Tensor:
    if x.numel() > x.shape[1] or not norm.track_running_stats:
        return norm(x)
    return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def add_auxiliary_bn(network: M) -> M:
    """Give each batch normalisation of a network an auxiliary one, in place.

    Args:
        network: any network whose rows stay samples; its results without synthetic samples stay as they were.

    Returns:
        the network.

    Raises:
        ValueError: if it has no batch normalisation, or has auxiliary ones already.
    """
    if any(isinstance(module, AuxiliaryBatchNorm) for module in network.modules()):
        raise ValueError(f'{type(network).__name__} has auxiliary batch normalisation already')
    places = [(parent, name) for parent in network.modules() for name, child in parent.named_children()
              if isinstance(child, _BatchNorm)]  # fmt: skip
    if not places:
        raise ValueError(f'{type(network).__name__} has no batch normalisation to split; use a network that has')
    for parent, name in places:
        setattr(parent, name, AuxiliaryBatchNorm(getattr(parent, name)))
    return network


def drop_auxiliary_bn(network: M) -> M:
    """Leave only the main normalisations, in place: the network as it was built, with what real samples taught it."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, AuxiliaryBatchNorm):
                setattr(parent, name, child.main)
    return network


@contextmanager
def synthetic_rows(network: nn.Module, synthetic: Tensor | None) -> Iterator[None]:
    """Inside, the flagged rows of a batch take the auxiliary normalisation.

    Args:
        network: with auxiliary batch normalisation; others are left alone.
        synthetic: (n,) bool; None for no synthetic sample.
    """
    layers = [module for module in network.modules() if isinstance(module, AuxiliaryBatchNorm)]
    for layer in layers:
        layer.synthetic = synthetic
    try:
        yield
    finally:
        for layer in layers:
            layer.synthetic = None
