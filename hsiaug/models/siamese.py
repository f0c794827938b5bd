"""What networks on two dates share: one encoder for both, and images with sides of any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from .encoders import pad_to_multiple


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """(n, C, h, w) brought to another size, bilinear."""
    return x if tuple(x.shape[-2:]) == tuple(size) else interpolate(x, tuple(size), mode='bilinear')


def enlarge(image: Tensor, multiple: int, upsampling: int = 1) -> Tensor:
    """(n, 2, C, H, W) enlarged by a factor, then padded at the far ends to sides that divide by ``multiple``.

    Raises:
        ValueError: if these are no pairs of dates.
    """
    if image.ndim != 5 or image.shape[1] != 2:
        raise ValueError(f'two dates (n, 2, C, H, W) expected, found {tuple(image.shape)}')
    dates = image.flatten(0, 1)
    dates = resize(dates, [side * upsampling for side in image.shape[-2:]])
    return pad_to_multiple(dates, multiple).unflatten(0, (-1, 2))


def to_pixels(x: Tensor, image: Tensor, multiple: int, upsampling: int = 1) -> Tensor:
    """A map (n, K, h, w) of any resolution brought to the pixels of the image that :func:`enlarge` took."""
    enlarged = [side * upsampling for side in image.shape[-2:]]
    padded = [-(-side // multiple) * multiple for side in enlarged]
    return resize(resize(x, padded)[..., : enlarged[0], : enlarged[1]], image.shape[-2:])


def date_features(encoder: Any, image: Tensor, multiple: int, upsampling: int = 1) -> list[Tensor]:
    """Features of both dates (n, 2, c, h, w), fine to coarse, from one encoder.

    The dates go through the encoder as one batch: its batch normalisation sees both alike, in training as later.

    Args:
        encoder: of segmentation-models-pytorch, whose first two outputs, the input and the stem, are left out.
        image: (n, 2, C, H, W).
        multiple: sides of the encoder's input divide by this.
        upsampling: the input is enlarged by this factor.
    """
    dates = enlarge(image, multiple, upsampling).flatten(0, 1)
    return [feature.unflatten(0, (-1, 2)) for feature in encoder(dates)[2:]]


class AnySides(nn.Module):
    """A network on two dates, such as torchgeo's, for images with sides of any length.

    Args:
        network: from (n, 2, C, H, W) with sides that divide by ``multiple`` to (n, K, H, W).
        multiple: see above.
        upsampling: the input is enlarged by this factor.
    """

    def __init__(self, network: nn.Module, multiple: int = 32, upsampling: int = 1) -> None:
        super().__init__()
        self.network, self.multiple, self.upsampling = network, multiple, upsampling

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K, H, W) of images (n, 2, C, H, W)."""
        logits = self.network(enlarge(image, self.multiple, self.upsampling))
        return to_pixels(logits, image, self.multiple, self.upsampling)
