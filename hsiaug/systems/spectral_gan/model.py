"""Conditional spectral GAN.

Audebert, Le Saux and Lefèvre, "Generative Adversarial Networks for Realistic Synthesis of Hyperspectral Samples",
IGARSS 2018, https://hal.science/hal-01809872. Trained by :mod:`hsiaug.systems.spectral_gan.train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...functional.devices import sent
from ...functional.plain import plain_torch
from ...functional.scaling import band_scale, matching
from ...models.mlp import MLP
from ...samples import SampleSpec
from ...settings import COUNT
from ...streams import stream
from ..base import Generator, TrainingData, own_settings, register

Space = Literal['unit', 'pca']
Calibration = Literal['marginal', 'joint']
_ROUNDING = 1e-7  # of float32, relative to the spectra as a whole


class SpectralSpace(torch.nn.Module):
    """The feature space of the networks, fitted to pixels of the training area.

    ``'unit'``: all bands scaled together to [0, 1], as in the paper. ``'pca'``: whitened principal components; on the
    way back, the residual of each band is drawn as white noise. Real spectra are smooth because they depend on few
    variables; networks that generate each band separately make spectra several times rougher than real ones.
    """

    offset: Tensor  # (C,)
    basis: Tensor  # (d, C): spectrum = offset + code @ basis + residual * noise
    inverse: Tensor  # (C, d)
    residual: Tensor  # (C,)

    def __init__(self, bands: int, space: Space, components: int) -> None:
        super().__init__()
        self.space = space
        self.dim = bands if space == 'unit' else min(bands, components)
        self.register_buffer('offset', torch.zeros(bands))
        self.register_buffer('basis', torch.eye(self.dim, bands))
        self.register_buffer('inverse', torch.eye(bands, self.dim))
        self.register_buffer('residual', torch.zeros(bands))

    def fit(self, x: Tensor) -> None:
        """Fit on (N, C) spectra."""
        if self.space == 'unit':
            low, high = torch.aminmax(x)
            width = float(band_scale(low[None], (high - low)[None]))
            self.offset.fill_(float(low))
            self.basis.copy_(torch.eye(self.dim) * width)
            self.inverse.copy_(torch.eye(self.dim) / width)
            return
        mean = x.double().mean(dim=0)
        _, singular, directions = torch.linalg.svd(x.double() - mean, full_matrices=False)
        # A component that the spectra do not show, but for rounding, would turn what others show of it into anything.
        rank = min(self.dim, int((singular > _ROUNDING * x.double().norm()).sum()))
        scale = singular[:rank] / max(len(x) - 1, 1) ** 0.5
        basis = torch.zeros(self.dim, x.shape[1], dtype=torch.float64)
        inverse = torch.zeros(x.shape[1], self.dim, dtype=torch.float64)
        basis[:rank], inverse[:, :rank] = directions[:rank] * scale[:, None], directions[:rank].T / scale
        rest = x.double() - mean - (x.double() - mean) @ inverse @ basis
        spread = rest.std(dim=0, correction=min(1, len(x) - 1))
        for name, value in (('offset', mean), ('basis', basis), ('inverse', inverse), ('residual', spread)):
            getattr(self, name).copy_(value)

    def encode(self, x: Tensor) -> Tensor:
        """(n, d) codes of (n, C) spectra."""
        return (x - self.offset) @ self.inverse

    def decode(self, code: Tensor, noise: Tensor | None = None) -> Tensor:
        """(n, C) spectra of (n, d) codes; ``noise`` (n, C) standard normal drives the residual."""
        x = self.offset + code @ self.basis
        return x if noise is None else x + self.residual * noise


@register('spectral_gan')
class SpectralGAN(Generator):
    """Spectra from noise and a one-hot class, by the generator network of a GAN.

    Args:
        spec: spec of the samples.
        noise_dim: length of the noise vector.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        space: feature space of the network, see :class:`SpectralSpace`; ``'unit'`` ends in the paper's sigmoid.
        components: number of principal components of the space ``'pca'``.
        conditional: False for a GAN without classes: labels are then drawn, but have no effect.
        calibration: statistics of each class that :meth:`calibrate` matches: ``'joint'``, mean and covariance of the
            codes; ``'marginal'``, mean and standard deviation of each dimension.
    """

    kinds: ClassVar = ('spectrum',)
    unlabelled = ('alike',)

    ranges: ClassVar = dict.fromkeys(('noise_dim', 'hidden', 'layers', 'components'), COUNT)
    gain: Tensor  # (K, d) calibration of the codes per class: code * gain + shift; joint (K, d, d): code @ gain + shift
    shift: Tensor  # (K, d)

    def __init__(
        self,
        spec: SampleSpec,
        noise_dim: int = 30,
        hidden: int = 512,
        layers: int = 4,
        space: Space = 'unit',
        components: int = 30,
        conditional: bool = True,
        calibration: Calibration = 'marginal',  # as saved generators are that name none
    ) -> None:
        super().__init__(spec, **own_settings(locals()))
        self.noise_dim, self.conditional, self.calibration = noise_dim, conditional, calibration
        self.space = SpectralSpace(spec.bands, space, components)
        inputs = noise_dim + (spec.num_classes if conditional else 0)
        self.network = MLP(inputs, self.space.dim, hidden, layers, output='sigmoid' if space == 'unit' else 'linear')
        gain = torch.ones(self.space.dim) if calibration == 'marginal' else torch.eye(self.space.dim)
        self.register_buffer('gain', gain.repeat(spec.num_classes, *[1] * gain.ndim))
        self.register_buffer('shift', torch.zeros(spec.num_classes, self.space.dim))

    @classmethod
    def overlooks_unlabelled(cls, settings: Mapping[str, Any]) -> str | None:
        """The setting that it lacks to look at samples without labels; None where it looks at them."""
        looks = settings.get('semi_supervised', False) or not settings.get('conditional', True)
        return None if looks else 'semi_supervised=True'

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """(n, d) codes of noise (n, noise_dim) and class shares (n, K)."""
        return self.network(torch.cat([noise, condition], dim=1) if self.conditional else noise)

    def _spectra(self, noise: Tensor, condition: Tensor, residual: Tensor | None) -> Tensor:
        code = self(noise, condition)
        if self.calibration == 'marginal':
            code = code * (condition @ self.gain)
        else:  # class by class: a matrix for each sample would be huge
            code = sum((share[:, None] * (code @ gain) for share, gain in zip(condition.T, self.gain, strict=True)), 0)
        return self.space.decode(code + condition @ self.shift, residual)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        noise = sent(torch.randn((len(labels), self.noise_dim), generator=rng), self.device)
        residual = None
        if self.space.space == 'pca':
            residual = sent(torch.randn((len(labels), self.spec.bands), generator=rng), self.device)
        condition = sent(one_hot(labels, self.spec.num_classes).to(torch.float32), self.device)
        return {'image': self._spectra(noise, condition, residual)}

    @plain_torch()
    @torch.no_grad()
    def calibrate(self, data: TrainingData, seed: int = 0, samples: int = 2000) -> None:
        """Match the moments of each class to those of its training spectra, in code space; see ``calibration``.

        The critic judges spectra of all classes together, so that a class may have any mean and covariance. The joint
        calibration matches both with the linear map that moves samples least (Gelbrich 1990). The marginal calibration
        does not change correlations, see :func:`~hsiaug.functional.scaling.matching`.
        """
        joint = self.calibration == 'joint'
        self.gain.copy_(torch.eye(self.space.dim) if joint else torch.ones(self.space.dim))
        self.shift.zero_()
        rng = stream(seed)
        for label in range(self.spec.num_classes):
            real = self.space.encode(data.x[data.y == label].to(self.device))
            if len(real) < 3:
                continue
            noise = torch.randn((samples, self.noise_dim), generator=rng).to(self.device)
            condition = one_hot(torch.full((samples,), label), self.spec.num_classes).to(self.device, torch.float32)
            fake = self(noise, condition)
            if joint:
                self.gain[label] = _least_moving(
                    *(torch.atleast_2d(torch.cov(code.T.double())) for code in (fake, real))
                )
                self.shift[label] = real.mean(dim=0) - fake.mean(dim=0) @ self.gain[label]
                continue
            its, wanted = ((code.mean(dim=0), code.std(dim=0)) for code in (fake, real))
            self.gain[label], self.shift[label] = matching(its, wanted, len(real))

    @plain_torch()
    @torch.no_grad()
    def interpolate(self, labels: tuple[int, int], alphas: Tensor, seeds: tuple[int, int] = (0, 1)) -> Tensor:
        """Spectra along a line in the input space (Fig. 4 of the paper).

        Equal labels and different seeds interpolate between two noise vectors of a class; different labels and equal
        seeds interpolate between two classes at fixed noise.

        Args:
            labels: classes of the two ends.
            alphas: (A,) positions, 0 for the first end and 1 for the second.
            seeds: noise of the two ends.

        Returns:
            (A, C) spectra, without the residual noise.
        """
        ends = torch.stack([torch.randn(self.noise_dim, generator=stream(s)) for s in seeds])
        classes = one_hot(torch.tensor(labels), self.spec.num_classes).to(torch.float32)
        weights = torch.stack([1 - alphas, alphas], dim=1).to(torch.float32)
        return self._spectra((weights @ ends).to(self.device), (weights @ classes).to(self.device), None)


def _least_moving(given: Tensor, wanted: Tensor, most: float = 200.0) -> Tensor:
    """(d, d) symmetric A with A · given · A = wanted: the optimal transport between two Gaussians.

    Where it would stretch more than ``most`` times, given samples hardly vary, and rounding is what would be stretched.
    """

    def power(matrix: Tensor, exponent: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        return (vectors * values.clamp_min(1e-8 * float(values[-1].clamp_min(1e-12))) ** exponent) @ vectors.T

    root, inverse = power(given, 0.5), power(given, -0.5)
    found = inverse @ power(root @ wanted @ root, 0.5) @ inverse
    values, vectors = torch.linalg.eigh(found)
    return found if values[-1] <= most else (vectors * values.clamp_max(most)) @ vectors.T
