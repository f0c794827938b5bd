"""PFSegNet: a feature pyramid in which semantics flow through points, for aerial images.

Li et al. (2021), PointFlow: flowing semantics through points for aerial image segmentation,
https://arxiv.org/abs/2103.06564.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, interpolate

from ..functional.degradation import padded
from .encoders import conv_block, resnet_encoder
from .siamese import resize

STRIDE = 8
"""Of the dilated encoder."""


class PyramidPooling(nn.Module):
    """Context of the whole patch and of its parts (Zhao et al. 2017, https://arxiv.org/abs/1612.01105)."""

    def __init__(self, inputs: int, outputs: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = bins
        self.scales = nn.ModuleList(conv_block(inputs, outputs, 1) for _ in bins)
        self.fuse = conv_block(inputs + outputs * len(bins), outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(n, outputs, h, w) of (n, inputs, h, w)."""
        pooled = [scale(adaptive_avg_pool2d(x, size)) for scale, size in zip(self.scales, self.bins, strict=True)]
        return self.fuse(torch.cat([x, *(resize(part, x.shape[-2:]) for part in pooled)], dim=1))


class PointFlow(nn.Module):
    """Carries semantics from a coarse level to a fine one, at salient points and at points on boundaries.

    Salient points are the maxima of a saliency map in the cells of a grid. Boundary points have the highest score in a
    map of edges, which is predicted from what average pooling removes from the fine level, and supervised. At either
    kind, each fine point takes the coarse features of all points by their affinity to it, and keeps its own.

    On a small map, ``grid`` of salient points and ``smoothing``, the map that average pooling leaves, have at most half
    its side, and boundary points are a quarter of its points: to choose all is no choice, and pooling to the map's own
    size leaves no edges. Affinities are measured in ``match_channels`` dimensions.
    """

    def __init__(
        self, channels: int, match_channels: int = 64, grid: int = 14, smoothing: int = 9, edge_points: int = 128
    ) -> None:
        super().__init__()
        self.grid, self.smoothing, self.edge_points = grid, smoothing, edge_points
        self.fine = nn.Conv2d(channels, match_channels, 1)
        self.coarse = nn.Conv2d(channels, match_channels, 1)
        self.saliency = nn.Conv2d(2 * match_channels, 1, 3, padding=1)
        self.edge = nn.Sequential(conv_block(match_channels, match_channels, 3), nn.Conv2d(match_channels, 1, 1))

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """The fine level (n, channels, h, w) with semantics of the coarse one, and edge logits (n, 1, h, w)."""
        height, width = fine.shape[-2:]
        coarse = resize(coarse, fine.shape[-2:])
        query, key = self.fine(fine), self.coarse(coarse)
        saliency = torch.sigmoid(self.saliency(torch.cat([query, key], dim=1)))
        cells = self._at_most(self.grid, height, width)
        salient = adaptive_max_pool2d(saliency.detach(), cells, return_indices=True)[1].flatten(1)

        smooth = adaptive_avg_pool2d(query, self._at_most(self.smoothing, height, width))
        edges = self.edge(query - resize(smooth, fine.shape[-2:]))
        count = max(min(self.edge_points, height * width // 4), 1)
        boundary = edges.detach().flatten(1).topk(count, dim=1).indices

        # Saliency weighs the keys, or it would get no gradient.
        flow = self._flow(query, key * saliency, coarse, salient) + self._flow(query, key, coarse, boundary)
        return fine + flow, edges

    @staticmethod
    def _at_most(side: int, height: int, width: int) -> tuple[int, int]:
        return max(min(side, height // 2), 1), max(min(side, width // 2), 1)

    @staticmethod
    def _flow(query: Tensor, key: Tensor, value: Tensor, points: Tensor) -> Tensor:
        """(n, channels, h, w) what flows to ``points`` (n, p), places in the flattened maps; 0 elsewhere."""

        def at(x: Tensor) -> Tensor:
            return x.flatten(2).gather(2, points[:, None].expand(-1, x.shape[1], -1))

        affinity = (at(query).transpose(1, 2) @ at(key) / query.shape[1] ** 0.5).softmax(dim=2)
        moved = (at(value) @ affinity.transpose(1, 2).to(value.dtype)).to(value.dtype)
        places = points[:, None].expand(-1, value.shape[1], -1)
        # The mean: cells of a grid that doesn't divide the map overlap, and may choose a point twice.
        empty = torch.zeros_like(value).flatten(2)
        return empty.scatter_reduce(2, places, moved, 'mean', include_self=False).view_as(value)


class PFSegNet(nn.Module):
    """Dilated ResNet, pyramid pooling, feature pyramid with three point-flow modules.

    The pyramid's levels have strides 4, 8, 8 and 8. Each finer level is its lateral features with the flow of the next
    coarser level, plus that level (the pyramid's own top-down sum); all levels together are classified. The deep
    supervision of the published code is left out: edges are what the paper supervises besides the mask.

    Args:
        bands, num_classes, mapping, encoder_weights, upsampling: as of :class:`~hsiaug.models.SegFormer`.
        backbone: ``'resnet50'`` as in the paper, or any other ResNet of segmentation-models-pytorch that can be
            dilated, such as ``'resnet18'``; ``'resnet_tiny'``, narrow and with one block per stage, for studies on a
            CPU.
        channels: width of the pyramid.

    Raises:
        ValueError: for an unknown backbone or weights.
        ConnectionError: if weights cannot be fetched.
    """

    def __init__(
        self,
        bands: int,
        num_classes: int,
        backbone: str = 'resnet50',
        mapping: bool = False,
        encoder_weights: str | None = None,
        channels: int = 256,
        upsampling: int = 1,
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.mapping = nn.Conv2d(bands, 3, kernel_size=1) if mapping else nn.Identity()
        channels_in = 3 if mapping else bands
        self.encoder = resnet_encoder('PFSegNet', backbone, channels_in, encoder_weights, STRIDE, 'resnet50')
        *finer, coarsest = self.encoder.out_channels[2:]
        self.context = PyramidPooling(coarsest, channels)
        self.lateral = nn.ModuleList(conv_block(inputs, channels, 1) for inputs in reversed(finer))
        self.flow = nn.ModuleList(PointFlow(channels) for _ in finer)
        self.smooth = nn.ModuleList(conv_block(channels, channels, 3) for _ in finer)
        self.fuse = conv_block(channels * (len(finer) + 1), channels, 3)
        self.head = nn.Conv2d(channels, num_classes, kernel_size=1)

    def _pyramid(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.mapping(image)
        if self.upsampling > 1:
            x = interpolate(x, scale_factor=self.upsampling, mode='bilinear')
        *finer, coarsest = self.encoder(padded(x, STRIDE))[2:]
        top = self.context(coarsest)
        levels, edges = [top], []
        for lateral, flow, smooth, fine in zip(self.lateral, self.flow, self.smooth, reversed(finer), strict=True):
            refined, edge = flow(top, lateral(fine))
            top = refined + resize(top, refined.shape[-2:])
            levels.append(smooth(top))
            edges.append(edge)
        size = levels[-1].shape[-2:]
        return self.fuse(torch.cat([resize(level, size) for level in levels], dim=1)), edges

    def _to_pixels(self, x: Tensor, image: Tensor) -> Tensor:
        """A map of any level brought to the image's pixels, without the padding."""
        height, width = image.shape[-2:]
        whole = (-(-side * self.upsampling // STRIDE) * STRIDE // self.upsampling for side in (height, width))
        return resize(x, tuple(whole))[..., :height, :width]

    def features(self, image: Tensor) -> Tensor:
        """(n, channels, H', W') what the last layer sees, at a quarter of the enlarged input's resolution."""
        return self._pyramid(image)[0]

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W) of images (n, C, H, W) with sides of any length."""
        return self._to_pixels(self.head(self.features(image)), image)

    def forward_with_edges(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (n, K, H, W), and edge logits (n, 1, H, W) of each point-flow module, for training."""
        fused, edges = self._pyramid(image)
        return self._to_pixels(self.head(fused), image), [self._to_pixels(edge, image) for edge in edges]
