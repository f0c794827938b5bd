"""Class-conditional Gaussians and Gaussian mixtures: the classic density models of spectra."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture
from torch import Tensor

from ..functional.devices import sent
from ..functional.plain import plain_torch
from ..functional.scaling import band_weight
from ..samples import SampleSpec
from ..settings import COUNT
from .base import Generator, TrainingData, register
from .training_data import require_classes


@register('gaussian')
class ClassGaussian(Generator):
    """One Gaussian mixture per class.

    Args:
        spec: spec of the samples.
        components: mixture components per class; classes with fewer than ten spectra per component get fewer.
        covariance: ``'shrunk'`` estimates each component's covariance with Ledoit–Wolf shrinkage; ``'tied'`` shares one
            shrunk within-component covariance among all classes, which is more robust with few samples.

    The components of a mixture are found by EM in the space of the first principal components of the class, where a
    full covariance can be estimated; the covariances of the samples are then estimated in all bands.
    """

    kinds: ClassVar = ('spectrum',)
    ranges: ClassVar = {'components': COUNT}
    fitted = ('means', 'factors', 'weights', 'owners')
    means: Tensor  # (J, C) component means
    factors: Tensor  # (J or 1, C, C) Cholesky-like factors of the covariances
    weights: Tensor  # (J,) share of the component in its class
    owners: Tensor  # (J,) class of the component

    def __init__(self, spec: SampleSpec, components: int = 1, covariance: Literal['shrunk', 'tied'] = 'shrunk') -> None:
        super().__init__(spec, components=components, covariance=covariance)
        self.components, self.covariance = components, covariance

    @plain_torch()
    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Fit the mixtures; nothing is iterated but the EM of more than one component."""
        require_classes('ClassGaussian', data)
        x, y = data.x.double().numpy(), data.y.numpy()
        scale = max(float(x.std()), 1e-12)  # conditioning: radiance counts and reflectances alike
        means, residuals, weights, owners = [], [], [], []
        for label in range(self.spec.num_classes):
            mine = x[y == label]
            if len(mine) == 0:  # ignored
                continue
            component = self._assign(mine / scale, seed)
            for j in np.unique(component):
                part = mine[component == j]
                means.append(part.mean(axis=0))
                residuals.append((part - means[-1]) / scale)
                weights.append(len(part) / len(mine))
                owners.append(label)
        groups = [np.concatenate(residuals)] if self.covariance == 'tied' else residuals
        live = (band_weight(*(torch.from_numpy(moment(x, axis=0)) for moment in (np.mean, np.std))) > 0).numpy()
        factors = np.stack([_factor(r, live) * scale for r in groups])
        for name, value in (('means', np.stack(means)), ('factors', factors), ('weights', np.array(weights))):
            setattr(self, name, torch.tensor(value, dtype=torch.float32, device=self.device))
        self.owners = torch.tensor(owners, device=self.device)
        self.adopt(data, seed)

    def _assign(self, x: np.ndarray, seed: int) -> np.ndarray:
        count = min(self.components, max(1, len(x) // 10))
        if count == 1:
            return np.zeros(len(x), dtype=np.int64)
        centred = x - x.mean(axis=0)
        basis = np.linalg.svd(centred, full_matrices=False)[2][: min(10, len(x) // (2 * count))]
        model = GaussianMixture(count, reg_covar=1e-4, random_state=seed % 2**32, n_init=2)  # sklearn takes 32 bits
        return model.fit_predict(centred @ basis.T)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        owners, weights = self.on_cpu('owners'), self.on_cpu('weights')
        component = torch.empty(len(labels), dtype=torch.int64)
        for label in torch.unique(labels).tolist():
            mine, wanted = torch.nonzero(owners == label)[:, 0], labels == label
            pick = torch.multinomial(weights[mine], int(wanted.sum()), replacement=True, generator=rng)
            component[wanted] = mine[pick]
        noise = sent(torch.randn((len(labels), self.spec.bands), generator=rng), self.device)
        image = torch.empty_like(noise)
        for j in torch.unique(component).tolist():  # one product per component: gathered factors would be huge
            rows = sent((component == j).nonzero()[:, 0], self.device)
            factor = self.factors[j if len(self.factors) > 1 else 0]
            image[rows] = self.means[j] + noise[rows] @ factor.T
        return {'image': image}


def _factor(residuals: np.ndarray, live: np.ndarray) -> np.ndarray:
    """(C, C) F with F·Fᵀ = covariance of (n, C) residuals, shrunk among the bands that vary, (C,) bool ``live``.

    By an eigendecomposition, since Cholesky fails for one spectrum. Shrinkage would give a band that hardly varies the
    variance of a usual one; it keeps its own.
    """
    factor = np.diag(np.sqrt((residuals**2).mean(axis=0)))
    if live.any() and len(residuals) > 1:
        values, vectors = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(residuals[:, live]).covariance_)
        factor[np.ix_(live, live)] = vectors * np.sqrt(np.maximum(values, 0))
    return factor
