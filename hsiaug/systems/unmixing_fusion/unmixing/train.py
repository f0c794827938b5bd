"""Training of an unmixing network, and abundances of RGB images by it.

Yu et al., "Unmixing before Fusion: A Generalized Paradigm for Multi-Source-based Hyperspectral Image Synthesis", CVPR
2024.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from ....engine import Run, Training
from ....engine.checkpoint import digest_of, identity_of
from ....engine.data import require_finite_samples
from ....engine.schedules import Cosine
from ....functional.plain import plain_torch
from ....functional.scaling import band_scale
from ....functional.unmixing import RGB_CENTRES, band_selection, pure_means, require_rank, vca
from ....losses.unmixing import unmixing_loss
from ....settings import POSITIVE, Range, check_settings
from ....streams import seeded, shuffled
from .network import UnmixingNetwork

Inputs = Literal['rgb', 'all']
Start = Literal['vca', 'pure', 'kmeans']
Matching = Literal['none', 'moments', 'quantiles']

CHECKPOINT_FILE = 'unmixing.safetensors'
_SPECTRA = 20_000  # that starting endmembers are looked for among
_DRAWS = 10  # of vertex component analysis in each projection
_VALUES = 1_000_000  # that scale and quantiles are taken from
_BRIGHT = 0.999  # quantile of all values that counts as 1
COLLAPSED = 0.95  # mean share of one endmember that leaves nothing to the others
FLAT = 0.01  # standard deviation of abundances that show no picture


@dataclass(frozen=True)
class UnmixingConfig:
    """Settings of an unmixing network and its training: the published ones by default; :meth:`small` suits scenes.

    Args:
        endmembers: number of endmembers k.
        inputs: ``'rgb'`` feeds three bands to the encoder, so that it can process RGB images; ``'all'`` feeds all
            bands.
        centres: wavelengths of the three bands in nm.
        response: (3, C) spectral responses instead, see :func:`~hsiaug.functional.unmixing.band_selection`.
        widths: channels of the encoder's five inner layers.
        start: initial endmembers: ``'vca'`` takes extreme spectra, with the smallest residual of 20 draws; ``'pure'``
            takes means of the spectra closest in angle to these, which have typical brightness; ``'kmeans'`` takes
            cluster centres, which are typical constituents rather than pure materials.
        epochs: passes over the images; each image is drawn once per epoch on average.
        steps: number of optimiser steps, instead of epochs.
        batch_size: images per step.
        learning_rate: peak learning rate of Adam, which falls to 0 along a cosine.
        endmember_rate: learning rate of the endmembers, relative to the encoder's.
        sad_weight: weight α of the spectral angle in radians.
        tv_weight: weight β of the endmembers' total variation.

    Raises:
        ValueError: if a setting is out of its range.
    """

    endmembers: int = 5
    inputs: Inputs = 'rgb'
    centres: tuple[float, float, float] = RGB_CENTRES
    response: Sequence[Sequence[float]] | None = None
    widths: tuple[int, int, int, int, int] = (32, 64, 128, 96, 48)
    start: Start = 'vca'
    epochs: int = 40
    steps: int | None = None
    batch_size: int = 4
    learning_rate: float = 1e-4
    endmember_rate: float = 1.0
    sad_weight: float = 0.1
    tv_weight: float = 1e-3

    def __post_init__(self) -> None:
        if isinstance(self.response, np.ndarray):
            object.__setattr__(self, 'response', self.response.tolist())
        check_settings(self, endmembers=Range(2), learning_rate=POSITIVE, response=Range(-math.inf))

    @classmethod
    def small(cls, **changes: Any) -> UnmixingConfig:
        """For small scenes: 300 steps at thirty times the rate; endmembers start at means of pure pixels, move less."""
        return cls(**{'start': 'pure', 'steps': 300, 'learning_rate': 3e-3, 'endmember_rate': 0.1, **changes})


class UnmixingTraining(Training):
    """The training: a network and the images that it unmixes, on the device."""

    replayable = True

    def __init__(self, network: UnmixingNetwork, images: Tensor, config: UnmixingConfig, seed: int) -> None:
        groups = [
            {'params': network.encoder.parameters(), 'lr': config.learning_rate},
            {'params': network.decoder.parameters(), 'lr': config.learning_rate * config.endmember_rate},
        ]
        optimisers = {'network': torch.optim.Adam(groups, fused=True)}
        steps = config.steps or config.epochs * math.ceil(len(images) / config.batch_size)
        super().__init__('unmixing', {'network': network.train()}, optimisers, steps, seed, images.device, Cosine())
        self.network, self.images, self.config, self.batch_size = network, images, config, config.batch_size

    def update(self, rng: torch.Generator) -> None:
        """One step; endmembers that it made negative are put to 0."""
        network, config = self.network, self.config
        image = self.images[self.rows(len(self.images), rng)]
        abundances, output = network(image)
        weights = network.decoder.weight[:, :, 0, 0].T
        loss = unmixing_loss(
            output / network.scale, image / network.scale, weights, config.sad_weight, config.tv_weight
        )
        self.descend('network', loss)
        with torch.no_grad():
            network.decoder.weight.clamp_(min=0)
        self.losses['loss'] = loss.detach()
        self.losses['largest share'] = abundances.detach().mean(dim=(0, 2, 3)).amax()


@plain_torch()
def train_unmixing(
    images: Tensor,
    wavelengths: Sequence[float] | None = None,
    config: UnmixingConfig | None = None,
    run: Run | None = None,
) -> UnmixingNetwork:
    """Train an unmixing network.

    Args:
        images: (N, C, H, W) float32 training images in any unit of light, such as reflectance.
        wavelengths: (C,) band centres in nm; required for ``inputs='rgb'`` without a response.
        config: settings; the published ones if None.
        run: seed, device, checkpoints, progress; see :class:`~hsiaug.engine.Run`. The checkpoint is kept, and the same
            call reads its result from there.

    Returns:
        the network in evaluation mode, on the device.

    Raises:
        FloatingPointError: if the training diverges; the last good checkpoint stays.

    Warns:
        UserWarning: if the abundances collapsed onto one endmember, or are the same everywhere.
    """
    config, run = config or UnmixingConfig(), run or Run()
    _require_images(images)
    shape, digest = list(images.shape), digest_of(images)
    identity = identity_of(config, run.seed, ('learning_rate',), images=shape, data=digest)
    bands = images.shape[1]
    selection = (
        np.eye(bands) if config.inputs == 'all' else band_selection(bands, wavelengths, config.centres, config.response)
    )
    with seeded(run.seed):
        network = UnmixingNetwork(torch.from_numpy(selection), config.endmembers, config.widths)
    start(network, images, config.start, run.seed)
    training = UnmixingTraining(network.to(run.device), images.to(run.device), config, run.seed)
    training.complete(run, CHECKPOINT_FILE, identity, keep=True)
    network.eval()
    warn_of_collapse(network.abundances(training.images))
    return network


@torch.no_grad()
def start(network: UnmixingNetwork, images: Tensor, kind: Start, seed: int) -> None:
    """Give a network its units and normalisation, and the endmembers that training starts from."""
    values = images.reshape(-1)[:: max(1, images.numel() // _VALUES)].double()
    # The brightest values alone may be glints.
    network.scale.fill_(float(values.quantile(_BRIGHT).clamp_min(1e-12)))
    inputs = network.select(images.to(network.selection)).movedim(1, 0).flatten(1)
    std, mean = torch.std_mean(inputs, dim=1, correction=0)
    network.input_mean.copy_(mean[:, None, None])
    network.input_std.copy_(band_scale(mean, std)[:, None, None])
    levels = torch.linspace(0, 1, network.quantiles.shape[1], dtype=torch.float64)
    for row, band in zip(network.quantiles, inputs, strict=True):
        row.copy_(band[:: max(1, len(band) // _VALUES)].double().quantile(levels))
    spectra = images.movedim(1, -1).flatten(0, 2)
    if len(spectra) > _SPECTRA:
        spectra = spectra[shuffled(len(spectra), seed)[:_SPECTRA]]
    x, k = spectra.double().cpu().numpy(), network.num_endmembers
    require_rank(x, k, 'train_unmixing')
    if kind == 'kmeans':
        found = KMeans(k, n_init=3, random_state=seed % 2**32).fit(x).cluster_centers_
    else:
        found = vca(x, k, seed, _DRAWS)
        found = pure_means(x, found) if kind == 'pure' else found
    weights = torch.from_numpy(found).clamp_min(0).T / network.scale.double()
    network.decoder.weight.copy_(weights[:, :, None, None])


def warn_of_collapse(abundances: Tensor) -> None:
    """Warn if (n, k, H, W) abundances collapsed onto one endmember, or are the same everywhere."""
    shares = abundances.mean(dim=(0, 2, 3))
    std = float(abundances.std(dim=(0, 2, 3)).max())
    if float(shares.max()) > COLLAPSED:
        warnings.warn(
            f'the abundances have collapsed onto endmember {int(shares.argmax())}, whose mean is '
            f'{float(shares.max()):.3f}: the others say nothing; start from other endmembers (start, seed), lower the '
            'learning rate, or take fewer endmembers',
            stacklevel=4,  # the caller, beyond the decorator
        )
    elif std < FLAT:
        warnings.warn(
            f'the abundances are the same everywhere (largest standard deviation {std:.2g}): they show no picture; '
            'train for more steps, or start from other endmembers (start, seed)',
            stacklevel=4,  # the caller, beyond the decorator
        )


@plain_torch()
def abundances_from_rgb(network: UnmixingNetwork, rgb: Tensor, matching: Matching = 'quantiles') -> Tensor:
    """Abundances of RGB images.

    A camera's counts are not reflectances; exposure, white balance and gamma lie in between. *quantiles* matches the
    distribution of each colour to that of its band in training, which also undoes gamma; *moments* matches mean and
    standard deviation only. Both match all images together, since a single image may well be brighter or greener than
    the scene, and assume a similar mixture of materials. *none* takes 1 as a bright pixel of the training images; use
    it for RGB in reflectance, divided by the network's ``scale``. On Houston 2018, where camera and spectrometer saw
    the same area, the RMSE to the abundances of the spectrometer's image is 0.12, 0.15 and 0.23 (0.21 for constant
    ones).

    Args:
        network: trained with ``inputs='rgb'``.
        rgb: (n, 3, H, W) red, green, blue; uint8, or floating point from 0 to 1.
        matching: see above.

    Returns:
        (n, k, H, W) float32 on the simplex, on the network's device.

    Raises:
        TypeError: for another dtype.
        ValueError: for another shape or range, an unknown matching, or a network of other inputs.
    """
    if matching not in get_args(Matching):
        raise ValueError(f'abundances_from_rgb: unknown matching {matching!r}; choose from {get_args(Matching)}')
    if len(network.selection) != 3:
        raise ValueError(
            f"abundances_from_rgb: the network takes {len(network.selection)} bands; train it with inputs='rgb'"
        )
    values = require_rgb(rgb, 'abundances_from_rgb').cpu()
    if matching == 'none':
        return network.abundances(values * network.scale.cpu())
    flat = values.movedim(1, 0).flatten(1)
    if matching == 'moments':
        std, mean = torch.std_mean(flat, dim=1, correction=0)
        target = network.input_mean.cpu()[:, :, 0], network.input_std.cpu()[:, :, 0]
        flat = (flat - mean[:, None]) / std.clamp_min(1e-6)[:, None] * target[1] + target[0]
    else:
        levels = np.linspace(0, 1, network.quantiles.shape[1])
        matched = [
            np.interp(band, np.quantile(band, levels), wanted)
            for band, wanted in zip(flat.numpy(), network.quantiles.cpu().numpy(), strict=True)
        ]
        flat = torch.from_numpy(np.stack(matched)).float()
    return network.abundances(flat.view(3, len(values), *values.shape[2:]).movedim(0, 1))


def require_rgb(rgb: Tensor, who: str) -> Tensor:
    """RGB images as float32 from 0 to 1."""
    if not isinstance(rgb, Tensor) or not (rgb.dtype == torch.uint8 or rgb.is_floating_point()):
        found = rgb.dtype if isinstance(rgb, Tensor) else type(rgb).__name__
        raise TypeError(f'{who}: RGB images must be a uint8 tensor, or floating point from 0 to 1, found {found}')
    if rgb.ndim != 4 or rgb.shape[1] != 3 or 0 in rgb.shape:
        raise ValueError(f'{who}: RGB images must be (n, 3, H, W), colours before rows, found {tuple(rgb.shape)}')
    if rgb.dtype == torch.uint8:
        return rgb.float() / 255
    low, high = float(rgb.min()), float(rgb.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(
            f'{who}: floating-point RGB must lie from 0 to 1, found {low:.4g} to {high:.4g}; divide by the greatest '
            'value of its format, such as 255 or 65535, or give uint8'
        )
    return rgb.float()


def _require_images(images: Tensor) -> None:
    if images.ndim != 4 or 0 in images.shape or not images.is_floating_point():
        raise ValueError(
            f'train_unmixing: images (N, C, H, W) of floating point are needed, found {tuple(images.shape)} of '
            f'{images.dtype}'
        )
    require_finite_samples(images)
    if float(images.max()) <= 0:
        raise ValueError('train_unmixing: no value is above 0; unmixing needs light: reflectance, radiance or counts')
