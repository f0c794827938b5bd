"""Linear unmixing: endmembers, abundances, projection onto the simplex, and selection of RGB bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

RGB_CENTRES = (640.0, 550.0, 460.0)
"""Centre wavelengths in nm of red, green and blue of a colour camera."""

_REACH_NM = 50.0  # a band farther than this from a colour's centre does not show that colour
_COMPARED = 500  # spectra by which draws are compared
_RANK_TOLERANCE = 1e-13  # of second moments; rounding spectra to float32 leaves about 1e-15 of the largest


def require_rank(spectra: np.ndarray, endmembers: int, who: str) -> None:
    """Check that spectra (N, C) can hold ``endmembers`` linearly independent endmembers, which ``who`` demands.

    Raises:
        ValueError: if there are fewer than 2, or more than the rank of the spectra.
    """
    if endmembers < 2:
        raise ValueError(f'{who}: at least 2 endmembers are needed to mix, found {endmembers}')
    x = np.asarray(spectra, dtype=np.float64)
    moments = np.linalg.eigvalsh(x.T @ x)
    rank = int((moments > _RANK_TOLERANCE * moments[-1]).sum()) if moments[-1] > 0 else 0
    if endmembers > rank:
        raise ValueError(
            f'{who}: {endmembers} endmembers, but {len(x)} spectra of {x.shape[1]} bands have rank {rank}; '
            f'take at most {rank} endmembers, or more bands or pixels'
        )


def vca(spectra: np.ndarray, endmembers: int, seed: int = 0, draws: int = 1) -> np.ndarray:
    """Endmembers (k, C) float64 by vertex component analysis: spectra of the chosen pixels, as they are.

    Nascimento and Bioucas-Dias, "Vertex component analysis: a fast algorithm to unmix hyperspectral data", IEEE TGRS
    43(4), 2005. The data are projected, in perspective onto k dimensions or, where noise is strong, onto k − 1 about
    their mean; then the most extreme pixel in a random direction orthogonal to the endmembers found so far is the next.

    The result depends on the directions and, in scenes with dark materials, whose noise the perspective enlarges, on
    the projection. Of several ``draws`` in both projections, the one with the smallest residual is taken.

    Args:
        spectra: (N, C) spectra.
        endmembers: number of endmembers k.
        seed: seed of the directions.
        draws: number of draws; 1 for the published algorithm.

    Raises:
        ValueError: if k is below 2 or above the rank of the spectra.
    """
    x = np.asarray(spectra, dtype=np.float64)
    require_rank(x, endmembers, 'vca')
    rng = np.random.default_rng(seed)
    flat, snr = _about_mean(x, endmembers)
    if draws == 1:
        strong_noise = snr < 15 + 10 * np.log10(endmembers)
        return x[_extremes(flat if strong_noise else _perspective(x, endmembers), rng)]
    sample = x[rng.permutation(len(x))[:_COMPARED]]
    found = [x[_extremes(points, rng)] for points in (flat, _perspective(x, endmembers)) for _ in range(draws)]
    left = [np.square(fcls(sample, candidate) @ candidate - sample).sum() for candidate in found]
    return found[int(np.argmin(left))]


def _about_mean(x: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """(N, k) coordinates on the first k − 1 principal axes, lifted by a constant, and the estimated SNR in dB."""
    mean = x.mean(axis=0)
    centred = x - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :k]
    total, coordinates = np.square(x).sum(axis=1).mean(), centred @ axes
    signal = np.square(coordinates).sum(axis=1).mean() + mean @ mean
    tiny = 1e-12 * total
    snr = 10 * np.log10(max(signal - k / x.shape[1] * total, tiny) / max(total - signal, tiny))
    flat = coordinates[:, : k - 1]
    return np.column_stack([flat, np.full(len(x), np.linalg.norm(flat, axis=1).max())]), float(snr)


def _perspective(x: np.ndarray, k: int) -> np.ndarray:
    """(N, k) coordinates on the first k axes through the origin, divided by the depth along their mean."""
    flat = x @ np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :k]
    depth = flat @ flat.mean(axis=0)
    # Pixels that are black, or nearly, have no place in a perspective.
    seen = depth > 1e-6 * np.abs(depth).max()
    return np.where(seen[:, None], flat / np.where(seen, depth, 1)[:, None], 0)


def _extremes(points: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Rows of the k vertices of (N, k) points."""
    k = points.shape[1]
    found, rows = np.zeros((k, k)), list[int]()
    found[-1, 0] = 1
    for i in range(k):
        draw = rng.random(k)
        direction = draw - found @ np.linalg.lstsq(found, draw, rcond=None)[0]
        rows.append(int(np.abs(points @ direction).argmax()))
        found[:, i] = points[rows[-1]]
    return rows


