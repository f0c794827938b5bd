"""What differs between two dates where nothing changed: season, light and noise, by class, band and place."""

from __future__ import annotations

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.nn.functional import one_hot

FEW = 50.0
"""Pixels' worth of doubt whether a class differs from the others; it keeps rare ones from running wild."""
TRIMMED = 0.05
"""Share of pixels that a trimmed fit takes for changed: those farthest from the others."""
MAX_VALUES = 2**23
"""Values of one date that a fit uses; pairs beyond it are left out at random."""
LENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0)
"""Lengths that smooth fields may have, in pixels."""
CHUNK = 16  # patches that drift at a time


class DateDrift(nn.Module):
    r"""A linear map per class and band, and random fields in the directions in which dates differ from it.

    Of a pixel of class k, :math:`x_2 = g_k x_1 + d_k u_1 + o_k + E (s \odot z)`, where u is the detail of the first
    date: what a blur takes away. Gains g and d and offset o are a regression over unchanged pixels. Without d it could
    not tell that texture, which belongs to the land, stays, while light, which varies over more pixels, does not:
    differences would come out rough. Classes blend over a pixel's width, as spectra do at borders, in the regression as
    well. The columns of E are the principal directions of what it leaves, s the standard deviation along each. The
    fields z have variance 1, shared between a value for the whole patch (haze, sensor), a smooth field (light, weather)
    and white noise, as the residuals of pixels some way apart go together.

    Args:
        bands: number of bands C.
        classes: number of classes K.
    """

    gain: Tensor  # (K, C)
    detail_gain: Tensor  # (K, C)
    offset: Tensor  # (K, C)
    directions: Tensor  # (C, M), M = C
    spread: Tensor  # (M,)
    shares: Tensor  # (3, M) of the patch, the smooth field and the noise in the variance
    length: Tensor  # (M,) of the smooth field

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        for name, value in (('gain', 1.0), ('detail_gain', 0.0), ('offset', 0.0)):
            self.register_buffer(name, torch.full((classes, bands), value))
        self.register_buffer('directions', torch.eye(bands))
        self.register_buffer('spread', torch.zeros(bands))
        self.register_buffer('shares', torch.tensor([[0.0], [0.0], [1.0]]).repeat(1, bands))
        self.register_buffer('length', torch.ones(bands))

    # --- fits -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit(self, first: Tensor, second: Tensor, classes: Tensor, trimmed: bool = False, seed: int = 0) -> None:
        """Learn from pairs of dates.

        Args:
            first: (N, C, H, W) first dates.
            second: (N, C, H, W) second dates.
            classes: (N, H, W) class of each pixel that did not change, -1 where a pixel does not count.
            trimmed: leave the pixels that fit worst out, for pairs that may hold changes.
            seed: of the choice of pairs, where there are very many.

        Raises:
            ValueError: if no pixel counts.
        """
        first, second, classes = _some((first, second, classes), seed)
        if not (classes >= 0).any():
            raise ValueError('DateDrift: no unchanged pixel of a known class in any pair; nothing can be learnt')
        weights, texture, counted = self._blend(classes), detail(first), classes >= 0
        for kept in (False, True) if trimmed else (True,):
            self._regress(first, texture, second, weights, counted)
            expected = self._linear(first, texture, weights)
            residual = second - expected
            self._fit_directions(residual, counted)
            if not kept:
                far = self._scores(residual).square().sum(dim=1)
                limit = far[counted].kthvalue(max(round((1 - TRIMMED) * int(counted.sum())), 1)).values
                counted = counted & (far <= limit)
        self._fit_fields(second - first, expected - first, counted)

    @torch.no_grad()
    def assume(self, image: Tensor, classes: Tensor, strength: float, seed: int = 0) -> None:
        """Take a drift from single dates, where no pair is known.

        A second date then is as far from its class mean as the first, and goes with it as far as ``strength`` s lets
        it: of the deviation from the mean, √(1 − s²) stays, and a part s times as large is drawn anew, with the
        spectral directions and the spatial structure that deviations have in the images. Season, which shifts whole
        classes, cannot be known from one date and is left out.

        Args:
            image: (N, C, H, W).
            classes: (N, H, W), -1 where a pixel does not count.
            strength: s in [0, 1].
            seed: as in :meth:`fit`.

        Raises:
            ValueError: if no pixel counts.
        """
        image, classes = _some((image, classes), seed)
        counted, weights = classes >= 0, self._blend(classes)
        if not counted.any():
            raise ValueError('DateDrift: no pixel of a known class in any image; nothing can be learnt')
        members, pixels = (part.movedim(1, -1)[counted].double() for part in (weights, image))
        mean = _class_means(members, pixels).to(image)
        residual = strength * (image - torch.einsum('nkhw,kc->nchw', weights, mean))
        self._fit_directions(residual, counted)
        self._fit_fields(residual, torch.zeros_like(residual), counted)
        self.gain.fill_((1 - strength**2) ** 0.5)
        self.detail_gain.zero_()
        self.offset.copy_((1 - self.gain) * mean)

    def _regress(self, first: Tensor, texture: Tensor, second: Tensor, weights: Tensor, counted: Tensor) -> None:
        """Fit the coefficients: those of all classes together, then how each class differs, by ridge regression."""
        members = weights.movedim(1, -1)[counted].double()
        for band in range(first.shape[1]):
            x, u, y = (part[:, band][counted].double() for part in (first, texture, second))
            mean = _class_means(members, x)  # about which gains are taken, so that offsets don't hang on them
            expected = members @ mean
            scale = (x - expected).std(correction=0)
            scale = scale if scale > 1e-6 * mean.abs().max() else torch.ones_like(scale)
            terms = [torch.ones_like(x)[:, None], (x[:, None] - mean) / scale, u[:, None] / scale]
            design = torch.stack([members * term for term in terms], dim=2)  # (pixels, K, 3)
            target = (y - expected) / scale
            together = _ridge(design.sum(dim=1), target, 1e-6 * len(x))
            apart = _ridge(design.flatten(1), target - design.sum(dim=1) @ together, FEW).reshape(-1, 3)
            offset, gain, detail_gain = (together + apart).T
            self.gain[:, band], self.detail_gain[:, band] = gain.to(self.gain), detail_gain.to(self.gain)
            self.offset[:, band] = (scale * offset + (1 - gain) * mean).to(self.gain)

    def _fit_directions(self, residual: Tensor, counted: Tensor) -> None:
        """Learn how (N, C, H, W) residuals spread over the bands."""
        pixels = residual.movedim(1, -1)[counted].double()
        variances, vectors = torch.linalg.eigh(pixels.T @ pixels / len(pixels))
        self.directions.copy_(vectors)
        self.spread.copy_(variances.clamp_min(0).sqrt())

    def _fit_fields(self, difference: Tensor, expected: Tensor, counted: Tensor) -> None:
        """Learn how fields spread in space, from the differences of dates and what the linear part explains of them."""
        for m, (shares, length) in enumerate(_structure(self._scores(difference), self._scores(expected), counted)):
            self.shares[:, m], self.length[m] = torch.from_numpy(shares).to(self.shares), length

    def _scores(self, residual: Tensor) -> Tensor:
        """(N, M, H, W) residuals along the directions, in units of their spread."""
        scores = torch.einsum('cm,nchw->nmhw', self.directions, residual)
        return scores / self.spread.clamp_min(1e-12)[:, None, None]

    def _blend(self, classes: Tensor) -> Tensor:
        """(N, K, H, W) weights of the classes, which add up to 1 wherever a class is near."""
        members = one_hot(classes.clamp_min(0), self.classes) * (classes >= 0)[..., None]
        weights = soft(members.movedim(-1, 1).to(self.gain))
        return weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-6)

    def _linear(self, image: Tensor, texture: Tensor, weights: Tensor) -> Tensor:
        """What the regression makes of first dates."""
        gain, detail_gain, offset = (
            torch.einsum('nkhw,kc->nchw', weights, values) for values in (self.gain, self.detail_gain, self.offset)
        )
        return gain * image + detail_gain * texture + offset

    # --- draws ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, image: Tensor, classes: Tensor, rng: torch.Generator) -> Tensor:
        """Images as a second date has them.

        Args:
            image: (n, C, H, W) in the unit of the pairs.
            classes: (n, H, W) classes, of all pixels.
            rng: a generator on the CPU.
        """
        parts = zip(image.split(CHUNK), classes.split(CHUNK), strict=True)
        return torch.cat([self._drift(*part, rng) for part in parts])

    def _drift(self, image: Tensor, classes: Tensor, rng: torch.Generator) -> Tensor:
        n, _, *size = image.shape
        patch = torch.randn((n, len(self.length), 1, 1), generator=rng)
        smooth = smooth_fields(n, self.length.cpu(), (size[0], size[1]), rng)
        noise = torch.randn((n, len(self.length), *size), generator=rng)
        parts = [part.to(image) for part in (patch, smooth, noise)]
        scale = self.shares.sqrt()[:, :, None, None] * self.spread[:, None, None]
        fields = scale[0] * parts[0] + scale[1] * parts[1] + scale[2] * parts[2]
        drifted = self._linear(image, detail(image), self._blend(classes))
        return drifted + torch.einsum('cm,nmhw->nchw', self.directions, fields)


