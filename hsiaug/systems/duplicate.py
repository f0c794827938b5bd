"""Control: real training samples again. Gains beyond this come from samples being new."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..functional.plain import plain_torch
from ..samples import Kind
from .base import Generator, TrainingData, register


class ExemplarGenerator(Generator):
    """Base of generators that start from labelled training spectra, which they keep."""

    kinds: ClassVar[tuple[Kind, ...]] = ('spectrum',)
    fitted: ClassVar[tuple[str, ...]] = ('train_x', 'train_y')
    train_x: Tensor
    train_y: Tensor

    @plain_torch()
    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Keep the labelled training spectra."""
        self.train_x, self.train_y = data.x.to(self.device), data.y.to(self.device)
        self.adopt(data, seed)

    def exemplars(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """(n,) positions of training spectra of the wanted classes, uniform within a class."""
        position = torch.empty(len(labels), dtype=torch.int64)
        uniform = torch.rand(len(labels), generator=rng, dtype=torch.float64)
        train_y = self.train_y.cpu()
        for label in torch.unique(labels).tolist():
            members = torch.nonzero(train_y == label)[:, 0]
            if len(members) == 0:
                raise ValueError(
                    f'{type(self).__name__}: no training spectrum of class {label} ({self.spec.classes[label]}); '
                    'fit on data with this class, or do not ask for it'
                )
            wanted = labels == label
            position[wanted] = members[(uniform[wanted] * len(members)).long()]
        return position.to(self.device)


@register('duplicate')
class Duplicate(ExemplarGenerator):
    """Real training spectra, or images with one label, drawn with replacement within their class."""

    kinds: ClassVar = ('spectrum', 'scene')

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {'image': self.train_x[self.exemplars(labels, rng)]}
