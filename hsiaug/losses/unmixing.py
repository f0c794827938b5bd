"""Loss of an unmixing network (Yu et al., "Unmixing before Fusion", CVPR 2024, Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..functional.spectral import spectral_angle

_BLACK = 1e-6  # norm below which a spectrum has no direction, in units of the brightest


def endmember_total_variation(endmembers: Tensor) -> Tensor:
    """() sum of the absolute differences between neighbouring bands, mean over the endmembers (k, C).

    The paper prints the differences without absolute values; their sum would depend on the first and last band only.
    """
    return endmembers.diff(dim=1).abs().sum(dim=1).mean()


def unmixing_loss(
    output: Tensor, target: Tensor, endmembers: Tensor, sad_weight: float = 0.1, tv_weight: float = 1e-3
) -> Tensor:
    """() MAE + α · spectral angle + β · total variation of the endmembers (k, C), mean over values and pixels.

    Output and target are (n, C, H, W), in a unit with values from about 0 to 1; the angle is in radians. Black pixels
    have no angle and are left out of its mean.
    """
    loss = (output - target).abs().mean() + tv_weight * endmember_total_variation(endmembers)
    if not sad_weight:
        return loss
    found, wanted = (x.movedim(1, -1).flatten(0, -2) for x in (output, target))
    lit = (wanted.norm(dim=1) > _BLACK) & (found.detach().norm(dim=1) > _BLACK)
    # Masked, not left out: to count them a GPU would have to be waited for.
    found, wanted = (torch.where(lit[:, None], x, 1.0) for x in (found, wanted))
    angle = torch.where(lit, spectral_angle(found, wanted), 0.0)
    return loss + sad_weight * (angle.sum() / lit.sum().clamp_min(1))
