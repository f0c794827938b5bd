"""Losses of autoencoders of image-mask pairs (SpecDM, 2025, Eqs. 1 and 2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

MaskLoss = Literal['cross_entropy', 'l1']
_VALUES, _OUTLIERS = 1_000_000, 1e-3


def spectral_reconstruction(
    output: Tensor, target: Tensor, mean: Tensor, std: Tensor, width: float, sad_weight: float = 0.1
) -> Tensor:
    """L1 of images whose values span 1, plus ``sad_weight`` times the spectral angle.

    Both are of physical images, after ``std`` and ``mean`` are put back. An angle between z-scores is measured from the
    mean spectrum of the data, and says nothing about the shape of a spectrum; and an L1 of z-scores is some six times
    that of values from 0 to 1, to which the paper's weight of the angle relates. The angle comes from the cosine in
    single precision, at a seventh of the cost of :func:`~hsiaug.functional.spectral_angle` and within 1 % of it from
    0.005 rad on.

    Args:
        output: (n, C, H, W) normalised reconstruction.
        target: (n, C, H, W) normalised image.
        mean: (C, 1, 1) offset of the normalisation, in the dataset's unit.
        std: (C, 1, 1) scale of the normalisation, in the dataset's unit.
        width: what the values of all bands span, in the dataset's unit, see :func:`value_width`.
        sad_weight: λ of the spectral angle in radians; at 0 it is not computed.

    Returns:
        () the mean over all values and pixels.
    """
    loss = ((output - target) * (std / width)).abs().mean()
    if sad_weight:
        loss = loss + sad_weight * _angle(torch.addcmul(mean, output, std), torch.addcmul(mean, target, std)).mean()
    return loss


def value_width(x: Tensor) -> float:
    """What nearly all values span, in their unit: from the 0.1 % to the 99.9 % quantile, or glints would set it."""
    values = x.reshape(-1)
    values = values[:: max(1, len(values) // _VALUES)].double()
    low, high = values.quantile(values.new_tensor([_OUTLIERS, 1 - _OUTLIERS])).tolist()
    return high - low if high > low else 1.0


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """(n, H, W) spectral angle of (n, C, H, W) images; π/2 to a zero spectrum."""
    squares = a.square().sum(dim=1) * b.square().sum(dim=1)
    cosine = (a * b).sum(dim=1) * torch.rsqrt(squares.clamp_min(torch.finfo(a.dtype).tiny))
    # The clamp keeps the gradient finite where both are the same up to rounding.
    return 2 * ((1 - cosine) / 2).clamp(1e-9, 1).sqrt().asin()


def mask_loss(logits: Tensor, mask: Tensor, counts: Tensor, kind: MaskLoss = 'cross_entropy') -> Tensor:
    """Reconstruction loss of masks over the pixels that count.

    Args:
        logits: (n, K, H, W).
        mask: (n, H, W) int64 classes; any value where a pixel does not count.
        counts: (n, H, W) bool, which pixels count.
        kind: ``'cross_entropy'``, or ``'l1'`` to the one-hot mask, which is what latent diffusion does to any channel.

    Returns:
        () the mean over counting pixels; 0 with a gradient of 0 where none counts.

    Raises:
        ValueError: for an unknown kind.
    """
    safe = torch.where(counts, mask, 0)
    if kind == 'cross_entropy':
        values = cross_entropy(logits, safe, reduction='none')
    elif kind == 'l1':
        values = (logits - one_hot(safe, logits.shape[1]).movedim(-1, 1)).abs().mean(dim=1)
    else:
        raise ValueError(f"mask_loss: unknown kind {kind!r}; choose from 'cross_entropy', 'l1'")
    return torch.where(counts, values, 0).sum() / counts.sum().clamp_min(1)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """(n,) KL divergence of a diagonal Gaussian (n, ...) from the standard normal, summed over its dimensions."""
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(dim=1)
