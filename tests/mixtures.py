"""Mixtures of known endmembers in known abundances, whose classes are their dominant materials."""

import torch
from torch import Tensor

from hsiaug.samples import Kind, Provenance, SampleSpec
from hsiaug.systems import TrainingData

BANDS, SIZE = 24, 16
WAVELENGTHS = tuple(torch.linspace(420.0, 880.0, BANDS).tolist())
CLASSES = ('water', 'soil', 'leaves')
UNIT = 1000.0  # counts: nothing may rest on values below 1


def endmembers() -> Tensor:
    """(3, C) spectra that differ in red, green and blue as well as beyond."""
    w = torch.tensor(WAVELENGTHS)
    water = 0.30 * torch.exp(-(((w - 450) / 120) ** 2)) + 0.02
    soil = 0.15 + 0.5 * (w - 420) / 460
    leaves = 0.04 + 0.16 * torch.exp(-(((w - 550) / 30) ** 2)) + 0.65 / (1 + torch.exp(-(w - 710) / 12))
    return UNIT * torch.stack([water, soil, leaves])


def maps(n: int, seed: int) -> Tensor:
    """(n, 3, s, s) smooth abundances with nearly pure pixels of each material."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 4, 4, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode='bilinear', align_corners=True)
    return (8 * fine).softmax(dim=1)


def mixtures(n: int = 24, seed: int = 0, noise: float = 0.003, kind: Kind = 'segmentation') -> TrainingData:
    """Images with their dominant materials as masks, or with that of most pixels as label; validation holds others."""
    rng = torch.Generator().manual_seed(1000 + seed)
    parts = []
    for part_seed, count in ((seed, n), (seed + 500, 8)):
        abundances = maps(count, part_seed)
        image = torch.einsum('kc,nkhw->nchw', endmembers(), abundances)
        image = (image + noise * UNIT * torch.randn(image.shape, generator=rng)).clamp_min(0)
        mask = abundances.argmax(dim=1)
        label = torch.stack([(mask == k).sum(dim=(1, 2)) for k in range(3)]).argmax(dim=0)
        parts.append((image, mask if kind == 'segmentation' else label))
    spec = SampleSpec(kind, BANDS, CLASSES, WAVELENGTHS, size=(SIZE, SIZE), unit='counts')
    (x, y), (val_x, val_y) = parts
    return TrainingData(spec, x, y, x[:0], val_x, val_y, Provenance('0', 0, {}, 'split'))
