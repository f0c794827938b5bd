"""Augmentation by a generator in an albumentations pipeline.

https://albumentations.ai/docs/ (version 2.0.8, the last one under the MIT licence)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..ratio import Schedule
from ..samples import SpecMismatchError
from .augment import Augmenter, SampleAugmenter
from .gated_albumentations import GatedTransform


class GeneratorAugmentation(GatedTransform):
    """Randomly let a generator alter a sample: image and mask by the same draw.

    ``image`` is (H, W, C) float32 in the generator's unit; ``mask`` is (H, W) or (H, W, n) of any dtype, which it
    keeps; pass masks with other names as ``additional_targets={'truth': 'mask'}``. Other values, such as a class label,
    do not change. Put it first in a ``Compose``, while images still have the size and unit of the generator's spec.

    For its random stream, see :class:`~hsiaug.transforms.gated_albumentations.GatedTransform`.

    A pipeline is saved without the generator: ``A.from_dict(saved, nonserializable={'GeneratorAugmentation': it})``.

    Args:
        generator: a generator with an ``augment`` method, for samples of kind ``'segmentation'`` or ``'scene'``. It
            runs on the CPU, sample by sample; augmenting batches may be faster.
        ratio, p: as for :class:`hsiaug.transforms.GeneratorAugmentation`; give one of them.

    Raises:
        TypeError: if the generator cannot alter samples of these kinds.
        ValueError: if not exactly one of ``ratio`` and ``p`` is given, or it is out of range.
    """

    changes = ('image', 'mask')

    def __init__(
        self, generator: SampleAugmenter, ratio: float | Schedule | None = None, p: float | None = None
    ) -> None:
        super().__init__(ratio, p)
        self.augmenter = Augmenter('GeneratorAugmentation', generator, ('segmentation', 'scene'))
        self.needed = {'image', 'mask'} if self.augmenter.spec.kind == 'segmentation' else {'image'}
        self.allowed = {'image', 'mask'}

    def _change(self, image: np.ndarray, draw: int) -> dict[str, Callable[[Any], Any]]:
        """The altered image, (H, W, C) float32, and masks whose pixels are each from where the image has it.

        Raises:
            TypeError: if the image is not of dtype float32.
            SpecMismatchError: if a mask is of another size than the image.
        """
        self._require_float32(image, self.augmenter.spec, 'generator')
        bands_first = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0)))
        altered, (places,) = self.augmenter.altered(bands_first[None], draw)

        def moved(mask: np.ndarray) -> np.ndarray:
            if mask.shape[:2] != image.shape[:2]:
                raise SpecMismatchError(
                    f'GeneratorAugmentation: found a mask of shape {mask.shape} with an image of shape {image.shape}; '
                    'bring both to the same size'
                )
            return mask.reshape(len(places), -1)[places.numpy()].reshape(mask.shape)

        return {'image': lambda _: np.ascontiguousarray(np.moveaxis(altered[0].numpy(), 0, -1)), 'mask': moved}

    def __repr__(self) -> str:
        return f'GeneratorAugmentation({self.probability}, generator={self.augmenter})'
