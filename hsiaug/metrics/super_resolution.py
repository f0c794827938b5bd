"""Scores of super-resolved images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from ..functional.spectral import spectral_angle
from ..settings import POSITIVE, check_value

FLOOR = 1e-3  # of the peak: relative errors of smaller values, and shares of smaller bands, are noise


@dataclass(frozen=True)
class SuperResolutionScores:
    """Scores of a super-resolved image.

    Args:
        mrae: mean of |error| / |target| over all values, with targets clamped to a thousandth of the peak or more.
        sid: spectral information divergence, mean over pixels, see :func:`spectral_information_divergence`.
        sid_sum: spectral information divergence, summed over all pixels.
        psnr: peak signal-to-noise ratio in dB, over all values.
        ssim: structural similarity, mean over bands and images.
        sam: spectral angle in radians, mean over pixels.
        ergas: relative global error (Wald 2000), mean over images; 0 is perfect.
    """

    mrae: float
    sid: float
    sid_sum: float
    psnr: float
    ssim: float
    sam: float
    ergas: float


def spectral_information_divergence(a: Tensor, b: Tensor, floor: float = 1e-6, dim: int = 1) -> Tensor:
    """Symmetric Kullback-Leibler divergence of spectra normalised to a sum of one.

    Chang, "An Information-Theoretic Approach to Spectral Variability, Similarity, and Discrimination for Hyperspectral
    Image Analysis", IEEE Transactions on Information Theory 2000.

    Args:
        a: spectra, bands along ``dim``.
        b: the same shape.
        floor: smallest value; lower ones, including zeros and negative values, are raised to it.
        dim: dimension of the bands.

    Returns:
        divergence in nats, without ``dim``.
    """
    p, q = (x.clamp_min(floor) / x.clamp_min(floor).sum(dim=dim, keepdim=True) for x in (a, b))
    return ((p - q) * (p.log() - q.log())).sum(dim=dim)


def super_resolution_scores(
    predicted: Tensor, target: Tensor, factor: int, peak: float | None = None
) -> SuperResolutionScores:
    """Scores of images against their high-resolution originals.

    Args:
        predicted: (n, C, H, W) in the target's unit.
        target: (n, C, H, W), with sides of at least 11 pixels.
        factor: ratio of the resolutions.
        peak: range of the values for PSNR and SSIM; by default, the target's largest value. Use the same peak for all
            images to be compared.

    Raises:
        ValueError: if the shapes differ or are too small, values are not finite, or factor or peak are not positive.
    """
    check_value('super_resolution_scores', 'factor', factor, float, POSITIVE)
    if predicted.shape != target.shape or target.ndim != 4 or not len(target):
        raise ValueError(
            f'super_resolution_scores: predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must have '
            'one shape (n, C, H, W), n above 0; sides that the factor does not divide are cropped before degrading'
        )
    if min(target.shape[-2:]) < 11:
        raise ValueError(f'super_resolution_scores: SSIM needs sides of 11 pixels, found {tuple(target.shape[-2:])}')
    predicted, target = predicted.to(torch.float64), target.to(torch.float64)
    for name, image in (('predicted', predicted), ('target', target)):
        if not torch.isfinite(image).all():
            raise ValueError(f'super_resolution_scores: {name} images hold NaN or infinite values')
    peak = float(target.max()) if peak is None else peak
    if not peak > 0:
        raise ValueError(f'super_resolution_scores: the peak must be positive, found {peak}; give the range of values')
    sid = spectral_information_divergence(predicted, target, FLOOR * peak)
    ergas = error_relative_global_dimensionless_synthesis(predicted, target, ratio=factor)
    return SuperResolutionScores(
        mrae=float(((predicted - target).abs() / target.abs().clamp_min(FLOOR * peak)).mean()),
        sid=float(sid.mean()),
        sid_sum=float(sid.sum()),
        psnr=float(peak_signal_noise_ratio(predicted, target, data_range=peak)),
        ssim=float(torch.as_tensor(structural_similarity_index_measure(predicted, target, data_range=peak))),
        sam=float(spectral_angle(predicted, target, dim=1).mean()),
        ergas=float(ergas),
    )
