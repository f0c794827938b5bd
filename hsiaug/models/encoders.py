"""Encoders of segmentation networks, by name from segmentation-models-pytorch, and small ones for studies on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from segmentation_models_pytorch.encoders import encoders, get_encoder
from segmentation_models_pytorch.encoders.mix_transformer import LayerNorm, MixVisionTransformerEncoder
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock  # type: ignore[import-untyped]

MIX_STRIDE = 32
"""Sides of a mix transformer's input divide by this."""
_TINY: dict[str, Any] = {
    'embed_dims': [32, 48, 64, 96], 'num_heads': [1, 1, 2, 3], 'depths': [1, 1, 1, 1], 'sr_ratios': [4, 2, 1, 1],
    'mlp_ratios': [2, 2, 2, 2], 'qkv_bias': True, 'drop_path_rate': 0.0, 'norm_layer': partial(LayerNorm, eps=1e-6),
}  # fmt: skip


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


def mix_transformer(owner: str, name: str, bands: int, weights: str | None, **others: Callable[[], Any]) -> Any:
    """A mix transformer: ``'mit_b0'`` to ``'mit_b5'``, ``'mit_tiny'``, or what one of ``others`` makes.

    The last two have no ``weights``; of the others see :func:`~hsiaug.models.encoders.named_encoder`.
    """
    tiny: Any = partial(MixVisionTransformerEncoder, [3, 0, *_TINY['embed_dims']], in_chans=bands, **_TINY)
    made: dict[str, Callable[[], Any]] = {**others, 'mit_tiny': tiny}
    if name in made:
        _require_no(weights, owner, name)
        return made[name]()
    if name.startswith('mit_'):
        return named_encoder(owner, name, bands, weights)
    raise ValueError(f'{owner}: unknown encoder {name!r}; choose from {[*made, *(f"mit_b{i}" for i in range(6))]}')


def resnet_encoder(owner: str, backbone: str, channels: int, weights: str | None, stride: int, usual: str) -> Any:
    """A ResNet dilated to an output stride, or ``'resnet_tiny'``, small enough for a CPU, whose stride is its own.

    ``owner``, the network that asks, and the backbone that it has by default are named in errors.

    Raises:
        ValueError: for an unknown backbone or weights.
        ConnectionError: if weights cannot be fetched.
    """
    if not backbone.startswith('resnet'):
        raise ValueError(f"{owner}: the backbone is a ResNet, such as {usual!r} or 'resnet_tiny', found {backbone!r}")
    if backbone != 'resnet_tiny':
        return named_encoder(owner, backbone, channels, weights, output_stride=stride)
    _require_no(weights, owner, backbone)
    return _TinyResNet(channels)


def _require_no(weights: str | None, owner: str, name: str) -> None:
    if weights is not None:
        raise ValueError(f'{owner}: {name!r} has no weights, found {weights!r}; use None')


def conv_block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, but for its stride, batch normalisation and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _TinyResNet(nn.Module):
    """A narrow dilated ResNet with one basic block per stage, of the same strides as the large ones."""

    out_channels = (0, 32, 32, 64, 96, 128)

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        widths, strides, dilations = self.out_channels[1:], (2, 2, 1, 1), (1, 1, 2, 4)
        self.stem = conv_block(in_channels, widths[0], 3, stride=2)
        self.stages = nn.ModuleList()
        for inputs, outputs, stride, dilation in zip(widths[:-1], widths[1:], strides, dilations, strict=True):
            skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            stage = BasicBlock(inputs, outputs, stride, skip)
            for conv in (stage.conv1, stage.conv2):  # the block's own argument refuses dilation
                conv.dilation = conv.padding = (dilation, dilation)
            self.stages.append(stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The input, and features of strides 2, 4, 8, 8, 8."""
        features = [x, self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features
