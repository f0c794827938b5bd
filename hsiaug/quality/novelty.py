"""Detection of copies by the distance to the nearest training sample, in units of the sensor's noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from scipy.stats import chi2
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from ..functional.dates import as_pictures
from ..functional.orientations import orientations, turn
from ..functional.scaling import band_scale
from ..samples import SampleSpec
from ..settings import NOT_NEGATIVE, check_value
from ..streams import shuffled
from ..systems import TrainingData
from .gate import Batch, Gate, batches, rows_at_once
from .regions import shares_region

_COMPONENTS = 10  # of patches, whose many pixels make up for omitted bands
_PIXELS = 50_000  # enough to estimate a covariance
_EXACT = 1e-3  # in units of noise: closer than this is an exact copy up to rounding
_CHUNK = 256


class NoveltyGate(Gate):
    """Rejects copies of training samples. The score is minus the log distance to the nearest training sample.

    The distance is the root mean square difference in units of the sensor's noise: 0 for a copy, 1 for a copy with
    added noise, √2 for another measurement of the same surface. Noise is whitened (maximum noise fraction, Green et al.
    1988) with a covariance estimated from the training samples, see :func:`noise_covariance`. To set the threshold,
    samples are compared only with training samples of other regions; copies are then closer than real samples are to
    each other.

    Args:
        false_alarm: see :class:`~hsiaug.quality.gate.Gate`.
        turns: also find flipped and rotated copies of images.
        shifts: also find copies of images shifted by up to this many pixels. The compared area loses a border of this
            width, and the search takes (2 · shifts + 1)² times as long.

    Raises:
        ValueError: if ``shifts`` is negative.
    """

    name = 'novelty'

    def __init__(self, false_alarm: float = 0.05, turns: bool = True, shifts: int = 0) -> None:
        super().__init__(false_alarm)
        check_value('NoveltyGate', 'shifts', shifts, int, NOT_NEGATIVE)
        self.turns, self.shifts = turns, shifts

    def _fit(self, data: TrainingData, regions: Tensor, seed: int) -> Tensor:
        spec = data.spec
        if spec.size is not None and 2 * self.shifts >= min(spec.size):
            raise ValueError(f'NoveltyGate: nothing is left of {spec.size} pixels at shifts of {self.shifts}')
        self.spec = spec
        more = data.unlabelled if spec.size is None else data.x[:0]
        pixels = _pixels(torch.cat([data.x, more]))
        pixels = pixels[shuffled(len(pixels), seed)[:_PIXELS]]
        self.mean = pixels.mean(dim=0)
        self.axes = _noise_fractions(noise_covariance(torch.cat([data.x, more]), spec), pixels - self.mean, spec)
        self.train = self._whiten(data.x)
        return _closeness(self._search(self.train, regions)[0])

    def _whiten(self, image: Tensor) -> Tensor:
        """(n, m, H, W) components whose noise has variance one; spectra have one pixel."""
        assert self.spec is not None
        parts = []
        for some in as_pictures(image.cpu().float()).split(rows_at_once(self.spec)):
            parts.append(((some.movedim(1, -1) - self.mean) @ self.axes).movedim(-1, 1))
        return torch.cat(parts)

    def _search(self, wanted: Tensor, regions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(n,) distance to the nearest training sample and (n,) its row.

        If the samples are the training samples themselves, with their ``regions``, only samples without a common
        region are compared; the distance is infinite if there is none.
        """
        best, nearest = torch.full((len(wanted),), torch.inf), torch.zeros(len(wanted), dtype=torch.int64)
        for start in range(0, len(wanted), _CHUNK):
            rows = slice(start, start + _CHUNK)
            queries = list(self._turned(wanted[rows]))
            for first in range(0, len(self.train), _CHUNK):
                part = slice(first, first + _CHUNK)
                allowed = None if regions is None else ~shares_region(regions[rows], regions[part])
                for crop in self._crops(self.train[part]):
                    for query in queries:
                        found, at = _nearest(query, crop, allowed)
                        closer = found < best[rows]
                        best[rows] = best[rows].where(~closer, found)
                        nearest[rows] = nearest[rows].where(~closer, at + first)
        return best, nearest

    def _turned(self, image: Tensor) -> Iterator[Tensor]:
        """(n, D) centre of the images in each orientation in which they are compared."""
        s, (height, width) = self._border(image), image.shape[-2:]
        middle = image[..., s : height - s, s : width - s]
        for number in orientations(height, width) if self.turns and width > 1 else (0,):
            yield turn(middle, number).flatten(1)

    def _border(self, image: Tensor) -> int:
        """Pixels left out at each side; 0 for spectra."""
        return self.shifts if image.shape[-1] > 1 else 0

    def _crops(self, image: Tensor) -> Iterator[Tensor]:
        """(n, D) crops of training images at each shift."""
        s = self._border(image)
        height, width = image.shape[-2] - 2 * s, image.shape[-1] - 2 * s
        for top in range(2 * s + 1):
            for left in range(2 * s + 1):
                yield image[..., top : top + height, left : left + width].flatten(1)

    def nearest(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n,) distance of each sample to the nearest training sample in units of noise, and (n,) that one's row.

        The distance of a sample with NaN is NaN.
        """
        if len(batch['image']) == 0:
            return torch.empty(0), torch.empty(0, dtype=torch.int64)
        distance, row = self._search(self._whiten(batch['image']))
        finite = batch['image'].cpu().flatten(1).isfinite().all(dim=1)
        return distance.where(finite, torch.nan), row

    def score(self, batch: Batch) -> Tensor:
        """(n,) minus log distance to the nearest training sample."""
        return _closeness(self.nearest(batch)[0])

    def memorised(self, dataset: Any, batch_size: int = 256) -> dict[str, Any]:
        """Share of memorised samples in a dataset, such as a bank.

        Returns:
            JSON-ready: number of samples; of exact copies; of samples closer to a training sample than the threshold
            allows, and their share; the largest share to expect of real samples; the smallest and the median
            distance, and the median of held-out real samples, all in units of noise.
        """
        if not len(dataset):
            raise ValueError(f'NoveltyGate: {type(dataset).__name__} is empty; give the samples that are to be judged')
        distance = torch.cat([self.nearest(batch)[0] for batch in batches(dataset, batch_size)])
        near = int((_closeness(distance) > self.threshold).sum())
        return {
            'samples': len(distance),
            'exact_copies': int((distance <= _EXACT).sum()),
            'memorised': near,
            'share': near / len(distance),
            'share_of_real': self.false_alarm,
            'smallest_distance': float(distance.min()),
            'median_distance': float(distance.nanquantile(0.5)),
            'median_distance_of_real': float(torch.exp(-self.held_out).quantile(0.5)),
        }


def noise_covariance(image: Tensor, spec: SampleSpec) -> Tensor:
    """Covariance of the sensor's noise between bands, estimated from real samples.

    For images, from (a − b − c + d) / 2 of the four pixels of a 2 x 2 square, which cancels linear gradients (after
    Immerkær 1996), without the more textured half of the squares. For single spectra, which have no neighbours, from
    the variance of each band that the others cannot explain (Roger and Arnold 1996), which is one over the diagonal
    of the inverse covariance. Covariances are shrunk (Ledoit and Wolf 2004).

    Args:
        image: (N, C), (N, C, H, W) or (N, 2, C, H, W) real samples.
        spec: theirs.

    Returns:
        (C, C) float64; (2C, 2C) of pairs of dates.
    """
    flat = as_pictures(image).double()
    if min(flat.shape[-2:]) == 1:
        covariance = _shrunk(_pixels(image).double())
        return torch.diag(1 / torch.linalg.inv(covariance).diagonal())
    squares = (flat[..., 1:, 1:] - flat[..., 1:, :-1] - flat[..., :-1, 1:] + flat[..., :-1, :-1]) / 2
    differences = squares.movedim(1, -1).flatten(0, -2)
    differences = differences[:: max(1, len(differences) // _PIXELS)]
    power = (differences / differences.std(dim=0).clamp_min(1e-300)).square().mean(dim=1)
    # Even in pure noise, the smoother half has less power, by this factor of a chi-square distribution.
    bands = flat.shape[1]
    quiet = chi2.cdf(chi2.median(bands), bands + 2) / 0.5
    return _shrunk(differences[power <= power.quantile(0.5)]) / quiet


def _shrunk(x: Tensor) -> Tensor:
    """(C, C) covariance of (M, C), shrunk on bands of standard deviation one."""
    std = band_scale(x.mean(dim=0), x.std(dim=0, correction=0))
    covariance = torch.from_numpy(ledoit_wolf((x / std).numpy())[0])
    covariance += 1e-6 * torch.eye(len(covariance), dtype=covariance.dtype)
    return covariance * std[:, None] * std


def _noise_fractions(noise: Tensor, centred: Tensor, spec: SampleSpec) -> Tensor:
    """(C, m) float32 axes that whiten the noise, in order of decreasing signal-to-noise ratio."""
    power, vectors = torch.linalg.eigh(noise)
    whitener = vectors / power.clamp_min(1e-9 * float(power.max())).sqrt()
    white = centred.double() @ whitener
    rotation = torch.linalg.eigh(white.T @ white).eigenvectors
    count = len(noise) if spec.size is None else min(len(noise), _COMPONENTS)
    return (whitener @ rotation.flip(1)[:, :count]).float()


def _nearest(query: Tensor, train: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    """(n,) root mean square difference of (n, D) from the nearest of (M, D), and (n,) its row."""
    distance = torch.cdist(query, train)
    if allowed is not None:
        distance = distance.masked_fill(~allowed, torch.inf)
    row = distance.argmin(dim=1)
    # Recomputed for the nearest: through a matrix product, equal vectors would have a distance above 0.
    exact = (query - train[row]).square().mean(dim=1).sqrt()
    return exact.where(distance.amin(dim=1).isfinite(), torch.inf), row


def _closeness(distance: Tensor) -> Tensor:
    return -distance.clamp_min(_EXACT).log()


def _pixels(image: Tensor) -> Tensor:
    return as_pictures(image).movedim(1, -1).flatten(0, -2)
