"""Convolutional GAN of hyperspectral patches, after a tutorial.

"How can hyperspectral image classification be implemented using PyTorch-based Generative Adversarial Networks?", 2024,
a DCGAN (Radford, Metz and Chintala, ICLR 2016, https://arxiv.org/abs/1511.06434) with two layers. We add conditioning
on the class, since unlabelled patches cannot train a classifier. The tutorial recommends 3-D convolutions for spectra
without showing any; here they are the same layers on volumes. Trained by :mod:`hsiaug.systems.patch_gan.train`.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils.parametrizations import spectral_norm

from ...functional.devices import sent
from ...functional.plain import plain_torch
from ...functional.scaling import band_scale, matching
from ...models.patch_cnn import BATCH_NORM, CONVOLUTION, Dims
from ...samples import SampleSpec
from ...settings import COUNT
from ...streams import stream
from ..base import Generator, TrainingData, own_settings, register

CHUNK = 256  # patches made at a time
Upsampling = Literal['transposed', 'resize']


@register('patch_gan')
class PatchGAN(Generator):
    """Convolutional GAN of labelled patches, from noise and a class.

    A linear projection to 128 × H/4 × W/4 and two transposed convolutions.

    Args:
        spec: spec of the patches, of kind ``'scene'`` with sides divisible by 4.
        latent_dim: length of the noise vector.
        conditional: False for the tutorial's GAN without classes: labels are then drawn, but have no effect.
        dims: 2, or 3 for spectral-spatial convolutions, whose projection also has a quarter of the bands.
        upsampling: ``'transposed'`` as in the tutorial; ``'resize'`` repeats pixels and convolves them, which avoids
            checkerboard artefacts (Odena, Dumoulin and Olah, Distill 2016,
            https://distill.pub/2016/deconv-checkerboard).

    Raises:
        ValueError: for samples that are not labelled patches, sides not divisible by 4, or too few bands.
    """

    kinds: ClassVar = ('scene',)
    ranges: ClassVar = {'latent_dim': COUNT}
    gain: Tensor  # (K, C) and
    shift: Tensor  # of each class, in the units of the network
    low: Tensor  # (C, 1, 1) least and greatest value of each band, −1 and 1 of the network
    high: Tensor

    def __init__(
        self,
        spec: SampleSpec,
        latent_dim: int = 100,
        conditional: bool = True,
        dims: Dims = 2,
        upsampling: Upsampling = 'transposed',
    ) -> None:
        super().__init__(spec, **own_settings(locals()))
        height, width = spec.image_shape[-2:]
        if height % 4 or width % 4:
            raise ValueError(f'PatchGAN: patches of {height} x {width} pixels do not divide by 4; cut other patches')
        if dims == 3 and spec.bands < 4:
            raise ValueError(f'PatchGAN: dims must be 2, or 3 with 4 bands or more, found 3 with {spec.bands}')
        self.latent_dim, self.conditional = latent_dim, conditional
        self.corner: tuple[int, ...] = (height // 4, width // 4)
        if dims == 3:
            self.corner = (math.ceil(spec.bands / 4), *self.corner)
        inputs = latent_dim + (spec.num_classes if conditional else 0)
        self.projection = nn.Linear(inputs, 128 * math.prod(self.corner))
        self.layers = nn.Sequential(
            *doubling(128, 64, dims, upsampling), BATCH_NORM[dims](64), nn.ReLU(),
            *doubling(64, 1 if dims == 3 else spec.bands, dims, upsampling), nn.Tanh(),
        )  # fmt: skip
        of_class, of_band = (spec.num_classes, spec.bands), (spec.bands, 1, 1)
        for name, shape, value in (
            ('gain', of_class, 1),
            ('shift', of_class, 0),
            ('low', of_band, 0),
            ('high', of_band, 1),
        ):
            self.register_buffer(name, torch.full(shape, float(value)))

    def observe(self, data: TrainingData) -> None:
        """Take the range of each band."""
        self.low.copy_(data.x.amin(dim=(0, 2, 3))[:, None, None])
        self.high.copy_(data.x.amax(dim=(0, 2, 3))[:, None, None])

    def normalise(self, image: Tensor) -> Tensor:
        """Images of the dataset's unit in [−1, 1]; bands of one value at −1."""
        low, width = self.low.flatten(), (self.high - self.low).flatten()
        return 2 * (image - self.low) / band_scale(low, width)[:, None, None] - 1

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """(n, C, H, W) in [−1, 1] of noise (n, latent_dim) and labels (n,)."""
        if self.conditional:
            noise = torch.cat([noise, one_hot(labels, self.spec.num_classes).to(noise)], dim=1)
        image = self.layers(self.projection(noise).view(-1, 128, *self.corner))
        # A volume is a multiple of four bands deep: what is over is cut off.
        return image[:, 0, : self.spec.bands] if image.ndim == 5 else image

    @plain_torch()
    @torch.no_grad()
    def calibrate(self, data: TrainingData, seed: int = 0, samples: int = 500) -> None:
        """Give each class the mean and the standard deviation of each band that its training patches have.

        Moments are those of ``samples`` of each class; with few training patches they are matched in part, see
        :func:`~hsiaug.functional.scaling.matching`.
        """
        self.gain.fill_(1)
        self.shift.zero_()
        rng = stream(seed)
        for label in range(self.spec.num_classes):
            real = self.normalise(data.x[data.y == label].to(self.device))
            if len(real) == 0:
                continue
            fake = self._network_output(torch.full((samples,), label), rng)
            its, wanted = ((x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3)).clamp_min(1e-6)) for x in (fake, real))
            self.gain[label], self.shift[label] = matching(its, wanted, len(real))

    def _network_output(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        noise = sent(torch.randn((len(labels), self.latent_dim), generator=rng), self.device)
        parts = [self(z, y) for z, y in zip(noise.split(CHUNK), sent(labels, self.device).split(CHUNK), strict=True)]
        return torch.cat(parts)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        image = self._network_output(labels, rng)
        gain, shift = (moments[sent(labels, self.device)][:, :, None, None] for moments in (self.gain, self.shift))
        return {'image': self.low + (image * gain + shift + 1) / 2 * (self.high - self.low)}


def doubling(channels: int, out: int, dims: Dims, upsampling: Upsampling) -> list[nn.Module]:
    """Layers that double the sides of images, and of volumes the bands too."""
    if upsampling == 'resize':
        return [nn.Upsample(scale_factor=2), CONVOLUTION[dims](channels, out, 3, padding=1)]
    return [nn.ConvTranspose3d(channels, out, 4, 2, 1) if dims == 3 else nn.ConvTranspose2d(channels, out, 4, 2, 1)]


class PatchCritic(nn.Module):
    """Two convolutions of 4 × 4 with stride 2 and leaky ReLU 0.2, and a linear layer on all features.

    Given the class, of ``classes`` or 0 for none, it sees it as one constant channel per class. In three dimensions the
    bands are a side of a volume, and kernels have 4 × 4 × 4. The ``norm`` of the second layer is ``'batch'`` as in the
    tutorial, or ``'layer'`` where each sample's score must come from that sample alone, as under a gradient penalty;
    ``spectral`` normalises the spectral norm of all weights (Miyato et al. 2018).
    """

    def __init__(
        self,
        bands: int,
        size: tuple[int, int],
        classes: int = 0,
        norm: Literal['batch', 'layer'] = 'batch',
        spectral: bool = False,
        dims: Dims = 2,
    ) -> None:
        super().__init__()
        self.classes, self.dims = classes, dims
        places = (size[0] // 4) * (size[1] // 4) * (bands // 4 if dims == 3 else 1)
        layers: list[nn.Module] = [
            CONVOLUTION[dims]((1 if dims == 3 else bands) + classes, 64, 4, 2, padding=1),
            nn.LeakyReLU(0.2),
            CONVOLUTION[dims](64, 128, 4, 2, padding=1),
            BATCH_NORM[dims](128) if norm == 'batch' else nn.GroupNorm(1, 128),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(128 * places, 1),
        ]
        if spectral:
            weighted = (nn.Conv2d, nn.Conv3d, nn.Linear)
            layers = [spectral_norm(layer) if isinstance(layer, weighted) else layer for layer in layers]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor, labels: Tensor) -> Tensor:
        """(n,) scores of (n, C, H, W) with labels (n,); the tutorial's sigmoid is in the loss."""
        x = image[:, None] if self.dims == 3 else image
        if self.classes:
            hot = one_hot(labels, self.classes).to(x)
            x = torch.cat([x, hot.view(*hot.shape, *[1] * self.dims).expand(-1, -1, *x.shape[2:])], dim=1)
        return self.layers(x)[:, 0]
