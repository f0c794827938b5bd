"""The super-resolving networks by name, all from (n, C, h, w) to (n, C, kh, kw)."""

from __future__ import annotations

from typing import Literal, get_args

from .network import MSRResNet
from .srcnn import SRCNN, Bicubic
from .srgan import SRResNet

SuperResolver = Bicubic | SRCNN | SRResNet | MSRResNet
Network = Literal['msrresgan', 'msrresnet', 'srgan', 'srcnn', 'bicubic']

BLOCKS = {'msrresgan': 9, 'msrresnet': 9, 'srgan': 16}
ADVERSARIAL = ('msrresgan', 'srgan')
"""Networks that are trained with a discriminator."""


def super_resolver(name: Network, bands: int, factor: int, width: int = 64, blocks: int | None = None) -> SuperResolver:
    """Make a network.

    Args:
        name: ``'msrresgan'`` has the gradient network and a discriminator in training, ``'msrresnet'`` neither;
            ``'srgan'``, ``'srcnn'`` and ``'bicubic'`` are the baselines.
        bands: number of bands C.
        factor: between the resolutions, 2 to 5.
        width: kernels per layer, of the residual networks.
        blocks: residual blocks; the published number if None.
    """
    if name not in get_args(Network):
        raise ValueError(f'unknown super-resolution network {name!r}; choose from {get_args(Network)}')
    if name == 'bicubic':
        return Bicubic(factor)
    if name == 'srcnn':
        return SRCNN(bands, factor)
    blocks = BLOCKS[name] if blocks is None else blocks
    if name == 'srgan':
        return SRResNet(bands, factor, width, blocks)
    return MSRResNet(bands, factor, width, blocks, gradient=name == 'msrresgan')
