"""Encoders of patches for fidelity metrics, trained on the real training part or supplied by the user."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..engine import Run
from ..engine.schedules import OneCycle
from ..engine.stream import Batch
from ..functional.plain import plain_torch
from ..models.patch_encoder import PatchEncoder
from ..streams import seeded
from .supervised import Supervised

_BATCH, _LEARNING_RATE = 8, 5e-3
_IGNORED = -100  # what cross_entropy leaves out


@plain_torch()
def train_patch_encoder(
    image: Tensor,
    mask: Tensor,
    num_classes: int,
    ignore_index: int | None = None,
    seed: int = 0,
    steps: int = 300,
    device: str = 'cpu',
) -> PatchEncoder:
    """Train an encoder of patches by classifying their pixels.

    Args:
        image: (N, C, H, W) float32 real training patches.
        mask: (N, H, W) int64 their masks.
        num_classes: K.
        ignore_index: value of pixels that do not count.
        seed: of the initialisation, the order of the patches and their flips; torch's global generator is left alone.
        steps: optimiser steps.
        device: where to train, and where the encoder is, in evaluation mode and without gradients.

    Raises:
        ValueError: if no pixel counts, the patches are not finite, or ``steps`` is below 1.
        FloatingPointError: if training diverges.
    """
    if steps < 1:
        raise ValueError(f'train_patch_encoder: steps must be at least 1, found {steps}')
    counts = (mask >= 0) & (mask < num_classes)
    if ignore_index is not None:
        counts &= mask != ignore_index
    if not counts.any():
        raise ValueError(f'train_patch_encoder: none of {mask.numel()} pixels has a class that counts')
    if not image.isfinite().all():
        raise ValueError('train_patch_encoder: the patches hold values that are not finite; fill them first')
    some = counts.flatten(1).any(dim=1)
    image, target = image[some].to(device), mask.where(counts, _IGNORED)[some].to(device)
    with seeded(seed, device):
        model = PatchEncoder(image.shape[1], num_classes).fit_scale(image.cpu()).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)

        def loss_of(batch: Batch) -> Tensor:
            return cross_entropy(model.logits(batch['image']), batch['target'], ignore_index=_IGNORED)

        patches, rate = _FlippedPatches(image, target, seed), 'the learning rate'
        _Cycled('the patch encoder', model, optimiser, patches, _BATCH, steps, OneCycle(), loss_of, rate).run(Run())
    return model.eval().requires_grad_(False)


class _FlippedPatches:
    """Batches of random patches, all of one flipped alike."""

    def __init__(self, image: Tensor, target: Tensor, seed: int) -> None:
        self.image, self.target, self.seed = image, target, seed
        self.seek(0)

    def take(self, count: int) -> Batch:
        rows = torch.randint(len(self.image), (count,), generator=self.rng).to(self.image.device, non_blocking=True)
        turns = torch.randint(2, (2,), generator=self.rng).nonzero()[:, 0] - 2  # of the last two axes
        flip = tuple(turns.tolist())
        return {'image': self.image[rows].flip(flip), 'target': self.target[rows].flip(flip)}

    def seek(self, taken: int) -> None:
        self.rng = torch.Generator().manual_seed(self.seed)
        for _ in range(taken // _BATCH):
            self.take(_BATCH)


class _Cycled(Supervised):
    """Momentum is low where the learning rate is high."""

    def update(self, rng: torch.Generator) -> None:
        for group in self.optimisers['optimiser'].param_groups:
            momentum = OneCycle().between(0.95, 0.85, 0.95, self.step, self.steps)
            group['betas'] = (momentum, group['betas'][1])
        super().update(rng)


@plain_torch()
def train_date_encoder(
    image: Tensor, mask: Tensor, ignore_index: int | None = None, seed: int = 0, steps: int = 300, device: str = 'cpu'
) -> PatchEncoder:
    """Train an encoder of single dates by telling of each pixel which date it is of, and whether it is a changed one.

    Images are (N, 2, C, H, W) float32, masks (N, 1, H, W) int64, 0 and 1; for the rest, and the errors, see
    :func:`train_patch_encoder`. The encoder is one of (n, C, H, W) images of either date.
    """
    target = mask + 2 * torch.arange(2)[:, None, None]
    if ignore_index is not None:
        target = torch.where(mask == ignore_index, mask, target)
    return train_patch_encoder(image.flatten(0, 1), target.flatten(0, 1), 4, ignore_index, seed, steps, device)