def pure_means(spectra: np.ndarray, endmembers: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Means of the spectra closest in direction to each endmember.

    An extreme spectrum is among the brightest of its material, so that the abundances of all others come out too low.
    Pure spectra have its direction, whatever their brightness.

    Args:
        spectra: (N, C) spectra.
        endmembers: (k, C) endmembers, such as those of :func:`vca`.
        share: share of the spectra that counts as pure, for each endmember.

    Returns:
        (k, C) float64.
    """
    x, e = (np.asarray(values, dtype=np.float64) for values in (spectra, endmembers))
    cosine = e @ x.T / np.maximum(np.linalg.norm(x, axis=1), 1e-12)
    nearest = np.argsort(-cosine, axis=1, kind='stable')[:, : max(1, round(share * len(x)))]
    return x[nearest].mean(axis=1)


def fcls(spectra: np.ndarray, endmembers: np.ndarray) -> np.ndarray:
    """Abundances (N, k) float64 of spectra (N, C) by fully constrained least squares: not negative, adding up to one.

    Heinz and Chang, "Fully constrained least squares linear spectral mixture analysis method for material
    quantification in hyperspectral imagery", IEEE TGRS 39(3), 2001: non-negative least squares with one more, heavily
    weighted band that is 1 in every endmember (k, C) and pixel. A QR factorisation first brings the C + 1 bands down to
    k.

    Raises:
        ValueError: if the bands differ.
    """
    x, e = np.asarray(spectra, dtype=np.float64), np.asarray(endmembers, dtype=np.float64)
    if x.ndim != 2 or e.ndim != 2 or x.shape[1] != e.shape[1]:
        raise ValueError(f'fcls: spectra (N, C) and endmembers (k, C) of one C are needed, found {x.shape}, {e.shape}')
    weight = 1e3 * max(float(np.abs(e).max()), 1e-12)
    q, r = np.linalg.qr(np.column_stack([e, np.full(len(e), weight)]).T)
    targets = np.column_stack([x, np.full(len(x), weight)]) @ q
    abundances = np.array([nnls(r, target)[0] for target in targets]).reshape(len(x), len(e))
    return abundances / abundances.sum(axis=1, keepdims=True)


def band_selection(
    bands: int,
    wavelengths: Sequence[float] | None = None,
    centres: Sequence[float] = RGB_CENTRES,
    response: Sequence[Sequence[float]] | np.ndarray | None = None,
) -> np.ndarray:
    """How red, green and blue come from C bands: (3, C) float32, which multiplies spectra.

    The band, by wavelengths (C,) in nm, that is nearest to each of the ``centres`` stands for it; or a sensor's
    spectral ``response`` (3, C), sampled at the bands, makes them, each row brought to sum 1.

    Raises:
        ValueError: if neither wavelengths nor a response are given, or they do not fit.
    """
    if response is not None:
        weights = np.asarray(response, dtype=np.float32)
        if weights.shape != (3, bands) or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(
                f'band_selection: response must be (3, {bands}), finite and not negative, found shape {weights.shape}'
            )
        if not weights.any(axis=1).all():
            raise ValueError('band_selection: a row of the response is zero, so this band would see nothing')
        return weights / weights.sum(axis=1, keepdims=True)
    if wavelengths is None:
        raise ValueError(
            f'band_selection: the wavelengths of the {bands} bands are unknown, so red, green and blue cannot be found '
            'among them; give band centres in nm (open_scene(..., wavelengths=...), SampleSpec(wavelengths=...)), or a '
            "sensor's response (3, C), or unmix all bands (inputs='all'), which leaves RGB images out"
        )
    grid, wanted = np.asarray(wavelengths, dtype=np.float64), np.asarray(centres, dtype=np.float64)
    if grid.shape != (bands,) or wanted.shape != (3,):
        raise ValueError(
            f'band_selection: {bands} wavelengths and 3 centres are needed, found {grid.shape} and {wanted.shape}'
        )
    gaps = np.abs(grid - wanted[:, None])
    nearest = gaps.argmin(axis=1)
    if len(set(nearest.tolist())) < 3 or gaps.min(axis=1).max() > _REACH_NM:
        raise ValueError(
            f'band_selection: the bands nearest to {wanted.tolist()} nm are at {grid[nearest].round(1).tolist()} nm, '
            f'expected three within {_REACH_NM:g} nm; are the wavelengths in nm? Give other centres or a response'
        )
    return np.eye(bands, dtype=np.float32)[nearest]


def project_simplex(x: Tensor, dim: int = 1) -> Tensor:
    """Project finite values along ``dim`` onto the simplex (non-negative, adding up to one), by Euclidean distance.

    Held, Wolfe and Crowder, "Validation of subgradient optimization", Mathematical Programming 1974: the point is max(x
    − θ, 0) with the θ that makes it add up to one, found by sorting. A point of the simplex is returned unchanged, up
    to rounding.
    """
    falling = x.sort(dim=dim, descending=True).values
    excess = falling.cumsum(dim) - 1
    shape = [-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)]
    count = torch.arange(1, x.shape[dim] + 1, device=x.device).view(shape)
    kept = (falling * count > excess).sum(dim=dim, keepdim=True)
    theta = excess.gather(dim, kept - 1) / kept
    return (x - theta).clamp_min(0)
