"""NN-1D: the fully connected classifier of single spectra that Audebert et al. 2018 augment."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn

from ..functional.scaling import band_scale, band_weight

Scaling = Literal['standard', 'minmax', 'decorrelated']
SCALINGS = get_args(Scaling)
_POWER = -0.25  # of the covariance within classes; -0.5 whitens, which makes as much of noise as of all else


class SpectralScaler(nn.Module):
    """Per-band standardisation, a common scaling to [0, 1], or decorrelation, fitted on real training spectra.

    Args:
        bands: number of bands C.
        kind: ``'standard'`` subtracts each band's mean and divides by its standard deviation, see
            :func:`~hsiaug.functional.scaling.band_weight`; ``'minmax'`` brings all bands together to [0, 1], as
            Audebert et al. do; ``'decorrelated'`` multiplies standardised bands by the within-class covariance (shrunk
            as in Ledoit and Wolf, 2004) to the power of -1/4. Adjacent bands are nearly equal, and a network hardly
            learns from their small differences, which distinguish classes, unless these are enlarged.
    """

    offset: Tensor
    scale: Tensor
    mix: Tensor  # (C, C) what standardised bands are multiplied by, where they are decorrelated

    def __init__(self, bands: int, kind: Scaling = 'standard') -> None:
        super().__init__()
        if kind not in SCALINGS:
            raise ValueError(f'SpectralScaler: unknown kind {kind!r}; choose from {SCALINGS}')
        self.kind = kind
        self.register_buffer('offset', torch.zeros(bands))
        self.register_buffer('scale', torch.ones(bands))
        if kind == 'decorrelated':
            self.register_buffer('mix', torch.eye(bands))

    def fit(self, x: Tensor, y: Tensor | None = None) -> SpectralScaler:
        """Fit on (N, C) training spectra and, for decorrelation within classes, their (N,) labels."""
        if self.kind == 'minmax':
            low, high = torch.aminmax(x)
            self.offset.fill_(float(low))
            self.scale.fill_(1 / float(band_scale(low[None], (high - low)[None])))
            return self
        self.offset.copy_(x.mean(dim=0))
        self.scale.copy_(band_weight(self.offset, x.std(dim=0, correction=0).to(self.offset)))
        if self.kind == 'decorrelated' and len(x) > 1:
            standard = ((x - self.offset) * self.scale).double()
            within = standard.clone()
            for label in () if y is None else torch.unique(y):
                within[y == label] -= within[y == label].mean(dim=0)
            covariance = torch.from_numpy(ledoit_wolf(within.cpu().numpy(), assume_centered=True)[0]).to(standard)
            value, vector = torch.linalg.eigh(covariance)
            # Rounding can leave a value at or below zero where bands are equal to the last bit.
            mix = vector * value.clamp_min(1e-9 * float(value[-1]) or 1.0) ** _POWER @ vector.T
            self.mix.copy_(mix / (float((standard @ mix).std()) or 1.0))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Scale (n, C) spectra."""
        x = (x - self.offset) * self.scale
        return x @ self.mix if self.kind == 'decorrelated' else x


class NN1D(nn.Module):
    """Fully connected network on single spectra, including the scaling of its input.

    Args:
        bands: number of bands C.
        num_classes: number of classes K.
        hidden: width of the hidden layers.
        layers: number of hidden layers; 4 as in the paper's GAN, as the paper does not state that of the classifier.
        dropout: dropout after each hidden layer.
        scaling: see :class:`SpectralScaler`.
    """

    def __init__(
        self,
        bands: int,
        num_classes: int,
        hidden: int = 256,
        layers: int = 4,
        dropout: float = 0.0,
        scaling: Scaling = 'standard',
    ) -> None:
        super().__init__()
        self.scaler = SpectralScaler(bands, scaling)
        widths = [bands, *[hidden] * layers]
        blocks: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            blocks += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.01), *([nn.Dropout(dropout)] if dropout else [])]
        self.body = nn.Sequential(*blocks, nn.Linear(widths[-1], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, K) of spectra (n, C) in the dataset's unit."""
        return self.body(self.scaler(x))
