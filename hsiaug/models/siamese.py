"""Common parts of networks on two dates: one encoder for both dates, and images with sides of any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..functional.degradation import padded


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """(n, C, h, w) brought to another size, bilinear."""
    return x if tuple(x.shape[-2:]) == tuple(size) else interpolate(x, tuple(size), mode='bilinear')


def enlarge(image: Tensor, multiple: int, upsampling: int = 1) -> Tensor:
    """(n, 2, C, H, W) enlarged by a factor, then padded at the far ends to sides that divide by ``multiple``.

    Raises:
        ValueError: if these are not pairs of dates.
    """
    if image.ndim != 5 or image.shape[1] != 2:
        raise ValueError(f'two dates (n, 2, C, H, W) expected, found {tuple(image.shape)}')
    dates = image.flatten(0, 1)
    dates = resize(dates, [side * upsampling for side in image.shape[-2:]])
    return padded(dates, multiple).unflatten(0, (-1, 2))


def to_pixels(x: Tensor, image: Tensor, multiple: int, upsampling: int = 1) -> Tensor:
    """A map (n, K, h, w) of any resolution brought to the pixels of the image that :func:`enlarge` took."""
    enlarged = [side * upsampling for side in image.shape[-2:]]
    whole = [-(-side // multiple) * multiple for side in enlarged]
    return resize(resize(x, whole)[..., : enlarged[0], : enlarged[1]], image.shape[-2:])


def date_features(encoder: Any, image: Tensor, multiple: int, upsampling: int = 1) -> list[Tensor]:
    """Features of both dates (n, 2, c, h, w), fine to coarse, from one encoder of segmentation-models-pytorch.

    The dates (n, 2, C, H, W) pass through the encoder as one batch, so that its batch normalisation treats both
    equally, in training and afterwards. Its first two outputs, the input and the stem, are left out. For the input, see
    :func:`enlarge`.
    """
    dates = enlarge(image, multiple, upsampling).flatten(0, 1)
    return [feature.unflatten(0, (-1, 2)) for feature in encoder(dates)[2:]]


class AnySides(nn.Module):
    """A network on two dates, such as torchgeo's, for images with sides of any length, enlarged by a factor.

    The network wants (n, 2, C, H, W) with sides that divide by ``multiple``.
    """

    def __init__(self, network: nn.Module, multiple: int = 32, upsampling: int = 1) -> None:
        super().__init__()
        self.network, self.multiple, self.upsampling = network, multiple, upsampling

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W) of images (n, 2, C, H, W)."""
        logits = self.network(enlarge(image, self.multiple, self.upsampling))
        return to_pixels(logits, image, self.multiple, self.upsampling)
