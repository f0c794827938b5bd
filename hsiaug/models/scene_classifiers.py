"""Classifiers of whole images by name: AlexNet, VGG-16, ResNet-18 on any number of bands, and CNNs of small patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import nn
from torchvision import models  # type: ignore[import-untyped]

from .patch_cnn import PatchCNN

SceneModel = Literal['alexnet', 'vgg16', 'resnet18', 'cnn2d', 'cnn3d']
LEAST_SIDE: dict[str, int] = {'alexnet': 63, 'vgg16': 32, 'resnet18': 8, 'cnn2d': 4, 'cnn3d': 4}
"""Least side of an image that a network takes."""
_NARROW = (1, 2, 4, 8, 16)


def scene_classifier(
    name: SceneModel,
    bands: int,
    num_classes: int,
    size: tuple[int, int],
    narrow: int = 1,
    dropout: float = 0.0,
    upsampling: int = 1,
) -> nn.Module:
    """An untrained classifier of images.

    ``'alexnet'`` (Krizhevsky 2014, https://arxiv.org/abs/1404.5997), ``'vgg16'`` (Simonyan and Zisserman 2015,
    https://arxiv.org/abs/1409.1556) and ``'resnet18'`` (He et al. 2016, https://arxiv.org/abs/1512.03385) are
    torchvision's, with a first layer for these bands and a last one for these classes. ``'cnn2d'`` and ``'cnn3d'`` are
    :class:`~hsiaug.models.patch_cnn.PatchCNN`, for patches of a few pixels.

    Args:
        name: see above.
        bands: number of bands C.
        num_classes: number of classes K.
        size: (H, W) of the images.
        narrow: factor by which channels are reduced in every layer: 1 is the published network, 8 a compact form for
            studies on a CPU, with about 64 times fewer weights. Not for the patch CNNs, which are small.
        dropout: dropout where the published network has it, or before the last layer of ResNet-18 and the CNNs.
        upsampling: factor by which images are enlarged first, bilinearly, since the large networks need large images.

    Returns:
        network from (n, C, H, W) to logits (n, K).

    Raises:
        ValueError: for an unknown name, a setting out of its range, or images that are too small.
    """
    if name not in get_args(SceneModel):
        raise ValueError(f'scene_classifier: unknown name {name!r}; choose from {get_args(SceneModel)}')
    if upsampling < 1 or not 0 <= dropout < 1:
        raise ValueError(
            f'scene_classifier: upsampling from 1 and dropout in [0, 1) are needed, found {upsampling} and {dropout}'
        )
    enlarged = (size[0] * upsampling, size[1] * upsampling)
    if min(enlarged) < (least := LEAST_SIDE[name]):
        raise ValueError(
            f'scene_classifier: {name!r} needs sides of at least {least} pixels, found {enlarged[0]} x {enlarged[1]}; '
            f"enlarge them with upsampling={-(-least // min(size))}, or choose 'cnn2d' or 'cnn3d'"
        )
    if name in ('cnn2d', 'cnn3d'):
        if narrow != 1:
            raise ValueError(f'scene_classifier: narrow is for the large networks, found {narrow} for {name!r}')
        network: nn.Module = PatchCNN(bands, num_classes, enlarged, 3 if name == 'cnn3d' else 2, dropout=dropout)
    else:
        if narrow not in _NARROW:
            raise ValueError(f'scene_classifier: narrow must be one of {_NARROW}, found {narrow}')
        network = _published(name, bands, num_classes, narrow, dropout)
    if upsampling == 1:
        return network
    return nn.Sequential(nn.Upsample(scale_factor=upsampling, mode='bilinear'), network)


def _published(name: str, bands: int, num_classes: int, narrow: int, dropout: float) -> nn.Module:
    build: Callable[..., Any] = getattr(models, name)
    options = {} if name == 'resnet18' else {'dropout': dropout}
    with torch.device('meta'):  # only its layout is needed: every layer with weights is replaced
        network: nn.Module = build(weights=None, num_classes=num_classes, **options)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    _narrow(network, narrow, bands, (layers[0], layers[-1]))
    if name == 'resnet18':
        network.fc = nn.Sequential(nn.Dropout(dropout), network.fc)  # type: ignore[arg-type]
    if name != 'alexnet':  # as torchvision does; AlexNet has the layers' own initialisation
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    return network


def _narrow(network: nn.Module, factor: int, bands: int, ends: tuple[nn.Module, nn.Module]) -> None:
    """Replace layers by narrower ones; of the ``ends`` the first takes all bands, the last gives all outputs."""
    for name, module in network.named_children():
        if isinstance(module, nn.Conv2d):
            inside = bands if module is ends[0] else module.in_channels // factor
            fresh: nn.Module = nn.Conv2d(
                inside, module.out_channels // factor, module.kernel_size, module.stride, module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )  # fmt: skip
        elif isinstance(module, nn.Linear):
            outside = module.out_features // (1 if module is ends[1] else factor)
            fresh = nn.Linear(module.in_features // factor, outside)
        elif isinstance(module, nn.BatchNorm2d):
            fresh = nn.BatchNorm2d(module.num_features // factor)
        else:
            _narrow(module, factor, bands, ends)
            continue
        setattr(network, name, fresh)
