"""Min-SNR weighting of the losses of diffusion.

Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023, https://arxiv.org/abs/2303.09556.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def min_snr_weight(
    alpha: Tensor, gamma: float, prediction_type: Literal['epsilon', 'v_prediction'] = 'v_prediction'
) -> Tensor:
    """Weights of squared errors, so that each counts min(SNR, γ) times the squared error of the clean signal.

    With SNR = ᾱ / (1 − ᾱ), the squared error of the noise is SNR times, that of the velocity SNR + 1 times that of the
    signal.

    Args:
        alpha: share ᾱ of the signal's power at each sample's time, between 0 and 1.
        gamma: γ.
        prediction_type: what the network predicts.

    Returns:
        weights, of the shape of ``alpha``.
    """
    ratio = alpha / (1 - alpha)
    return ratio.clamp_max(gamma) / (ratio if prediction_type == 'epsilon' else ratio + 1)
