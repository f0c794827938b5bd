"""Generators that alter samples: one whose result can be checked to the bit, and super-resolution by interpolation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from toys import Toy, keys_of, toy_spec

from hsiaug.samples import Kind
from hsiaug.systems import TrainingData
from hsiaug.systems.msrresgan.model import MSRResGAN
from hsiaug.trainers import fit_generator


class NearestZoom(nn.Module):
    """Doubles a random quarter of every sample, image and mask by nearest neighbour, and counts what it is given."""

    def __init__(self, kind: Kind = 'segmentation') -> None:
        super().__init__()
        self.spec = Toy(kind, 1).spec
        self.weight = nn.Parameter(torch.ones(1))  # that no optimiser shall find
        self.given = 0

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def augment(self, batch: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        assert seed is not None
        image = batch['image']
        assert image.dtype == torch.float32
        self.given += len(image)
        half = image.shape[-1] // 2
        corners = torch.randint(half + 1, (len(image), 2), generator=torch.Generator().manual_seed(seed)).tolist()

        def zoom(x: Tensor) -> Tensor:
            windows = [one[..., t : t + half, u : u + half] for one, (t, u) in zip(x, corners, strict=True)]
            return torch.stack(windows).repeat_interleave(2, -1).repeat_interleave(2, -2)

        return {**batch, **{key: zoom(batch[key]) for key in ('image', 'mask') if key in batch}}


def unaltered(before: Tensor, after: Tensor) -> Tensor:
    """(B,) whether each image is what it was, to the bit."""
    return torch.tensor([a == b for a, b in zip(keys_of(before), keys_of(after), strict=True)])


def plateaus(n: int = 6, size: int = 12, kind: Kind = 'segmentation') -> TrainingData:
    """Pictures of 4 x 4 plateaus whose first band says the class."""
    rng = torch.Generator().manual_seed(0)
    classes = torch.randint(3, (n, 4, 4), generator=rng)
    image = (classes[:, None] + 0.2 * torch.rand(n, 5, 4, 4, generator=rng)) / 3
    image, mask = (x.repeat_interleave(size // 4, -1).repeat_interleave(size // 4, -2) for x in (image, classes))
    y = mask if kind == 'segmentation' else mask[:, size // 2, size // 2]
    return TrainingData(toy_spec(kind, size=(size, size)), image, y, image[:0], image[:0], y[:0])


def class_of(image: Tensor) -> Tensor:
    """(n, H, W) the classes that plateaus (n, C, H, W) show."""
    return (image[:, 0] * 3 - 0.1).round().clamp(0, 2).long()


def interpolating(data: TrainingData, **settings: Any) -> MSRResGAN:
    """Super-resolution by interpolation, of which nothing is trained."""
    generator = fit_generator('msrresgan', data, {'network': 'bicubic', **settings})
    assert isinstance(generator, MSRResGAN)
    return generator
