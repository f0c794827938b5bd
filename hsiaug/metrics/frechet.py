"""Distances between two sets of vectors: Fréchet, precision and recall, density and coverage, sliced Wasserstein."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ..settings import check_value

_CHUNK = 1024  # rows of a distance matrix at a time


class _Features(nn.Identity):
    """What torchmetrics takes for a network, where the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of Gaussians fitted to features (Heusel et al. 2017): ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2√Σ_aΣ_b).

    The estimate is biased upwards, more so with fewer vectors, and strongly if there are no more vectors than features.
    Only compare distances from equal numbers of samples.

    Args:
        a: (n, d) features.
        b: (m, d) features.

    Returns:
        the squared distance, in the features' squared unit.

    Raises:
        ValueError: if the shapes do not match, a side has fewer than two vectors, or a feature is not finite.
    """
    a, b = _features('frechet_distance', a, b, least=2)
    # About the mean of one side: the distance stays, and sums of squares lose no digits.
    centre = a.mean(dim=0)
    metric = FrechetInceptionDistance(feature=_Features(a.shape[1])).set_dtype(torch.float64)
    metric.update(a - centre, real=True)
    metric.update(b - centre, real=False)
    return max(float(metric.compute()), 0.0)


@dataclass(frozen=True)
class PRDC:
    """Precision, recall, density and coverage.

    Args:
        precision: share of synthetic vectors within the reach of a real one; the reach of a vector is the distance to
            its k-th neighbour on the same side.
        recall: share of real vectors within the reach of a synthetic one.
        density: mean number of real vectors whose reach includes a synthetic one, divided by k; may exceed 1.
        coverage: share of real vectors whose reach includes a synthetic one.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> PRDC:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Args:
        real: (n, d) features.
        fake: (m, d) features.
        k: the neighbour that sets the reach.

    Raises:
        ValueError: if the shapes do not match, a side has no more than k vectors, or a feature is not finite.
    """
    check_value('prdc', 'k', k, int)
    real, fake = _features('prdc', real, fake, least=k + 1)
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    inside, covered, recalled = [], [], []
    for some in range(0, len(fake), _CHUNK):
        within = _distances(fake[some : some + _CHUNK], real) <= real_reach
        inside.append(within.sum(dim=1))
        covered.append(within.any(dim=0))
    for some in range(0, len(real), _CHUNK):
        recalled.append((_distances(real[some : some + _CHUNK], fake) <= fake_reach).any(dim=1))
    hits = torch.cat(inside)
    return PRDC(
        precision=float((hits > 0).double().mean()),
        recall=float(torch.cat(recalled).double().mean()),
        density=float(hits.double().mean() / k),
        coverage=float(torch.stack(covered).any(dim=0).double().mean()),
    )


def _features(name: str, a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f'{name}: features must be (n, d) and (m, d), found {tuple(a.shape)} and {tuple(b.shape)}')
    if min(len(a), len(b)) < least:
        raise ValueError(f'{name}: at least {least} vectors a side are needed, found {len(a)} and {len(b)}')
    sides = a.detach().cpu().double(), b.detach().cpu().double()
    for side in sides:
        if not side.isfinite().all():
            raise ValueError(f'{name}: {int((~side.isfinite()).sum())} features are not finite; check the images')
    return sides


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Not by way of a matrix product, which gives two equal vectors a distance.
    return torch.cdist(a, b, compute_mode='donot_use_mm_for_euclid_dist')


def _reach(x: Tensor, k: int) -> Tensor:
    """(n,) distance of each vector to its k-th neighbour; the nearest, at distance 0, is itself."""
    chunks = [_distances(x[some : some + _CHUNK], x).kthvalue(k + 1, dim=1).values for some in range(0, len(x), _CHUNK)]
    return torch.cat(chunks)


def sliced_wasserstein(a: Tensor, b: Tensor, seed: int = 0) -> Tensor:
    """Sliced Wasserstein distance of order 1 (Rabin et al. 2011; Bonneel et al. 2015).

    Of (n, d) and (m, d) points: () mean over 128 random directions of the one-dimensional distance ∫|F⁻¹_a − F⁻¹_b|,
    with the quantile functions taken at 256 levels where n and m differ.
    """
    rng = torch.Generator().manual_seed(seed)
    axes = torch.randn((a.shape[1], 128), generator=rng).to(a)
    axes = axes / axes.norm(dim=0)
    projected = [x @ axes for x in (a, b)]
    if len(a) == len(b):
        ordered = [p.sort(dim=0).values for p in projected]
    else:
        levels = ((torch.arange(256) + 0.5) / 256).to(a)
        ordered = [torch.quantile(p, levels, dim=0) for p in projected]
    return (ordered[0] - ordered[1]).abs().mean()
