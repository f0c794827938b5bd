"""What the generators of abundances have in common: labels, normalisation and one way to sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ....functional.plain import plain_torch
from ....settings import Range, check_arguments

GIVEN = ('k', 'size', 'num_labels')
"""Arguments of a generator of abundances that are not its own settings."""
_PIXELS = 2**17  # of the samples that are made at a time


class AbundanceModel(nn.Module):
    """Makes maps of the abundances of k endmembers, at least 2; a subclass implements :meth:`draw`.

    The side s of the maps is 8, 10, 12 or 14 pixels, or such a number times a power of two. Labels are known as numbers
    from 0, and −1 for a map without label, as those of foreign images are: to the networks that is one class more.
    Without labels to learn ``num_labels`` is 0. ``settings`` are the subclass's own, ready for JSON.
    """

    kind: ClassVar[str]
    learning_rate: ClassVar[float]
    """Of its training, where none is given."""
    ranges: ClassVar[Mapping[str, Range]] = {}
    """Of the numbers among its settings."""

    mean: Tensor  # (k, 1, 1) of the training abundances
    std: Tensor
    label_prior: Tensor  # (num_labels + 1,) frequencies in training, those without label last

    def __init__(self, k: int, size: int, num_labels: int, **settings: Any) -> None:
        super().__init__()
        check_arguments(type(self), settings, self.ranges)
        who = type(self).__name__
        if k < 2:
            raise ValueError(f'{who}: needs at least 2 endmembers, found k={k}')
        if num_labels < 0:
            raise ValueError(f'{who}: num_labels must not be negative, found {num_labels}')
        if size < 8 or not 4 <= coarsest(size) <= 7:
            raise ValueError(
                f'{who}: maps must be 8, 10, 12 or 14 pixels wide or such a number times a power of two, found {size}; '
                'cut other patches'
            )
        self.k, self.size, self.num_labels, self.settings = k, size, num_labels, settings
        self.register_buffer('mean', torch.full((k, 1, 1), 1 / k))
        self.register_buffer('std', torch.ones(k, 1, 1))
        self.register_buffer('label_prior', torch.full((num_labels + 1,), 1 / (num_labels + 1)))

    @property
    def device(self) -> torch.device:
        """Where the network's tensors live."""
        return self.mean.device

    @torch.no_grad()
    def observe(self, abundances: Tensor, index: Tensor, weights: Tensor) -> None:
        """Take mean and standard deviation of each endmember, and the frequencies of labels.

        Maps (N, k, s, s) have labels ``index`` (N,) from 0 to num_labels, and are met in training as often as
        ``weights`` (N,) say, which add up to one.
        """
        share = weights / abundances[0, 0].numel()
        mean = torch.einsum('n,nkhw->k', share, abundances)
        square = torch.einsum('n,nkhw->k', share, abundances.square())
        std = (square - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean[:, None, None])
        # An endmember that is hardly there must not be blown up.
        self.std.copy_(std.clamp_min(1e-2)[:, None, None])
        self.label_prior.copy_(torch.zeros_like(self.label_prior).index_add_(0, index, weights.to(self.label_prior)))

    def standardise(self, abundances: Tensor) -> Tensor:
        """Abundances as networks take them, each endmember with mean 0 and standard deviation 1."""
        return (abundances - self.mean) / self.std

    def embedding(self, width: int) -> nn.Embedding | None:
        """Of the labels and of no label, if there are labels."""
        return nn.Embedding(self.num_labels + 1, width) if self.num_labels else None

    def draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """(n, k, s, s) abundances for (n,) indices of labels on the device, with all randomness from ``rng``."""
        raise NotImplementedError

    @plain_torch()
    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None, rng: torch.Generator) -> Tensor:
        """Draw n maps of abundances (n, k, s, s) float32, not negative, adding up to one over the endmembers.

        Labels are (n,) int64, −1 for no label, and drawn from the training frequencies if None; where there are none to
        learn they have no effect. ``rng`` is on the CPU, so that a seed means the same maps on every device.
        """
        if not self.num_labels:
            index = torch.zeros(n, dtype=torch.int64)
        elif labels is None:
            index = torch.empty(0, dtype=torch.int64)
            if n:
                index = torch.multinomial(self.label_prior.cpu(), n, replacement=True, generator=rng)
        else:
            index = label_index(labels, n, self.num_labels, type(self).__name__)
        chunk = max(1, _PIXELS // self.size**2)
        parts = [self.draw(part.to(self.device), rng).float() for part in index.split(chunk) if len(part)]
        return torch.cat([self.mean.new_empty(0, self.k, self.size, self.size), *parts])


def coarsest(size: int) -> int:
    """The side after all halvings that leave at least 4 pixels."""
    while size % 2 == 0 and size >= 8:
        size //= 2
    return size


def label_index(labels: Tensor, n: int, num_labels: int, who: str) -> Tensor:
    """(n,) int64 rows of an embedding, on the CPU, for labels: the label, or ``num_labels`` for −1."""
    labels = labels.to(torch.int64).cpu()
    if labels.shape != (n,):
        raise ValueError(f'{who}: labels must be ({n},) for {n} maps, found {tuple(labels.shape)}')
    if n and not -1 <= int(labels.min()) <= int(labels.max()) < num_labels:
        raise ValueError(
            f'{who}: labels must lie in [0, {num_labels}), or be −1 for none, found '
            f'[{int(labels.min())}, {int(labels.max())}]'
        )
    return torch.where(labels < 0, num_labels, labels)
