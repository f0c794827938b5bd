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
    """L1 of images scaled to a range of 1, plus ``sad_weight`` times the spectral angle.

    Both are computed on physical images, after undoing the normalisation by ``std`` and ``mean``. An angle between
    z-scores would be measured from the mean spectrum of the data and say nothing about the shape of a spectrum; and an
    L1 of z-scores is about six times that of values from 0 to 1, for which the paper's weight of the angle is meant.
    The angle is computed from the cosine in single precision, at a seventh of the cost of
    :func:`~hsiaug.functional.spectral_angle` and within 1 % of it above 0.005 rad.

    Args:
        output: (n, C, H, W) normalised reconstruction.
        target: (n, C, H, W) normalised image.
        mean: (C, 1, 1) offset of the normalisation, in the dataset's unit.
        std: (C, 1, 1) scale of the normalisation, in the dataset's unit.
        width: range of the values of all bands, in the dataset's unit, see :func:`value_width`.
        sad_weight: weight λ of the spectral angle in radians; at 0, the angle is not computed.

    Returns:
        () mean over all values and pixels.
    """
    loss = ((output - target) * (std / width)).abs().mean()
    if sad_weight:
        loss = loss + sad_weight * _angle(torch.addcmul(mean, output, std), torch.addcmul(mean, target, std)).mean()
    return loss


def value_width(x: Tensor) -> float:
    """Range of the values in their unit, from the 0.1 % to the 99.9 % quantile, so that glints do not determine it."""
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
    """Reconstruction loss of masks over valid pixels.

    Args:
        logits: (n, K, H, W).
        mask: (n, H, W) int64 classes; any value for pixels to be ignored.
        counts: (n, H, W) bool, which pixels are valid.
        kind: ``'cross_entropy'``, or ``'l1'`` to the one-hot mask, as in latent diffusion for any channel.

    Returns:
        () mean over valid pixels; 0 with a gradient of 0 if there are none.

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
