"""Encoders of segmentation networks, by name from segmentation-models-pytorch."""

from __future__ import annotations

from typing import Any

from segmentation_models_pytorch.encoders import encoders, get_encoder


def named_encoder(owner: str, name: str, in_channels: int, weights: str | None, **options: Any) -> Any:
    """An encoder of segmentation-models-pytorch, such as ``'mit_b0'`` or ``'resnet50'``.

    ``weights``, such as ``'imagenet'``, are fetched from the Hugging Face hub; None trains from scratch. ``options``
    are those of ``get_encoder``; ``owner``, the network that asks, is named in errors.

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
