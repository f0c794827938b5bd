"""Encoders of segmentation networks: by name from segmentation-models-pytorch, and sides that they take."""

from __future__ import annotations

from typing import Any

from segmentation_models_pytorch.encoders import encoders, get_encoder
from torch import Tensor
from torch.nn.functional import pad


def named_encoder(owner: str, name: str, in_channels: int, weights: str | None, **options: Any) -> Any:
    """An encoder of segmentation-models-pytorch.

    Args:
        owner: the network that asks, for errors.
        name: for example ``'mit_b0'`` or ``'resnet50'``.
        in_channels: channels of its input.
        weights: for example ``'imagenet'``, fetched from the Hugging Face hub; None trains from scratch.
        options: of ``get_encoder``.

    Raises:
        ValueError: for an unknown encoder or unknown weights.
        ConnectionError: if the weights cannot be fetched.
    """
    if name not in encoders:
        alike = [known for known in encoders if known[:3] == name[:3]] or list(encoders)
        raise ValueError(f'{owner}: unknown encoder {name!r}; choose from {sorted(alike)}')
    known_weights = list(encoders[name]['pretrained_settings'])
    if weights is not None and weights not in known_weights:
        raise ValueError(f'{owner}: unknown weights {weights!r} for {name!r}; choose from {known_weights} or None')
    try:
        return get_encoder(name, in_channels=in_channels, weights=weights, **options)
    except OSError as error:
        raise ConnectionError(
            f'{owner}: the weights {weights!r} of {name!r} are not in the local cache, and the Hugging Face hub is out '
            f'of reach ({type(error).__name__}); weights=None trains from scratch'
        ) from error


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """(n, C, H, W) with its last rows and columns repeated until both sides divide by ``multiple``."""
    height, width = image.shape[-2:]
    missing = (-height % multiple, -width % multiple)
    return pad(image, (0, missing[1], 0, missing[0]), mode='replicate') if any(missing) else image
