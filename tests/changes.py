"""Pairs of dates whose second date has a block of another class here and there, for what learns them."""

import torch
from pairs import BANDS, SIZE, class_spectra, make_pairs

from hsiaug.samples import SampleSpec
from hsiaug.systems import TrainingData

SEASON = torch.linspace(-40, 60, BANDS)[:, None, None]
"""What the second date has more than the first, in counts; no change."""


def make_changes(n: int = 48, seed: int = 0, size: int = SIZE) -> TrainingData:
    """Pairs in counts, under varying light and another season; in three of four a block changed its class."""
    before, rng = make_pairs(n, seed, size=size), torch.Generator().manual_seed(seed + 1000)
    side = torch.randint(3, size - 4, (n, 2), generator=rng)
    corner = (torch.rand((n, 2), generator=rng) * (size - side)).long()
    step = torch.arange(size)
    rows, columns = (
        (step >= corner[:, axis, None]) & (step < corner[:, axis, None] + side[:, axis, None]) for axis in (0, 1)
    )
    mask = (rows[:, :, None] & columns[:, None, :]).long()
    mask[::4] = 0
    after = (before.y + mask) % 3
    light = 1 + 0.15 * torch.randn((n, 1, 1, 1), generator=rng)
    noise = 3 * torch.randn(before.x.shape, generator=rng)
    second = light * class_spectra()[after].movedim(-1, 1) + SEASON + noise
    x, y = torch.stack([before.x, second], dim=1), mask[:, None]
    classes = ('unchanged', 'changed')
    spec = SampleSpec('change', BANDS, classes, size=(size, size), ignore_index=255, unit='counts')
    return TrainingData(spec, x, y, x[:0], x[:0], y[:0])
