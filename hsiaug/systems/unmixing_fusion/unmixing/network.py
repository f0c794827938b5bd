"""Unmixing network: abundances from three bands or from all, endmembers as the weights of a linear decoder.

Yu et al., "Unmixing before Fusion: A Generalized Paradigm for Multi-Source-based Hyperspectral Image Synthesis", CVPR
2024, with the channel attention of Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018,
https://arxiv.org/abs/1807.06521. Trained by :mod:`hsiaug.systems.unmixing_fusion.unmixing.train`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

CHUNK_PIXELS = 1 << 14  # unmixed at a time by a CPU, whose cache then holds the maps: a third of the time
MORE = 16  # times as many elsewhere
LEVELS = 65  # quantiles of each input that are kept


class _Layer(nn.Sequential):
    """A 3 × 3 convolution that keeps the size, the last pixels repeated beyond the borders, and batch normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode='replicate', bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs))


class ChannelAttention(nn.Module):
    """Weights of channels, from their mean and maximum over the image (CBAM's first half)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        inner = max(4, channels // reduction)
        self.shared = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) of the same shape."""
        weight = self.shared(x.mean(dim=(2, 3))) + self.shared(x.amax(dim=(2, 3)))
        return x * weight.sigmoid()[:, :, None, None]


class ResidualSpectralAttention(nn.Module):
    """Two 3 × 3 convolutions and channel attention, in parallel with a 1 × 1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _Layer(inputs, outputs), nn.ReLU(), _Layer(outputs, outputs), ChannelAttention(outputs)
        )
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, outputs, h, w) of (n, inputs, h, w)."""
        return relu(self.skip(x) + self.body(x))


class UnmixingNetwork(nn.Module):
    """Images to abundances and back.

    The text gives the widths of six layers and says that three modules of residual spectral attention are among them,
    not where: here they are the second, third and fourth layer. Images are brought to the range of about 0 to 1 by one
    factor for all bands, so that mixing stays linear, and the encoder's input to zero mean and unit variance. The text
    names no normalisation between layers; without one, the softmax soon saturates on one endmember and stays there.
    Channel attention looks at whole images, so abundances are best taken of images of the size that was trained on.

    Args:
        selection: (M, C) float32 that makes the encoder's M inputs of an image's C bands, see
            :func:`~hsiaug.functional.unmixing.band_selection`; the identity feeds it with all bands.
        num_endmembers: k.
        widths: channels of the layers between the input and the abundances.

    Attributes:
        scale: () value of the dataset's unit that counts as 1.
        quantiles: (M, Q) even quantiles of each input over the training images, in the dataset's unit.
    """

    selection: Tensor
    scale: Tensor
    quantiles: Tensor
    input_mean: Tensor
    input_std: Tensor

    def __init__(self, selection: Tensor, num_endmembers: int, widths: Sequence[int] = (32, 64, 128, 96, 48)) -> None:
        super().__init__()
        if selection.ndim != 2 or not 1 <= len(selection) <= selection.shape[1]:
            raise ValueError(f'UnmixingNetwork: selection must be (M, C) with M <= C, found {tuple(selection.shape)}')
        if len(widths) != 5 or min(widths) < 1 or num_endmembers < 2:
            raise ValueError(
                f'UnmixingNetwork: five positive widths and 2 or more endmembers are needed, found {tuple(widths)} and '
                f'{num_endmembers}'
            )
        inputs, bands = selection.shape
        first, *modules, last = widths
        self.encoder = nn.Sequential(
            _Layer(inputs, first),
            nn.ReLU(),
            *(ResidualSpectralAttention(a, b) for a, b in zip((first, *modules[:-1]), modules, strict=True)),
            _Layer(modules[-1], last),
            nn.ReLU(),
            nn.Conv2d(last, num_endmembers, 1),
            nn.Softmax(dim=1),
        )
        self.decoder = nn.Conv2d(num_endmembers, bands, 1, bias=False)
        self.register_buffer('selection', selection.to(torch.float32))
        self.register_buffer('scale', torch.ones(()))
        self.register_buffer('quantiles', torch.zeros(inputs, LEVELS))
        for name, value in (('mean', 0.0), ('std', 1.0)):
            self.register_buffer(f'input_{name}', torch.full((inputs, 1, 1), value))

    @property
    def num_endmembers(self) -> int:
        """Number of endmembers k."""
        return self.decoder.in_channels

    @property
    def endmembers(self) -> Tensor:
        """(k, C) endmembers in the dataset's unit."""
        return self.decoder.weight[:, :, 0, 0].T * self.scale

    def select(self, image: Tensor) -> Tensor:
        """(n, M, H, W) inputs of the encoder, in the image's unit, of (n, C, H, W)."""
        return torch.einsum('mc,nchw->nmhw', self.selection, image)

    def encode(self, inputs: Tensor) -> Tensor:
        """(n, k, H, W) abundances of (n, M, H, W) selected bands in the dataset's unit."""
        return self.encoder((inputs - self.input_mean) / self.input_std)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Abundances (n, k, H, W) of images (n, C, H, W), and the images that they make, both in the dataset's unit."""
        abundances = self.encode(self.select(image))
        return abundances, self.decoder(abundances) * self.scale

    @torch.no_grad()
    def abundances(self, inputs: Tensor) -> Tensor:
        """Abundances of many images, on the network's device.

        Args:
            inputs: (n, C, H, W) images or (n, M, H, W) selected bands in the dataset's unit, on any device.

        Returns:
            (n, k, H, W) float32 on the simplex.
        """
        m, bands = self.selection.shape
        if inputs.ndim != 4 or inputs.shape[1] not in (m, bands):
            raise ValueError(
                f'UnmixingNetwork: images (n, {bands}, H, W) or selected bands (n, {m}, H, W) are needed, found '
                f'{tuple(inputs.shape)}'
            )
        pixels = CHUNK_PIXELS * (1 if self.selection.device.type == 'cpu' else MORE)
        step = max(1, pixels // (inputs.shape[2] * inputs.shape[3]))
        parts = [part.to(self.selection) for part in inputs.split(step)]
        if inputs.shape[1] != m:
            parts = [self.select(part) for part in parts]
        found = [self.encode(part) for part in parts]
        return torch.cat(found) if found else inputs.new_zeros(0, self.num_endmembers, *inputs.shape[2:])

    @torch.no_grad()
    def mix(self, abundances: Tensor) -> Tensor:
        """(n, C, H, W) images in the dataset's unit of (n, k, H, W) abundances."""
        return self.decoder(abundances) * self.scale
