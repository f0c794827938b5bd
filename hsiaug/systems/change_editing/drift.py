"""What differs between two dates where nothing changed: season, light and noise, by class, band and place."""

from __future__ import annotations

import numpy as np
import torch
from kornia.filters import gaussian_blur2d
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import one_hot

from ...functional.orientations import turn
from ...functional.scaling import band_scale
from ...streams import shuffled
from ..buffers import BufferedModule

FEW = 50.0
"""Pixels' worth of doubt whether a class differs from the others; it keeps rare ones from running wild."""
TRIMMED = 0.05
"""Share of pixels that a trimmed fit takes for changed: those farthest from the others."""
LEAST_COUNTED = 0.5
"""Share of pixels that must count for a patch to lend its residuals."""
NEAREST = 8
"""Patches, of the most similar land cover, among which the one that lends its residuals is drawn."""
SMALLEST = 5
"""Sides of images, in pixels, that :func:`detail` can blur."""
MAX_VALUES = 2**24
"""Values of one date that a fit uses, and keeps; patches beyond it are left out at random."""


class DateDrift(BufferedModule):
    r"""A linear map per class and band, and residuals of other patches.

    Of a pixel of class k, :math:`x_2 = g_k x_1 + d_k u_1 + o_k + r`, where u is the detail of the first date: what a
    blur takes away. Gains g and d and offset o are a regression over unchanged pixels. Without d it could not tell that
    texture, which belongs to the land, stays, while light, which varies over more pixels, does not: differences would
    come out rough. Classes blend over a pixel's width, as spectra do at borders, in the regression as well. Residuals r
    are those of a patch of similar land cover, turned at random: clouds, fields that were mown and the noise of a
    sensor come in their own sizes and shapes. (Random fields with the covariance of residuals over bands and places
    were tried: what is rare and large in a few patches becomes noise in all.)
    """

    fitted = ('residuals', 'cover')
    gain: Tensor  # (K, C)
    detail_gain: Tensor  # (K, C)
    offset: Tensor  # (K, C)
    residuals: Tensor  # (P, C, H, W)
    cover: Tensor  # (P, K) class shares of their patches

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        for name, value in (('gain', 1.0), ('detail_gain', 0.0), ('offset', 0.0)):
            self.register_buffer(name, torch.full((classes, bands), value))

    # --- fits -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit(self, first: Tensor, second: Tensor, classes: Tensor, trimmed: bool = False, seed: int = 0) -> None:
        """Learn from dates, (N, C, H, W) each, and the (N, H, W) class of each pixel that did not change, or -1.

        Where the pairs may hold changes, ``trimmed`` leaves the pixels that fit worst out. The seed is that of the
        choice of pairs, where there are very many.
        """
        first, second, classes = _some((first, second, classes), seed)
        weights, texture, counted = self._blend(classes), detail(first), classes >= 0
        _require_any(counted)
        self._regress(first, texture, second, weights, counted)
        residual = second - self._linear(first, texture, weights)
        if trimmed:
            std = residual.movedim(1, -1)[counted].std(dim=0).clamp_min(1e-12)
            far = (residual / std[:, None, None]).square().sum(dim=1)
            limit = far[counted].kthvalue(max(round((1 - TRIMMED) * int(counted.sum())), 1)).values
            counted = counted & (far <= limit)
            self._regress(first, texture, second, weights, counted)
            residual = second - self._linear(first, texture, weights)
        self._keep(residual, classes, counted)

    @torch.no_grad()
    def assume(self, image: Tensor, classes: Tensor, strength: float, seed: int = 0) -> None:
        """Take a drift from single dates (N, C, H, W) and their classes (N, H, W), where no pair is known.

        A second date then is as far from its class mean as the first, and goes with it as far as a ``strength`` s in
        [0, 1] lets it: of the deviation from the mean, √(1 − s²) stays, and s times that of another patch is added.
        Season, which shifts whole classes, cannot be known from one date and is left out.
        """
        image, classes = _some((image, classes), seed)
        counted, weights = classes >= 0, self._blend(classes)
        _require_any(counted)
        members, pixels = (part.movedim(1, -1)[counted].double() for part in (weights, image))
        mean = _class_means(members, pixels).to(image)
        self.gain.fill_((1 - strength**2) ** 0.5)
        self.detail_gain.zero_()
        self.offset.copy_((1 - self.gain) * mean)
        self._keep(strength * (image - torch.einsum('nkhw,kc->nchw', weights, mean)), classes, counted)

    def _regress(self, first: Tensor, texture: Tensor, second: Tensor, weights: Tensor, counted: Tensor) -> None:
        """Fit the coefficients: those of all classes together, then how each class differs, by ridge regression."""
        members = weights.movedim(1, -1)[counted].double()
        values = first.movedim(1, -1)[counted].double()
        within = values - members @ _class_means(members, values)
        scales = band_scale(values.mean(dim=0), within.std(dim=0, correction=0))
        for band, scale in enumerate(scales):
            x, u, y = (part[:, band][counted].double() for part in (first, texture, second))
            mean = _class_means(members, x)  # about which gains are taken, so that offsets don't hang on them
            expected = members @ mean
            terms = [torch.ones_like(x)[:, None], (x[:, None] - mean) / scale, u[:, None] / scale]
            design = torch.stack([members * term for term in terms], dim=2)  # (pixels, K, 3)
            target = (y - expected) / scale
            together = _ridge(design.sum(dim=1), target, 1e-6 * len(x))
            apart = _ridge(design.flatten(1), target - design.sum(dim=1) @ together, FEW).reshape(-1, 3)
            offset, gain, detail_gain = (together + apart).T
            self.gain[:, band], self.detail_gain[:, band] = gain.to(self.gain), detail_gain.to(self.gain)
            self.offset[:, band] = (scale * offset + (1 - gain) * mean).to(self.gain)

    def _keep(self, residual: Tensor, classes: Tensor, counted: Tensor) -> None:
        """Keep the residuals of patches where enough counts; pixels that don't take those of the nearest that does."""
        share = counted.float().mean(dim=(1, 2))
        rows = (share >= min(LEAST_COUNTED, float(share.max()))).nonzero().flatten()
        kept = []
        for field, where in zip(residual[rows], counted[rows], strict=True):
            row, column = distance_transform_edt(~where.numpy(), return_distances=False, return_indices=True)
            kept.append(field[:, torch.from_numpy(row).long(), torch.from_numpy(column).long()])
        self.residuals = torch.stack(kept).contiguous()
        self.cover = self._cover(classes[rows])

    def _members(self, classes: Tensor) -> Tensor:
        """(N, K, H, W) which class each pixel is of, 0 or 1; none where it has none."""
        members = one_hot(classes.clamp_min(0), self.classes) * (classes >= 0)[..., None]
        return members.movedim(-1, 1).to(self.gain)

    def _cover(self, classes: Tensor) -> Tensor:
        """(N, K) class shares of (N, H, W) classes, among the pixels that have one."""
        pixels = self._members(classes).sum(dim=(2, 3))
        return pixels / pixels.sum(dim=1, keepdim=True).clamp_min(1)

    def _blend(self, classes: Tensor) -> Tensor:
        """(N, K, H, W) weights of the classes, which add up to 1 wherever a class is near."""
        weights = soft(self._members(classes))
        return weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-6)

    def _linear(self, image: Tensor, texture: Tensor, weights: Tensor) -> Tensor:
        """What the regression makes of first dates."""
        gain, detail_gain, offset = (
            torch.einsum('nkhw,kc->nchw', weights, values) for values in (self.gain, self.detail_gain, self.offset)
        )
        return gain * image + detail_gain * texture + offset

    # --- draws ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, image: Tensor, classes: Tensor, rng: torch.Generator) -> Tensor:
        """Images (n, C, H, W), in the unit of the pairs and with classes (n, H, W), as a second date has them.

        All randomness comes from ``rng``, on the CPU.
        """
        few = min(NEAREST, len(self.cover))
        # On the CPU, and of equals the first: a seed means the same patch on every device.
        cover, known = (shares.double().cpu() for shares in (self._cover(classes), self.cover))
        near = (cover[:, None] - known).norm(dim=2).argsort(dim=1, stable=True)[:, :few]
        rows = near.gather(1, torch.randint(few, (len(image), 1), generator=rng))[:, 0]
        square = image.shape[-1] == image.shape[-2]
        turns = torch.randint(4, (len(image),), generator=rng) * (1 if square else 2)
        flips = torch.randint(2, (len(image),), generator=rng)
        drifted = self._linear(image, detail(image), self._blend(classes))
        for one, row, number in zip(drifted, rows.tolist(), (turns + 4 * flips).tolist(), strict=True):
            one += turn(self.residuals[row], number)
        return drifted


