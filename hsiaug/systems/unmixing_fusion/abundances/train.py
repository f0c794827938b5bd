"""Training of the generators of abundances: hierarchical VAE, style-based GAN, diffusion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ....engine import Run
from ....engine.checkpoint import digest_of, identity_of
from ....engine.data import require_finite_samples
from ....functional.plain import plain_torch
from ....streams import seeded
from .base import AbundanceModel, label_index
from .config import AbundanceConfig, abundance_model
from .stages import AbundanceTraining, DiffusionTraining, StyleGANTraining, VAETraining

CHECKPOINT_FILE = 'abundances.safetensors'
_TRAININGS: dict[str, Callable[..., AbundanceTraining]] = {
    'vae': VAETraining, 'style_gan': StyleGANTraining, 'diffusion': DiffusionTraining,
}  # fmt: skip


@plain_torch()
def train_abundances(
    abundances: Tensor,
    labels: Tensor | None,
    num_labels: int,
    config: AbundanceConfig | None = None,
    run: Run | None = None,
    weights: Tensor | None = None,
) -> AbundanceModel:
    """Train a generator of abundances, whose averaged weights come back on the device.

    Args:
        abundances: (N, k, s, s) float32 maps on the simplex.
        labels: (N,) int64, −1 for maps without label; None where there are no labels to learn.
        num_labels: how many labels there are, 0 for none.
        config: setting; the default one if None.
        run: how, see :class:`~hsiaug.engine.Run`; the checkpoint is removed when the training ends.
        weights: (N,) how often a map is met, relative to the others; alike if None.

    Raises:
        FloatingPointError: if the training diverges; the last good checkpoint stays.
    """
    config, run = config or AbundanceConfig(), run or Run()
    _require_trainable(abundances)
    abundances = abundances.detach().float().cpu()
    index = _indices(abundances, labels, num_labels)
    shares = _shares(len(abundances), weights)
    digest = digest_of(abundances, index, shares)
    identity = identity_of(config, run.seed, ('learning_rate',), maps=list(abundances.shape), data=digest)
    with seeded(run.seed):
        k, size = abundances.shape[1:3]
        model = abundance_model(config.kind, k, size, num_labels, **config.network)
        model.observe(abundances, index, shares)
        there = (part.to(run.device) for part in (model, abundances, index, shares))
        training = _TRAININGS[config.kind](*there, config, run.seed)
    training.complete(run, CHECKPOINT_FILE, identity)
    return training.average.module.requires_grad_(True).eval()


def _require_trainable(abundances: Tensor) -> None:
    """Raises ValueError unless these are maps of abundances."""
    shape = tuple(abundances.shape)
    if len(shape) != 4 or shape[2] != shape[3] or 0 in shape or not abundances.is_floating_point():
        raise ValueError(
            f'abundances must be square maps (N, k, s, s) of floating point, found {shape} of {abundances.dtype}'
        )
    require_finite_samples(abundances, 'maps', 'patches')
    low, total = float(abundances.min()), abundances.sum(dim=1)
    if low < -1e-4 or float((total - 1).abs().max()) > 1e-3:
        raise ValueError(
            f'abundances must not be negative and add up to one at each pixel; found a least value of {low:.3g} and '
            f'sums from {float(total.min()):.4g} to {float(total.max()):.4g}'
        )


def _indices(abundances: Tensor, labels: Tensor | None, num_labels: int) -> Tensor:
    """(N,) indices of labels on the CPU."""
    if num_labels == 0 or labels is None:
        if num_labels:
            raise ValueError(f'labels must be given for num_labels={num_labels}, found None; num_labels=0 learns none')
        return torch.zeros(len(abundances), dtype=torch.int64)
    index = label_index(labels, len(abundances), num_labels, 'train_abundances')
    missing = sorted(set(range(num_labels)) - set(index.tolist()))
    if missing:
        raise ValueError(f'no map has the labels {missing} of {num_labels}: they cannot be learnt; leave them out')
    return index


def _shares(n: int, weights: Tensor | None) -> Tensor:
    """(n,) float32 weights on the CPU that add up to one."""
    if weights is None:
        return torch.full((n,), 1 / n)
    weights = weights.float().cpu()
    if weights.shape != (n,) or not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise ValueError(f'weights must be ({n},), finite and not negative, found {tuple(weights.shape)}: {weights}')
    if not bool(weights.sum() > 0):
        raise ValueError('weights of all maps are 0: nothing is left to learn from')
    return weights / weights.sum()
