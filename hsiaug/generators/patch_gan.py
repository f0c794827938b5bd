"""Convolutional GAN of hyperspectral patches, after a tutorial.

"How can hyperspectral image classification be implemented using PyTorch-based Generative Adversarial Networks?", 2024,
which is DCGAN (Radford, Metz and Chintala, ICLR 2016, https://arxiv.org/abs/1511.06434) in two layers. Conditioning on
the class is added: a patch without a label trains no classifier. The text names 3-D convolutions as the better choice
for spectra and shows none; here they are the same layers on volumes. Trained by :mod:`hsiaug.trainers.patch_gan`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..models.patch_critic import Dims
from ..samples import SampleSpec
from .base import Generator, TrainingData, register

CHUNK = 256  # patches made at a time


@register('patch_gan')
class PatchGAN(Generator):
    """Noise, and a class, to a patch: a linear projection to 128 × H/4 × W/4 and two transposed convolutions.

    Args:
        spec: spec of the patches, of kind ``'scene'`` with sides divisible by 4.
        latent_dim: length of the noise vector.
        conditional: False for the text's GAN without classes: labels are then drawn, but mean nothing.
        dims: 2, or 3 for spectral-spatial convolutions, whose projection has a quarter of the bands as well.

    Raises:
        ValueError: for samples that are no labelled patches, sides that do not divide, or too few bands.
    """

    low: Tensor  # (C, 1, 1) least and greatest value of each band, −1 and 1 of the network
    high: Tensor

    def __init__(self, spec: SampleSpec, latent_dim: int = 100, conditional: bool = True, dims: Dims = 2) -> None:
        if spec.kind != 'scene' or spec.size is None:
            raise ValueError(
                f"PatchGAN: makes samples of kind 'scene', found {spec.kind!r}; cut labelled patches with "
                'hsiaug.datasets.class_patches'
            )
        if any(side % 4 for side in spec.size):
            raise ValueError(
                f'PatchGAN: patches of {spec.size[0]} x {spec.size[1]} pixels do not divide by 4; cut other patches'
            )
        if latent_dim < 1:
            raise ValueError(f'PatchGAN: latent_dim must be at least 1, found {latent_dim}')
        if dims not in (2, 3) or (dims == 3 and spec.bands < 4):
            raise ValueError(f'PatchGAN: dims must be 2, or 3 with 4 bands or more, found {dims} with {spec.bands}')
        super().__init__(spec, latent_dim=latent_dim, conditional=conditional, dims=dims)
        self.latent_dim, self.conditional = latent_dim, conditional
        self.corner: tuple[int, ...] = (spec.size[0] // 4, spec.size[1] // 4)
        if dims == 3:
            self.corner = (math.ceil(spec.bands / 4), *self.corner)
        inputs = latent_dim + (spec.num_classes if conditional else 0)
        self.projection = nn.Linear(inputs, 128 * math.prod(self.corner))
        layers: list[nn.Module]
        if dims == 3:
            layers = [nn.ConvTranspose3d(128, 64, 4, 2, 1), nn.BatchNorm3d(64), nn.ReLU()]
            layers += [nn.ConvTranspose3d(64, 1, 4, 2, 1)]
        else:
            layers = [nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU()]
            layers += [nn.ConvTranspose2d(64, spec.bands, 4, 2, 1)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.register_buffer('low', torch.zeros(spec.bands, 1, 1))
        self.register_buffer('high', torch.ones(spec.bands, 1, 1))

    def observe(self, data: TrainingData) -> None:
        """Take the range of each band."""
        self.low.copy_(data.x.amin(dim=(0, 2, 3))[:, None, None])
        self.high.copy_(data.x.amax(dim=(0, 2, 3))[:, None, None])

    def normalise(self, image: Tensor) -> Tensor:
        """Images of the dataset's unit in [−1, 1]; bands of one value at −1."""
        return 2 * (image - self.low) / (self.high - self.low).clamp_min(1e-12) - 1

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """(n, C, H, W) in [−1, 1] of noise (n, latent_dim) and labels (n,)."""
        if self.conditional:
            noise = torch.cat([noise, one_hot(labels, self.spec.num_classes).to(noise)], dim=1)
        image = self.layers(self.projection(noise).view(-1, 128, *self.corner))
        # A volume is a multiple of four bands deep: what is over is cut off.
        return image[:, 0, : self.spec.bands] if image.ndim == 5 else image

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        noise = torch.randn((len(labels), self.latent_dim), generator=rng).to(self.device)
        parts = [self(z, y) for z, y in zip(noise.split(CHUNK), labels.to(self.device).split(CHUNK), strict=True)]
        return {'image': self.low + (torch.cat(parts) + 1) / 2 * (self.high - self.low)}


__all__ = ['PatchGAN']
