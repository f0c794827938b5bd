"""ChangeFormer: a siamese hierarchical transformer for change detection.

Bandara & Patel (2022), A transformer-based siamese network for change detection, https://arxiv.org/abs/2201.01293.
V6 is the network of the paper; V3 is an earlier one of the published code, which SpecDM (2025) trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from segmentation_models_pytorch.encoders.mix_transformer import (
    LayerNorm,
    MixVisionTransformerEncoder,
    OverlapPatchEmbed,
)
from torch import Tensor, nn

from .encoders import MIX_STRIDE, mix_transformer
from .siamese import date_features, resize, to_pixels

DIMS = (64, 128, 320, 512)
"""Channels of the published encoders' four scales."""


def _published(bands: int, depths: tuple[int, ...], patch: int, dropout: float) -> Any:
    """The published encoder; ``patch`` is the side of the patches that the second to fourth scale embed."""
    encoder = MixVisionTransformerEncoder(
        [3, 0, *DIMS], in_chans=bands, embed_dims=DIMS, depths=depths, num_heads=(1, 2, 4, 8), mlp_ratios=(4, 4, 4, 4),
        sr_ratios=(8, 4, 2, 1), qkv_bias=True, norm_layer=partial(LayerNorm, eps=1e-6), drop_rate=dropout,
        attn_drop_rate=dropout, drop_path_rate=0.1,
    )  # fmt: skip
    if patch != 3:
        for scale, (inputs, outputs) in enumerate(pairwise(DIMS), start=2):
            embed = OverlapPatchEmbed(patch_size=patch, stride=2, in_chans=inputs, embed_dim=outputs)
            setattr(encoder, f'patch_embed{scale}', embed)
    return encoder


class _ChangeFormer(nn.Module):
    """The encoder, common to all versions; a version adds its decoder."""

    width: ClassVar[int]  # of its decoder, as published
    published: ClassVar[tuple[tuple[int, ...], int, float]]  # depths, patch and dropout of its encoder

    def __init__(
        self,
        bands: int,
        num_classes: int = 2,
        encoder: str = 'changeformer',
        encoder_weights: str | None = None,
        channels: int | None = None,
        upsampling: int = 1,
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        published = partial(_published, bands, *self.published)
        owner = type(self).__name__
        self.encoder = mix_transformer(owner, encoder, bands, encoder_weights, changeformer=published)
        self._decode(self.encoder.out_channels[2:], channels or self.width, num_classes)

    def _decode(self, scales: Sequence[int], channels: int, num_classes: int) -> None:
        """Make the decoder of features at scales from fine to coarse."""
        raise NotImplementedError

    def _dates(self, image: Tensor) -> list[Tensor]:
        return date_features(self.encoder, image, MIX_STRIDE, self.upsampling)

    def _to_pixels(self, x: Tensor, image: Tensor) -> Tensor:
        return to_pixels(x, image, MIX_STRIDE, self.upsampling)


class ChangeFormerV3(_ChangeFormer):
    """Differences of features at four scales, fused by an MLP, enlarged by pixel shuffle.

    Each scale's difference is mapped to ``channels``, resized and made absolute, so that a swap of the dates changes no
    logit. The published code maps both dates first, which is the same: the bias cancels. It also passes logits through
    a ReLU, which is left out here: it stops their gradient where they are negative.

    Args:
        bands, num_classes, encoder_weights, upsampling: as of :class:`~hsiaug.models.SegFormer`, of each date.
        encoder: ``'changeformer'``, the published one, or what SegFormer takes.
        channels: width of the decoder; None for the published one, 64, in version 6 256.

    Raises:
        ValueError: for an unknown encoder or weights.
        ConnectionError: if weights cannot be fetched.
    """

    width, published = 64, ((3, 4, 6, 3), 3, 0.0)

    def _decode(self, scales: Sequence[int], channels: int, num_classes: int) -> None:
        self.project = nn.ModuleList(nn.Conv2d(inputs, channels, 1, bias=False) for inputs in scales)
        self.fuse = nn.Conv2d(channels * len(scales), channels, 1)
        self.head = nn.Sequential(nn.Conv2d(channels, num_classes * 16, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W) of images (n, 2, C, H, W) with sides of any length."""
        dates = self._dates(image)
        size = dates[0].shape[-2:]
        differences = [
            resize(project(scale[:, 0] - scale[:, 1]), size).abs()
            for project, scale in zip(self.project, dates, strict=True)
        ]
        return self._to_pixels(self.head(self.fuse(torch.cat(differences, dim=1))), image)


class _Residual(nn.Module):
    """A residual block whose branch is scaled by a tenth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.body(x)


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(outputs),
        nn.Conv2d(outputs, outputs, 3, padding=1),
    )


def _twice(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1), _Residual(channels))


class ChangeFormerV6(_ChangeFormer):
    """A learned difference of features at four scales, fused, enlarged by transposed convolutions.

    Each scale's difference takes up the next coarser one, and predicts the change by itself: see
    :meth:`forward_with_sides`, for training. Arguments and errors are those of :class:`ChangeFormerV3`; the published
    encoder has fewer blocks, and patches of 7x7 at all scales.
    """

    width, published = 256, ((3, 3, 4, 3), 7, 0.1)

    def _decode(self, scales: Sequence[int], channels: int, num_classes: int) -> None:
        scales = scales[::-1]  # coarse to fine, as all that follows
        self.project = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for inputs in scales)
        self.difference = nn.ModuleList(nn.Sequential(_convolutions(2 * channels, channels), nn.ReLU()) for _ in scales)
        self.sides = nn.ModuleList(_convolutions(channels, num_classes) for _ in scales)
        self.fuse = nn.Sequential(nn.Conv2d(channels * len(scales), channels, 1), nn.BatchNorm2d(channels))
        self.enlarge = nn.Sequential(_twice(channels), _twice(channels))
        self.head = nn.Conv2d(channels, num_classes, 3, padding=1)

    def _differences(self, image: Tensor) -> list[Tensor]:
        """(n, channels, h, w) at each scale, coarse to fine."""
        differences: list[Tensor] = []
        scales = reversed(self._dates(image))
        for project, difference, dates in zip(self.project, self.difference, scales, strict=True):
            projected = project(dates.flatten(0, 1)).unflatten(0, (-1, 2))
            found = difference(projected.flatten(1, 2))
            differences.append(found + resize(differences[-1], found.shape[-2:]) if differences else found)
        return differences

    def _logits(self, differences: list[Tensor], image: Tensor) -> Tensor:
        size = differences[-1].shape[-2:]
        fused = self.fuse(torch.cat([resize(scale, size) for scale in differences], dim=1))
        return self._to_pixels(self.head(self.enlarge(fused)), image)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W) of images (n, 2, C, H, W) with sides of any length."""
        return self._logits(self._differences(image), image)

    def forward_with_sides(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (n, K, H, W), and those of each scale, coarse to fine, brought to the same pixels, for training.

        The published code shrinks the mask to each scale instead, where changes of a few pixels are lost.
        """
        differences = self._differences(image)
        sides = [self._to_pixels(side(scale), image) for side, scale in zip(self.sides, differences, strict=True)]
        return self._logits(differences, image), sides
