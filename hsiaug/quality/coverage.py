"""Coverage of real modes by synthetic samples, and weights that favour under-covered or hard modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ..functional.scaling import band_scale
from ..metrics.masks import class_indicators
from ..samples import SampleSpec
from ..settings import check_value
from ..systems import TrainingData
from ..tasks.base import finite
from .gate import Batch, require_training_data

_FEATURES = 16
_CHUNK = 64  # images at a time
_COLUMNS = 4096  # of a distance matrix per chunk


class Coverage:
    """Coverage of the real training samples (Naeem et al. 2020), by sample and by class.

    A real sample is covered if a synthetic one lies within its reach, the distance to its k-th real neighbour, in the
    space of at most 16 principal components of the standardised features.

    Args:
        k: the neighbour that sets the reach.
        encoder: maps images (n, ...) to features (n, d), and should have seen the training part only; if None, features
            are the spectra themselves; for images, mean and standard deviation of each band and the class shares.

    Raises:
        ValueError: if ``k`` is below 1.
    """

    def __init__(self, k: int = 5, encoder: Callable[[Tensor], Tensor] | None = None) -> None:
        check_value('Coverage', 'k', k, int)
        self.k, self.encoder = k, encoder

    def fit(self, data: TrainingData) -> Coverage:
        """Take the real training samples.

        Raises:
            TypeError: for something other than training data.
            ValueError: if there are no more than k, or their features are not finite.
        """
        require_training_data('Coverage', data)
        if len(data.x) <= self.k:
            raise ValueError(f'Coverage: more than k = {self.k} training samples are needed, found {len(data.x)}')
        self.spec = data.spec
        target = data.spec.target_key
        raw = self._raw({'image': data.x, target: data.y})
        if not np.isfinite(raw).all():
            raise ValueError('Coverage: features of the training samples are not finite; fill missing values')
        self.mean, std = raw.mean(axis=0), raw.std(axis=0)
        # Shares of classes join the bands, in another unit.
        shares = data.spec.num_classes if self.encoder is None and target == 'mask' else 0
        groups = np.split(np.arange(raw.shape[1]), [raw.shape[1] - shares])
        scales = [band_scale(torch.from_numpy(self.mean[g]), torch.from_numpy(std[g])) for g in groups if len(g)]
        self.scale = 1 / torch.cat(scales).numpy()
        standard = (raw - self.mean) * self.scale
        self.pca = PCA(min(_FEATURES, *standard.shape), svd_solver='full').fit(standard)
        self.real = self.pca.transform(standard)
        # Without arguments a sample is not its own neighbour.
        self.reach = NearestNeighbors(n_neighbors=self.k).fit(self.real).kneighbors()[0][:, -1]
        self.shares = _class_shares(data.y, data.spec)
        return self

    def features(self, batch: Batch) -> Tensor:
        """(n, d) float64 features of samples in the sample contract.

        Raises:
            RuntimeError: before :meth:`fit`.
            ValueError: for samples that are not finite, or not like those that were fitted.
        """
        if not hasattr(self, 'pca'):
            raise RuntimeError('Coverage is not fitted; call fit with the training part of a split')
        image = batch['image']
        if image.shape[1:] != self.spec.image_shape or not image.isfinite().all():
            raise ValueError(
                f'Coverage: finite images {("n", *self.spec.image_shape)} expected, as it was fitted to, found '
                f'{tuple(image.shape)}, {int((~image.isfinite()).flatten(1).any(dim=1).sum())} of them not finite'
            )
        if not len(image):
            return torch.empty(0, self.real.shape[1], dtype=torch.float64)
        return torch.from_numpy(self.pca.transform((self._raw(batch) - self.mean) * self.scale))

    def _raw(self, batch: Batch) -> np.ndarray:
        parts = []
        step = 8192 if self.spec.size is None else _CHUNK
        with torch.no_grad():
            for image in batch['image'].split(step):
                if self.encoder is not None:
                    parts.append(self.encoder(image).cpu())
                elif self.spec.size is None:
                    parts.append(image.cpu())
                else:
                    std, mean = torch.std_mean(image.cpu(), dim=(-2, -1), correction=0)
                    parts.append(torch.cat([mean, std], dim=-1).flatten(1))
        raw = torch.cat(parts).double()
        if self.encoder is None and 'mask' in batch:
            raw = torch.cat([raw, _class_shares(batch['mask'].cpu(), self.spec)], dim=1)
        return raw.numpy()

    def _within(self, batch: Batch) -> np.ndarray:
        """(N, n) bool: whether a synthetic sample lies within the reach of a real one."""
        features = self.features(batch)
        real, reach = torch.from_numpy(self.real), torch.from_numpy(self.reach)[:, None]
        parts = [torch.cdist(real, some) <= reach for some in features.split(_COLUMNS)]
        return torch.cat(parts, dim=1).numpy()

    def covered(self, batch: Batch) -> Tensor:
        """(N,) bool: which training samples have a synthetic one within reach."""
        return torch.from_numpy(self._within(batch).any(axis=1))

    def report(self, batch: Batch) -> dict[str, Any]:
        """JSON-ready: share of covered training samples, overall and by class; masks count by their class shares."""
        covered = self.covered(batch).double()
        by_class = (self.shares * covered[:, None]).sum(dim=0) / self.shares.sum(dim=0)
        return {
            'samples': len(batch['image']),
            'real': len(self.real),
            'coverage': float(covered.mean()),
            'by_class': finite(dict(zip(self.spec.classes, by_class.tolist(), strict=True))),
        }

    def weights(self, batch: Batch, hardness: Tensor | None = None, floor: float = 0.1) -> Tensor:
        """Probabilities with which to draw synthetic samples so that all real modes are represented.

        Every real sample divides its hardness among the synthetic samples within its reach, so that modes covered by
        few of them get as much weight as others.

        Args:
            batch: the synthetic samples.
            hardness: (N,) weight of each training sample, such as
                :attr:`~hsiaug.quality.agreement.AgreementGate.sample_loss`; NaN means the mean. By default, all are
                equal.
            floor: share of the probability that is distributed evenly, so that no sample is lost.

        Returns:
            (n,) float64 that add up to one.

        Raises:
            ValueError: if ``hardness`` or ``floor`` is invalid.
        """
        within = torch.from_numpy(self._within(batch)).double()
        due = torch.ones(len(self.real), dtype=torch.float64) if hardness is None else hardness.double()
        if due.shape != (len(self.real),) or (due < 0).any() or not 0 <= floor <= 1:
            raise ValueError(
                f'Coverage: hardness must be ({len(self.real)},) numbers >= 0 and floor from 0 to 1, found '
                f'{tuple(due.shape)} and {floor}'
            )
        due = due.where(due.isfinite(), due[due.isfinite()].mean())
        count = len(batch['image'])
        even = torch.full((count,), 1 / max(count, 1), dtype=torch.float64)
        shared = (within * (due / within.sum(dim=1).clamp_min(1))[:, None]).sum(dim=0)
        return even if not shared.sum() > 0 else floor * even + (1 - floor) * shared / shared.sum()

    def class_weights(self, batch: Batch, hardness: Tensor | None = None) -> dict[str, float]:
        """Label policy that favours under-covered and hard classes: real frequency · hardness / coverage, normalised.

        Args:
            batch: the synthetic samples drawn so far.
            hardness: (K,) weight of each class, such as :attr:`~hsiaug.quality.agreement.AgreementGate.class_loss`.

        Returns:
            weights by class name, for the ``labels`` of a mixed dataset.
        """
        held = self.shares.sum(dim=0)
        covered = (self.shares * self.covered(batch).double()[:, None]).sum(dim=0)
        hard = torch.ones_like(held) if hardness is None else hardness.double()
        if hard.shape != held.shape or not (hard >= 0).all() or not hard.isfinite().all():
            raise ValueError(
                f'Coverage: hardness must be ({len(held)},) finite numbers >= 0, found {hard.tolist()[:8]}'
            )
        # Add one covered and one uncovered sample to each class, so that no class takes everything.
        weight = held * hard * (held + 2) / (covered + 1)
        return dict(zip(self.spec.classes, (weight / weight.sum()).tolist(), strict=True))


def _class_shares(target: Tensor, spec: SampleSpec) -> Tensor:
    """(N, K) float64 share of each class in each sample."""
    mask = target.reshape(len(target), 1, -1)
    shares = class_indicators(mask, spec.num_classes, spec.ignore_index).sum(dim=(2, 3)).double()
    return shares / shares.sum(dim=1, keepdim=True).clamp_min(1)
