"""Image-mask pairs of two classes each, for what learns them: the mask follows from the spectra."""

import torch
from torch import Tensor

from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData

BANDS, SIZE, CLASSES = 8, 16, ('a', 'b', 'c')
CENTRES = torch.tensor([1.0, 3.5, 6.0])


def class_spectra() -> Tensor:
    """(K, C) mean spectra: a bump each."""
    return 100 + 200 * torch.exp(-((torch.arange(BANDS) - CENTRES[:, None]) ** 2) / 2)


def make_pairs(n: int = 48, seed: int = 0, ignored: float = 0.0, size: int = SIZE) -> TrainingData:
    """Patches with a straight border between two of three classes, in counts, under varying light."""
    rng = torch.Generator().manual_seed(seed)
    first = torch.randint(3, (n, 1, 1), generator=rng)
    second = (first + torch.randint(1, 3, (n, 1, 1), generator=rng)) % 3
    border = torch.randint(4, size - 3, (n, 1, 1), generator=rng)
    y = torch.where(torch.arange(size)[None, :, None] < border, first, second).expand(n, size, size).clone()
    flipped = torch.rand(n, generator=rng) < 0.5
    y[flipped] = y[flipped].mT
    light = 1 + 0.15 * torch.randn((n, 1, 1, 1), generator=rng)
    noise = 3 * torch.randn((n, BANDS, size, size), generator=rng)
    x = light * class_spectra()[y].movedim(-1, 1) + noise
    y[torch.rand(y.shape, generator=rng) < ignored] = 255
    spec = SampleSpec('segmentation', BANDS, CLASSES, size=(size, size), ignore_index=255, unit='counts')
    return TrainingData(spec, x, y, x[:0], x[:0], y[:0])


def nearest_class(image: Tensor) -> Tensor:
    """(n, H, W) the class whose mean spectrum has the smallest angle to each pixel's."""
    u = torch.nn.functional.normalize(class_spectra(), dim=1)
    v = torch.nn.functional.normalize(image, dim=1)
    return torch.einsum('kc,nchw->nkhw', u, v).argmax(dim=1)
