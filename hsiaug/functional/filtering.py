"""Resampling with Kaiser-windowed low-pass filters, without padding.

Karras et al., "Alias-Free Generative Adversarial Networks", NeurIPS 2021, https://arxiv.org/abs/2106.12423, appendix C.
"""

from __future__ import annotations

import torch
from scipy.signal import firwin
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d


def kaiser_lowpass(taps: int, cutoff: float, half_width: float, rate: float) -> Tensor:
    """(taps,) float32: a windowed sinc whose weights add up to one.

    The ``cutoff``, below half the rate, is the frequency of half the amplitude, with a transition of ``half_width`` on
    either side; ``rate`` is the samples per unit of length at which the filter works. An even number of taps delays by
    half a sample, alike on both sides.
    """
    return torch.from_numpy(firwin(taps, cutoff, width=2 * half_width, fs=rate)).float()


def upsample_filtered(x: Tensor, fir: Tensor, factor: int) -> Tensor:
    """Zeros between samples, then the filter along both sides, where it lies within the input.

    With a filter (T,) at the higher rate, (n, C, S, S) becomes (n, C, M, M), M = (S − 1) · factor − T + 2.
    """
    taps, channels = len(fir), x.shape[1]
    # The filter's flanks are few channels wide at a time: one side after the other is far less work than both at once.
    row = (fir * factor).to(x.dtype).expand(channels, 1, 1, taps)
    x = conv_transpose2d(x, row, stride=(1, factor), padding=(0, taps - 1), groups=channels)
    return conv_transpose2d(x, row.mT, stride=(factor, 1), padding=(taps - 1, 0), groups=channels)


def downsample_filtered(x: Tensor, fir: Tensor, factor: int) -> Tensor:
    """The filter along both sides, where it lies within the input, and each ``factor``-th sample of what it gives.

    With a filter (T,) at the higher rate, (n, C, M, M) becomes (n, C, S, S), S = ⌊(M − T) / factor⌋ + 1.
    """
    channels = x.shape[1]
    row = fir.to(x.dtype).expand(channels, 1, 1, len(fir))
    return conv2d(conv2d(x, row, stride=(1, factor), groups=channels), row.mT, stride=(factor, 1), groups=channels)