def soft(image: Tensor, width: float = 0.7) -> Tensor:
    """(n, C, H, W) images, or indicators, under a Gaussian of ``width`` pixels, about as sharp as a sensor sees."""
    return gaussian_blur2d(image, (5, 5), (width, width))


def detail(image: Tensor, width: float = 2.0) -> Tensor:
    """What a Gaussian of ``width`` pixels takes away from (n, C, H, W) images: texture rather than light."""
    return image - gaussian_blur2d(image, (9, 9), (width, width))


def smooth_fields(n: int, length: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Gaussian random fields (n, M, H, W) of variance 1, white noise under a Gaussian kernel of ``length`` (M,) pixels.

    The correlation at a distance h is exp(−h² / 4 length²).
    """
    # drawn on a torus of twice the sides, so that opposite borders know nothing of each other
    height, width = 2 * size[0], 2 * size[1]
    noise = torch.randn((n, len(length), height, width), generator=rng)
    squared = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width)[None, :] ** 2
    transfer = torch.exp(-2 * torch.pi**2 * length[:, None, None] ** 2 * squared)
    transfer = transfer / transfer.square().mean(dim=(1, 2), keepdim=True).sqrt()
    spectrum = torch.fft.rfft2(noise) * transfer[..., : width // 2 + 1]  # of real fields the other half is the same
    return torch.fft.irfft2(spectrum, s=(height, width))[..., : size[0], : size[1]]


def _class_means(members: Tensor, value: Tensor) -> Tensor:
    """(K,) or (K, C) means of (pixels,) or (pixels, C) values over classes with weights (pixels, K)."""
    mean = value.mean(dim=0)
    return mean + _ridge(members, value - mean, FEW)


def _ridge(design: Tensor, target: Tensor, penalty: float) -> Tensor:
    """Coefficients of a ridge regression."""
    normal = design.T @ design + penalty * torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
    return torch.linalg.solve(normal, design.T @ target)


def _structure(whole: Tensor, expected: Tensor, counted: Tensor) -> list[tuple[np.ndarray, float]]:
    """Shares (patch, smooth, noise) and length of each direction, from how much pixels some way apart differ.

    The fields' variogram is that of the whole less that of the expected part, rather than the residual's own: the two
    go together from a pixel to the next where classes are noisy, and dates would differ by too rough a field.

    Args:
        whole: (N, M, H, W) differences of dates, in units of the spread that the fields have.
        expected: (N, M, H, W) the part of them that is no field.
        counted: (N, H, W) bool.
    """
    side = min(whole.shape[-2:])
    lags = np.arange(1, max(side // 2, 2))
    variograms = [_variogram(part, counted, lag) for lag in lags.tolist() for part in (whole, expected)]
    curve = np.stack([1 - a + b for a, b in zip(variograms[::2], variograms[1::2], strict=True)], axis=1)
    lengths = [length for length in LENGTHS if length <= max(side / 4, LENGTHS[0])]
    shapes = [np.stack([np.ones(len(lags)), np.exp(-(lags**2) / (4 * length**2))], axis=1) for length in lengths]
    found, weights = [], 1 / lags**2  # near pixels count most: they make a field rough or smooth
    for correlation in curve:
        fits = [nnls(shape * weights[:, None], correlation * weights) for shape in shapes]
        best = int(np.argmin([error for _, error in fits]))
        patch, smooth = fits[best][0] / max(fits[best][0].sum(), 1.0)
        found.append((np.array([patch, smooth, max(1 - patch - smooth, 0.0)]), lengths[best]))
    return found


def _variogram(values: Tensor, counted: Tensor, lag: int) -> np.ndarray:
    """(M,) half the mean squared difference of pixels ``lag`` apart, of (N, M, H, W) values, where both count."""
    total, pairs = values.new_zeros(values.shape[1]), 0
    for dim in (-2, -1):
        extent = values.shape[dim] - lag
        both = (counted.narrow(dim, 0, extent) & counted.narrow(dim, lag, extent))[:, None]
        squares = (values.narrow(dim, lag, extent) - values.narrow(dim, 0, extent)).square() * both
        total, pairs = total + squares.sum(dim=(0, 2, 3)), pairs + int(both.sum())
    return (total / max(2 * pairs, 1)).cpu().double().numpy()


def _some(tensors: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """As many pairs, drawn at random, as a fit uses."""
    most = max(MAX_VALUES // max(tensors[0][0].numel(), 1), 1) if len(tensors[0]) else 0
    if len(tensors[0]) <= most:
        return tensors
    rows = torch.randperm(len(tensors[0]), generator=torch.Generator().manual_seed(seed))[:most]
    return tuple(tensor[rows] for tensor in tensors)


__all__ = ['DateDrift', 'detail', 'smooth_fields', 'soft']
