"""Diffusion loss with Min-SNR weighting.

Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023, https://arxiv.org/abs/2303.09556.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn.functional import mse_loss

Prediction = Literal['epsilon', 'v_prediction']


def min_snr_weight(alpha: Tensor, gamma: float, prediction_type: Prediction = 'v_prediction') -> Tensor:
    """Weights (n,) of squared errors, so that each equals min(SNR, γ) times the squared error of the clean signal.

    With SNR = ᾱ / (1 − ᾱ), the squared error of the noise is SNR times that of the signal, and the squared error of the
    velocity SNR + 1 times that of the signal; ᾱ (n,), between 0 and 1, is the share of signal power at each time.
    """
    ratio = alpha / (1 - alpha)
    return ratio.clamp_max(gamma) / (ratio if prediction_type == 'epsilon' else ratio + 1)


def denoising_loss(
    predict: Callable[[Tensor], Tensor], x: Tensor, noise: Tensor, alpha: Tensor, form: Prediction, gamma: float | None
) -> Tensor:
    """() Squared error of a network's prediction from √ᾱ x + √(1 − ᾱ) ε: noise ε, or velocity √ᾱ ε − √(1 − ᾱ) x.

    Clean samples x and noise are (n, C, H, W), ᾱ is (n,); ``gamma`` is γ of the Min-SNR weights, None for no weights.
    """
    signal, rest = (part.sqrt()[:, None, None, None] for part in (alpha, 1 - alpha))
    target = noise if form == 'epsilon' else signal * noise - rest * x
    prediction = predict(signal * x + rest * noise).float()
    if gamma is None:
        return mse_loss(prediction, target)
    weight = min_snr_weight(alpha, gamma, form)
    return (weight * mse_loss(prediction, target, reduction='none').mean(dim=(1, 2, 3))).mean()