def soft(image: Tensor) -> Tensor:
    """(n, C, H, W) images, or indicators, under a Gaussian of 0.7 pixels, about as sharp as a sensor sees."""
    return gaussian_blur2d(image, (5, 5), (0.7, 0.7))


def detail(image: Tensor) -> Tensor:
    """What a Gaussian of 2 pixels takes away from (n, C, H, W) images: texture rather than light."""
    return image - gaussian_blur2d(image, (9, 9), (2.0, 2.0))


def _class_means(members: Tensor, value: Tensor) -> Tensor:
    """(K,) or (K, C) means of (pixels,) or (pixels, C) values over classes with weights (pixels, K)."""
    mean = value.mean(dim=0)
    return mean + _ridge(members, value - mean, FEW)


def _ridge(design: Tensor, target: Tensor, penalty: float) -> Tensor:
    """Coefficients of a ridge regression."""
    normal = design.T @ design + penalty * torch.eye(design.shape[1], dtype=design.dtype, device=design.device)
    return torch.linalg.solve(normal, design.T @ target)


def _require_any(counted: Tensor) -> None:
    if not counted.any():
        raise ValueError('DateDrift: no unchanged pixel of a known class in any patch; nothing can be learnt')


def _some(tensors: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """As many patches, drawn at random, as a fit uses."""
    most = max(MAX_VALUES // int(np.prod(tensors[0].shape[1:])), 1)
    if len(tensors[0]) <= most:
        return tensors
    rows = shuffled(len(tensors[0]), seed)[:most]
    return tuple(tensor[rows] for tensor in tensors)
