"""Scores of an unmixing against reference endmembers and abundances."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..functional.spectral import spectral_angle


@dataclass(frozen=True)
class UnmixingScores:
    """Errors of an unmixing against a reference."""

    abundance_rmse: float  # root mean squared error over all abundances
    endmember_angle: float  # mean spectral angle of the endmembers, radians
    rmse: tuple[float, ...]  # (k,) of each reference endmember's abundances
    angles: tuple[float, ...]  # (k,) radians, of each reference endmember
    order: tuple[int, ...]  # for each reference endmember, the position of the found one that it was matched with


def match_endmembers(found: Tensor, reference: Tensor) -> tuple[int, ...]:
    """Match each of (k, C) reference endmembers to an estimated one, with the smallest sum of angles.

    The matching is one to one (Kuhn, "The Hungarian method for the assignment problem", 1955), so at least k estimated
    endmembers are needed.
    """
    if found.ndim != 2 or reference.ndim != 2 or found.shape[1] != reference.shape[1] or len(found) < len(reference):
        raise ValueError(
            f'match_endmembers: at least {len(reference)} found endmembers of {reference.shape[-1]} bands are needed, '
            f'found {tuple(found.shape)}'
        )
    wanted, given = (x.detach().double().cpu() for x in (reference, found))
    angles = spectral_angle(wanted[:, None], given[None])
    return tuple(linear_sum_assignment(angles.numpy())[1].tolist())


def unmixing_scores(
    abundances: Tensor, endmembers: Tensor, reference_abundances: Tensor, reference_endmembers: Tensor
) -> UnmixingScores:
    """Compare (N, k) abundances and (k, C) endmembers with a reference, matching endmembers by spectral angle."""
    if abundances.shape != reference_abundances.shape or endmembers.shape != reference_endmembers.shape:
        raise ValueError(
            f'unmixing_scores: found {tuple(abundances.shape)} and {tuple(endmembers.shape)}, the reference has '
            f'{tuple(reference_abundances.shape)} and {tuple(reference_endmembers.shape)}; take as many endmembers'
        )
    order = match_endmembers(endmembers, reference_endmembers)
    found, a, e = (x.detach().double().cpu() for x in (endmembers, reference_abundances, reference_endmembers))
    angles = spectral_angle(found[list(order)], e)
    errors = (abundances.detach().double().cpu()[:, list(order)] - a).square().mean(dim=0)
    return UnmixingScores(
        abundance_rmse=float(errors.mean().sqrt()),
        endmember_angle=float(angles.mean()),
        rmse=tuple(errors.sqrt().tolist()),
        angles=tuple(angles.tolist()),
        order=order,
    )
