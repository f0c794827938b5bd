"""Super-resolution as augmentation: real samples at another ground sampling distance.

Huang, Li, Hu and Tao, "Hyperspectral Image Super-Resolution Using Generative Adversarial Network and Residual
Learning", ICASSP 2019. Trained by :mod:`hsiaug.systems.msrresgan.train`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...datasets.real.held import class_fractions
from ...functional.degradation import degrade, padded
from ...functional.devices import sent
from ...functional.pasting import pairs_that_hold
from ...functional.plain import as_trained, plain_torch
from ...functional.scaling import band_scale
from ...samples import SampleSpec
from ...settings import COUNT, NOT_NEGATIVE
from ...streams import stream
from ..base import Generator, TrainingData, own_settings, register
from .network import Network, super_resolver

Augmentation = Literal['zoom', 'jitter']
CHUNK = 16  # samples that are super-resolved at a time


@register('msrresgan')
class MSRResGAN(Generator):
    """Training samples at another resolution, by super-resolution.

    *zoom* enlarges a k times smaller window of a sample to full size, at a k times finer ground sampling distance, with
    masks by nearest neighbour; this assumes that the network, which has learnt to undo a degradation by k, also works
    at the next finer scale. *jitter* degrades a sample and restores it, to imitate the resolution of other sensors.
    :meth:`augment` alters any batch, also of another generator; :meth:`sample` draws training samples and alters them.
    Given a label, a pair is drawn with probability proportional to the share of that class in it, and a window around
    one of its pixels.

    Args:
        spec: spec of the samples, of kind ``'segmentation'`` or ``'scene'``. For ``'scene'``, the window holds the
            centre of the sample, whose label does not change.
        network: ``'msrresgan'``; ``'msrresnet'``, without gradient network and discriminator; or a baseline:
            ``'srgan'``, ``'srcnn'``, or ``'bicubic'``, which learns nothing.
        factor: factor k, 2 to 5. If it does not divide the sides of the samples, the output is cut to their size.
        width: kernels per layer of the residual networks.
        blocks: number of residual blocks; by default, the published one.
        augmentation: ``'zoom'`` or ``'jitter'``.
        mtf: MTF of the sensor imitated by jitter, see :func:`~hsiaug.functional.degradation.degrade`.
        noise: noise of that sensor, relative to the standard deviation of the training data.

    Raises:
        ValueError: if a setting is invalid.
    """

    ranges: ClassVar = {'factor': COUNT, 'width': COUNT, 'noise': NOT_NEGATIVE}
    kinds: ClassVar = ('segmentation', 'scene')
    fitted: ClassVar[tuple[str, ...]] = ('image', 'target')
    image: Tensor  # (N, C, H, W) training samples
    target: Tensor  # (N, H, W) masks or (N,) labels
    band_mean: Tensor  # (C, 1, 1)
    scale: Tensor  # ()

    def __init__(
        self,
        spec: SampleSpec,
        network: Network = 'msrresgan',
        factor: int = 2,
        width: int = 64,
        blocks: int | None = None,
        augmentation: Augmentation = 'zoom',
        mtf: float = 0.3,
        noise: float = 0.0,
    ) -> None:
        super().__init__(spec, **own_settings(locals()))
        self.network = super_resolver(network, spec.bands, factor, width, blocks)
        self.factor, self.augmentation, self.mtf, self.noise = factor, augmentation, mtf, noise
        self.register_buffer('band_mean', torch.zeros(spec.bands, 1, 1))
        self.register_buffer('scale', torch.ones(()))

    def observe(self, data: TrainingData) -> None:
        """Keep the training samples, and their means per band and standard deviation over all bands.

        One scale for all bands leaves the squared error that of the cube itself, but for a constant.
        """
        self.image, self.target = data.x.to(self.device), data.y.to(self.device)
        mean = data.x.mean(dim=(0, 2, 3))
        self.band_mean.copy_(mean[:, None, None])
        std = (data.x - mean[:, None, None]).std()
        self.scale.fill_(float(band_scale(mean.abs().mean()[None], std[None])))

    def normalise(self, image: Tensor) -> Tensor:
        """Images of the dataset's unit, as the network takes them."""
        return (image.float() - self.band_mean) / self.scale

    def forward(self, low: Tensor) -> Tensor:
        """(n, C, kh, kw) in the dataset's unit, of (n, C, h, w)."""
        return self.spec.clamped(self.network(self.normalise(low)) * self.scale + self.band_mean)

    def restore(self, image: Tensor) -> Tensor:
        """(n, C, H, W) in the dataset's unit, of images that were interpolated before they were cut.

        Raises:
            ValueError: of SRGAN, which takes images of low resolution alone.
        """
        if not hasattr(self.network, 'restore'):
            raise ValueError('MSRResGAN: the network srgan takes images of low resolution, no interpolated ones')
        fine = self.network.restore(self.normalise(image)) * self.scale + self.band_mean  # type: ignore[operator]
        return self.spec.clamped(fine)

    @plain_torch()
    @torch.no_grad()
    def super_resolve(self, image: Tensor, tile: int = 64, out: Tensor | np.ndarray | None = None) -> Tensor:
        """Super-resolve an image of any size, tile by tile.

        Tiles are read with the surroundings that the network sees, so that there are no seams. Besides image and
        result, only one tile is in memory at a time.

        Args:
            image: (C, h, w) in the dataset's unit, on any device. To pass a numpy array or memory map without a copy,
                use :func:`torch.from_numpy`.
            tile: side of a tile in pixels of the input.
            out: (C, kh, kw) float32 to write the result to: a tensor on any device, or a numpy array, such as a memory
                map of ``np.lib.format.open_memmap`` if the result is larger than memory.

        Returns:
            (C, kh, kw) float32, a tensor that shares the memory of ``out`` if given, else on the image's device.

        Raises:
            ValueError: if image or ``out`` has the wrong shape, or the tile is smaller than its surroundings.
        """
        margin = int(self.network.margin)  # type: ignore[arg-type]
        if image.ndim != 3 or len(image) != self.spec.bands:
            raise ValueError(f'MSRResGAN: an image ({self.spec.bands}, h, w) is needed, found {tuple(image.shape)}')
        if not all(
            bool(torch.isfinite(band).all()) for band in image
        ):  # a copy of all would not fit in memory with the image
            raise ValueError('MSRResGAN: the image holds NaN or infinite values, which would spread; fill them')
        height, width = image.shape[1:]
        if tile < min(margin, max(height, width)):
            raise ValueError(
                f'MSRResGAN: tiles of {tile} pixels are smaller than the {margin} pixels around them that the network '
                f'looks at; take {2 * margin} or more'
            )
        k = self.factor
        shape = (len(image), k * height, k * width)
        if isinstance(out, np.ndarray) and not out.flags.writeable:
            raise ValueError('MSRResGAN: out is read-only; open it for writing, a memory map with mode r+ or w+')
        result = torch.empty(shape, device=image.device) if out is None else torch.as_tensor(out)
        if result.shape != shape or result.dtype != torch.float32:
            raise ValueError(
                f'MSRResGAN: out must be {shape} of float32 at a factor of {k}, found {tuple(result.shape)} of '
                f'{result.dtype}'
            )
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                bottom, right = min(top + tile, height), min(left + tile, width)
                above, before = max(top - margin, 0), max(left - margin, 0)
                window = image[:, above : bottom + margin, before : right + margin]
                fine = self(window[None].to(self.device, torch.float32))[0]
                down, across = k * (top - above), k * (left - before)
                fine = fine[:, down : down + k * (bottom - top), across : across + k * (right - left)]
                result[:, k * top : k * bottom, k * left : k * right] = fine.to(result.device)
        return result

    # --- augmentation -----------------------------------------------------------------------------------------------

    @plain_torch()
    @torch.no_grad()
    def augment(self, batch: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        """Alter a batch of samples.

        Args:
            batch: ``image`` (n, C, H, W) that matches the generator's spec, and ``mask`` (n, H, W) if the kind has one;
                other keys are kept.
            seed: seed of the windows and the noise; if None, fresh entropy is taken from torch's global generator.

        Returns:
            the batch with new ``image`` and ``mask``, on the same devices; images of whole numbers as float32.

        Raises:
            ValueError: if the images do not match the spec, or the masks the images.
        """
        image, mask = batch['image'], batch.get('mask')
        self.require_images(image)
        if mask is not None and mask.shape != (expected := (len(image), *image.shape[-2:])):
            raise ValueError(f'MSRResGAN: masks {expected} are needed with these images, found {tuple(mask.shape)}')
        with as_trained(self):
            altered, mask = self._alter(image.to(self.device, torch.float32), mask, None, stream(seed))
        # whole numbers would cut off fractions, and wrap around below 0
        dtype = image.dtype if image.is_floating_point() else torch.float32
        result = {**batch, 'image': altered.to(image.device, dtype)}
        return result if mask is None else {**result, 'mask': mask}

    def _alter(
        self, image: Tensor, mask: Tensor | None, labels: Tensor | None, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Altered images and masks; ``labels`` are classes that the masks hold and must still hold afterwards."""
        if len(image) == 0:
            return image, mask
        if self.augmentation == 'jitter':
            noise, low = self.noise * self.scale, degrade(padded(image, self.factor), self.factor, self.mtf)
            low = low + noise * torch.randn(low.shape, generator=rng).to(low)
        else:
            height, width = (-(-side // self.factor) for side in image.shape[-2:])
            corners = self._corners(image, mask, labels, rng)
            low = torch.stack([x[:, t : t + height, u : u + width] for x, (t, u) in zip(image, corners, strict=True)])
            if mask is not None:
                small = [y[t : t + height, u : u + width] for y, (t, u) in zip(mask, corners, strict=True)]
                mask = torch.stack(small).repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2)
                mask = mask[:, : image.shape[-2], : image.shape[-1]]
        return torch.cat([self(part) for part in low.split(CHUNK)])[..., : image.shape[-2], : image.shape[-1]], mask

    def _corners(
        self, image: Tensor, mask: Tensor | None, labels: Tensor | None, rng: torch.Generator
    ) -> list[tuple[int, int]]:
        """Upper-left corners of random windows, that hold a pixel of the label where there is one."""
        n, (height, width) = len(image), image.shape[-2:]
        draws = torch.rand((n, 3), generator=rng).double()
        if mask is not None and labels is not None:
            places = (mask.cpu() == labels[:, None, None]).flatten(1).double().cumsum(dim=1).contiguous()
            pixel = torch.searchsorted(places, draws[:, :1] * places[:, -1:], right=True)[:, 0]
        else:
            pixel = torch.full((n,), height // 2 * width + width // 2)
        bound = labels is not None or self.spec.kind == 'scene'
        corners = []
        for side, at, draw in ((height, pixel // width, draws[:, 1]), (width, pixel % width, draws[:, 2])):
            extent = -(-side // self.factor)
            low = (at - extent + 1).clamp_min(0) if bound else torch.zeros_like(at)
            high = at.clamp_max(side - extent) if bound else torch.full_like(at, side - extent)
            corners.append((low + (draw * (high - low + 1)).long()).tolist())
        return list(zip(*corners, strict=True))

    def shares(self) -> Tensor:
        """(N, K) share of each class in the counting pixels of each training sample, on the CPU."""
        return self.made_of('target', lambda target: class_fractions(target.cpu(), self.spec))

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        self.require_trained(len(self.image))
        rows = sent(pairs_that_hold(labels, self.shares(), rng), self.device)
        masks = self.target[rows] if self.spec.kind == 'segmentation' else None
        image, mask = self._alter(self.image[rows], masks, labels, rng)
        return {'image': image} if mask is None else {'image': image, 'mask': mask}
