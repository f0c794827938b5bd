"""Images, and image-mask pairs, from generated abundances and the endmembers of a scene.

Yu et al., "Unmixing before Fusion: A Generalized Paradigm for Multi-Source-based Hyperspectral Image Synthesis", CVPR
2024. We add masks: class maps derived from the abundances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...functional.dates import without_ignored
from ...functional.plain import plain_torch
from ...models.patch_encoder import PatchEncoder
from ...samples import SampleSpec
from ...settings import COUNT, NOT_NEGATIVE, Range
from ..base import Generator, TrainingData, own_settings, register
from .abundances.config import abundance_model
from .unmixing.network import UnmixingNetwork

Masks = Literal['classifier', 'dominant']
NoiseFrom = Literal['residual', 'differences']
CHUNK = 64  # images mixed at a time
EXPLAINED = 0.999  # share of the residual's variance that is kept


@register('unmixing_fusion')
class UnmixingFusion(Generator):
    """Images HSI = E · A + ε, with endmembers E of the training images, generated abundances A, and noise ε.

    The abundances are learnt from those that an unmixing network finds in the training images and, for more spatial
    diversity, in RGB images of similar scenes. ε is normal and independent for each pixel, with a covariance between
    bands taken from the unmixing residual of the training images. The paper does not define ε; our options are the
    covariance of the residual itself (``'residual'``), or half that of the differences between neighbouring pixels
    (``'differences'``; Green et al., IEEE TGRS 26(1), 1988). The residual also contains materials that no endmember
    represents; they are smooth in space, and turn into salt-and-pepper noise if drawn pixel by pixel.

    For kind ``'scene'``, a label is the class of an image. For kind ``'segmentation'``, it is a class that the mask
    should contain: the abundances are conditioned on it, and training images count for each class by its share in them.
    The paper's generator has no classes: with ``conditional=False``, samples resemble any of the learnt maps, including
    those of RGB images without a class; labels are drawn, but have no effect. Masks are derived from the abundances,
    before ε: by a small convolutional classifier trained on the training masks (``'classifier'``), or, if classes are
    materials, by the most abundant endmember, assigned to the class of most of its training pixels (``'dominant'``).
    No pixel of them is ignored.

    Args:
        spec: spec of the samples, of kind ``'scene'`` or ``'segmentation'``, square.
        endmembers: number of endmembers k.
        inputs: number of bands used by the unmixing network: 3, or all.
        widths: channels of its layers.
        kind: generator of abundances, see :func:`~hsiaug.systems.unmixing_fusion.abundances.abundance_model`.
        network: settings of that generator.
        masks: see above.
        noise: standard deviation of ε, relative to that of the residual; 0 for none.
        noise_from: see above.
        variability: standard deviation of a random gain of each endmember in each sample, as in the extended linear
            mixing model (Drumetz et al., IEEE TIP 25(8), 2016); 0 for fixed endmembers.
        conditional: see above.

    Raises:
        ValueError: if a setting is invalid.
    """

    ranges: ClassVar = {
        'endmembers': Range(2), 'inputs': COUNT, 'widths': COUNT, 'noise': NOT_NEGATIVE, 'variability': NOT_NEGATIVE,
    }  # fmt: skip
    kinds: ClassVar = ('scene', 'segmentation')
    fitted: ClassVar[tuple[str, ...]] = ('residual',)
    unlabelled = ('alike',)
    residual: Tensor  # (C, r) a factor of the residual's covariance
    class_of: Tensor  # (k,) class that each endmember stands for

    def __init__(
        self,
        spec: SampleSpec,
        endmembers: int = 5,
        inputs: int = 3,
        widths: Sequence[int] = (32, 64, 128, 96, 48),
        kind: str = 'diffusion',
        network: Mapping[str, Any] | None = None,
        masks: Masks = 'classifier',
        noise: float = 1.0,
        variability: float = 0.0,
        noise_from: NoiseFrom = 'differences',
        conditional: bool = True,
    ) -> None:
        super().__init__(spec, **own_settings(locals()) | {'network': dict(network or {})})
        height, width = spec.image_shape[-2:]
        if height != width:
            raise ValueError(f'UnmixingFusion: makes square images, found a size of {height} x {width}')
        self.noise_from, self.noise, self.variability = noise_from, noise, variability
        self.unmixing = UnmixingNetwork(torch.zeros(inputs, spec.bands), endmembers, widths)
        labels = spec.num_classes if conditional else 0
        self.abundances = abundance_model(kind, endmembers, height, labels, **self.settings['network'])
        self.classifier = (
            PatchEncoder(endmembers, spec.num_classes)
            if spec.kind == 'segmentation' and masks == 'classifier'
            else None
        )
        self.register_buffer('class_of', torch.zeros(endmembers, dtype=torch.int64))

    @plain_torch()
    @torch.no_grad()
    def observe(self, data: TrainingData) -> Tensor:
        """Take the residual of the training images and, of those with masks, the classes of the endmembers.

        Returns:
            (N, k, s, s) abundances of the training images, on the CPU.
        """
        moments, count = torch.zeros(self.spec.bands, self.spec.bands, dtype=torch.float64), 0
        hits = torch.zeros(self.unmixing.num_endmembers, self.spec.num_classes, dtype=torch.int64)
        found = []
        for image, y in zip(data.x.split(CHUNK), data.y.split(CHUNK), strict=True):
            abundances = self.unmixing.abundances(image)
            found.append(abundances.cpu())
            rest = (image - self.unmixing.mix(abundances).cpu()).movedim(1, -1).double()
            rough = [rest.diff(dim=1) / 2**0.5, rest.diff(dim=2) / 2**0.5]
            for part in (x.flatten(0, 2) for x in (rough if self.noise_from == 'differences' else [rest])):
                moments += part.T @ part
                count += len(part)
            if self.spec.kind == 'segmentation':
                counts = self.spec.counted(y)
                pairs = abundances.argmax(dim=1).cpu()[counts] * self.spec.num_classes + y[counts]
                hits += torch.bincount(pairs, minlength=hits.numel()).view_as(hits)
        values, vectors = np.linalg.eigh((moments / count).numpy())
        values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        kept = 1 + int(np.searchsorted(np.cumsum(values), EXPLAINED * values.sum()))
        factor = vectors[:, :kept] * np.sqrt(values[:kept])
        self.residual = torch.tensor(factor, dtype=torch.float32, device=self.device)
        self.class_of.copy_(hits.argmax(dim=1))
        return torch.cat(found)

    @torch.no_grad()
    def class_map(self, abundances: Tensor) -> Tensor:
        """(n, H, W) int64 masks of (n, k, H, W) abundances."""
        if self.classifier is None:
            return self.class_of[abundances.argmax(dim=1)]
        logits = (without_ignored(self.classifier.logits(part), self.spec) for part in abundances.split(CHUNK))
        return torch.cat([each.argmax(dim=1) for each in logits])

    @torch.no_grad()
    def compose(self, abundances: Tensor, rng: torch.Generator) -> Tensor:
        """(n, C, H, W) images in the dataset's unit of (n, k, H, W) abundances, all randomness from ``rng``."""
        parts = []
        for part in abundances.split(CHUNK):
            if self.variability:
                gain = 1 + self.variability * torch.randn((*part.shape[:2], 1, 1), generator=rng)
                part = part * gain.clamp_min(0).to(part)
            image = self.unmixing.mix(part)
            if self.noise:
                shape = (len(part), self.residual.shape[1], *part.shape[2:])
                draw = torch.randn(shape, generator=rng).to(part)
                image = image + self.noise * torch.einsum('cr,nrhw->nchw', self.residual, draw)
            parts.append(self.spec.clamped(image))
        return torch.cat(parts)

    @plain_torch()
    @torch.no_grad()
    def unmixed_and_remixed(self, image: Tensor) -> dict[str, Tensor]:
        """Images (n, C, H, W) unmixed and mixed again without ε, with their class maps: the best it can do."""
        abundances = self.unmixing.abundances(image)
        mixed = torch.cat([self.unmixing.mix(part) for part in abundances.split(CHUNK)])
        return {'image': mixed} | ({'mask': self.class_map(abundances)} if self.spec.kind == 'segmentation' else {})

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        self.require_trained(len(self.residual))
        abundances = self.abundances.sample(len(labels), labels, rng)
        image = self.compose(abundances, rng)
        return {'image': image} | ({'mask': self.class_map(abundances)} if self.spec.kind == 'segmentation' else {})
