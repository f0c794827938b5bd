"""Small datasets of every kind, whose masks follow from their images so that alignment can be checked on content."""

from typing import Any

import torch
from torch import Tensor
from torchgeo.datasets import NonGeoDataset

from hsiaug import __version__
from hsiaug.samples import Kind, Provenance, Sample, SampleSpec
from hsiaug.systems import TrainingData

BANDS, SIZE, CLASSES = 5, 8, ('a', 'b', 'c')


def toy_spec(kind: Kind, **changes: Any) -> SampleSpec:
    size = None if kind == 'spectrum' else (SIZE, SIZE)
    classes = ('same', 'changed') if kind == 'change' else CLASSES
    fields: dict[str, Any] = {'classes': classes, 'size': size, 'unit': 'reflectance', **changes}
    return SampleSpec(kind, BANDS, **fields)


def mask_of(image: Tensor) -> Tensor:
    """The mask that belongs to an image (..., C, H, W): thresholds on its first band."""
    return torch.bucketize(image[..., 0, :, :].contiguous(), torch.tensor([0.4, 0.7], device=image.device))


def change_of(image: Tensor) -> Tensor:
    """(..., 1, H, W) the mask of two dates (..., 2, C, H, W): where the second differs from twice the first."""
    return ((image[..., 1, :1, :, :] - 2 * image[..., 0, :1, :, :]).abs() > 0.05).long()


class Toy(NonGeoDataset):
    """``n`` samples of a kind; no two are alike, nor alike those of another seed."""

    def __init__(self, kind: Kind, n: int, seed: int = 0, **extra: Any) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.spec, self.n, self.extra, self.reads = toy_spec(kind), n, extra, 0
        shape = (BANDS,) if kind == 'spectrum' else (BANDS, SIZE, SIZE)
        image = torch.rand(n, *shape, generator=rng)
        self.data: dict[str, Tensor] = {'image': image}
        if kind in ('spectrum', 'scene'):
            self.data['label'] = torch.randint(3, (n,), generator=rng)
        elif kind == 'segmentation':
            self.data['mask'] = mask_of(image)
        else:
            later = 2 * image + torch.where(torch.rand(n, 1, SIZE, SIZE, generator=rng) < 0.3, 0.5, 0.0)
            self.data['image'] = torch.stack([image, later], dim=1)
            self.data['mask'] = change_of(self.data['image'])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Sample:
        return {**{key: value[index].clone() for key, value in self.data.items()}, **self.extra}


def toy_training(kind: Kind, n: int = 12) -> TrainingData:
    """Toy samples to train on, without any that are unlabelled or for validation."""
    toy = Toy(kind, n)
    x, y = toy.data['image'], toy.data[toy.spec.target_key]
    return TrainingData(toy.spec, x, y, x[:0], x[:0], y[:0])


class Replayed:
    """The samples of a dataset, brighter by 7, as a source that has seen what a split trains and validates on."""

    def __init__(self, dataset: Any, split: Any = None) -> None:
        self.spec, self.data = dataset.spec, dataset.batch(range(len(dataset)))
        seen = () if split is None else (split.fingerprint, split.footprint())
        self.provenance = Provenance(__version__, 0, {}, *seen)

    def sample(self, n: int, labels: Tensor | None = None, seed: int | None = None) -> dict[str, Tensor]:
        batch = {key: value[torch.arange(n) % len(value)] for key, value in self.data.items()}
        return {**batch, 'image': batch['image'] + 7}


def aligned(batch: dict[str, Tensor]) -> bool:
    """Whether every mask of a batch still belongs to its image."""
    rule = change_of if batch['image'].ndim == 5 else mask_of
    return torch.equal(rule(batch['image']), batch['mask'].to(torch.int64))


def keys_of(image: Tensor) -> list[bytes]:
    """Each sample of a batch as bytes, to tell one from another."""
    return [row.numpy().tobytes() for row in image.cpu()]
