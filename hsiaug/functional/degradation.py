"""From high to low resolution and back: a sensor's blur, decimation and noise, and bicubic interpolation.

Both directions keep the grids aligned: pixel i of the low-resolution image covers pixels k·i to k·i + k − 1 of the
high-resolution one, so their centres coincide at any factor k, even or odd.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

FACTORS = (2, 3, 4, 5)
_REACH = 3.5  # standard deviations that the kernel covers


def require_factor(factor: int, who: str) -> None:
    """Refuse, by a ValueError, a factor between two resolutions that is not one of 2 to 5: 1 restores nothing."""
    if factor not in FACTORS:
        raise ValueError(f'{who}: the factor between the resolutions must be one of {FACTORS}, found {factor!r}')


def mtf_sigma(factor: int, mtf: float) -> float:
    """Standard deviation, in high-resolution pixels, of a Gaussian blur with a given MTF at a factor k.

    The transfer of a Gaussian is exp(−2π²σ²f²), and the Nyquist frequency of the low resolution, at which the MTF is
    given, is 1 / (2k). Imaging spectrometers have 0.2 to 0.4.

    Raises:
        ValueError: if ``mtf`` is not between 0 and 1.
    """
    if not 0 < mtf < 1:
        raise ValueError(f'the MTF at Nyquist must be between 0 and 1, found {mtf}')
    return factor / math.pi * math.sqrt(-2 * math.log(mtf))


@lru_cache  # copying it for each batch would make the CPU wait for the GPU
@torch.inference_mode(False)
def _kernel(factor: int, mtf: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weights of a low-resolution pixel along one side, of odd length if the factor is odd and else of even length."""
    sigma = mtf_sigma(factor, mtf)
    margin = math.ceil(max(0.0, _REACH * sigma - factor / 2))
    length = factor + 2 * margin
    offset = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
    weights = torch.exp(-offset.square() / (2 * sigma**2))
    return (weights / weights.sum()).to(device, dtype)


def degrade(
    image: Tensor, factor: int, mtf: float = 0.3, noise: float | Tensor = 0.0, rng: torch.Generator | None = None
) -> Tensor:
    """The image of a sensor with a k times coarser ground sampling distance: blur by its MTF, decimation, noise.

    Args:
        image: (n, C, H, W) with sides divisible by the factor. Beyond the borders, the last pixels are repeated.
        factor: factor k.
        mtf: MTF of the coarser sensor at its own Nyquist frequency, see :func:`mtf_sigma`.
        noise: standard deviation of white noise in the image's unit, one number or (C,).
        rng: random generator of the noise, on the image's device.

    Returns:
        (n, C, H/k, W/k).

    Raises:
        ValueError: if the factor does not divide the sides, or noise is negative.
    """
    require_factor(factor, 'degrade')
    height, width = image.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(
            f'degrade: sides of {height} x {width} pixels do not divide by the factor {factor}; crop the image to '
            f'{height - height % factor} x {width - width % factor}'
        )
    kernel = _kernel(factor, mtf, image.device, image.dtype)
    margin = (len(kernel) - factor) // 2
    flat = pad(image.flatten(0, 1)[:, None], (margin,) * 4, mode='replicate')
    flat = conv2d(
        conv2d(flat, kernel.view(1, 1, -1, 1), stride=(factor, 1)), kernel.view(1, 1, 1, -1), stride=(1, factor)
    )
    low = flat.view(*image.shape[:2], height // factor, width // factor)
    level = torch.as_tensor(noise, dtype=image.dtype)
    if (level < 0).any():
        raise ValueError(f'degrade: noise must not be negative, found {float(level.min())}')
    if not level.any():
        return low
    level = level.to(image.device, non_blocking=True).reshape(-1, 1, 1)
    return low + level * torch.randn(low.shape, generator=rng, device=low.device, dtype=low.dtype)


def padded(image: Tensor, factor: int) -> Tensor:
    """(n, C, H', W') of (n, C, H, W), the last row and column repeated until the factor divides the sides."""
    down, right = (-side % factor for side in image.shape[-2:])
    return pad(image, (0, right, 0, down), mode='replicate') if down or right else image


def upsample(image: Tensor, factor: int) -> Tensor:
    """(n, C, kH, kW) by bicubic interpolation of (n, C, H, W)."""
    require_factor(factor, 'upsample')
    # The antialiased kernel is Keys' with a = −½, which keeps ramps as they are; the other one's a = −¾ does not.
    size = [factor * side for side in image.shape[-2:]]
    return interpolate(image, size=size, mode='bicubic', align_corners=False, antialias=True)
