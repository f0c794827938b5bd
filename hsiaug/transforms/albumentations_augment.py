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

    def __init__(
        self, generator: SampleAugmenter, ratio: float | Schedule | None = None, p: float | None = None
    ) -> None:
        super().__init__(ratio, p)
        self.augmenter = Augmenter('GeneratorAugmentation', generator, ('segmentation', 'scene'))
        self._altered: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def targets(self) -> dict[str, Callable[..., Any]]:
        """What can be altered."""
        return {'image': self.apply, 'mask': self.apply_to_mask}

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Check that the targets of a call are those that a generator alters.

        Raises:
            ValueError: if the image is missing, or the mask that belongs to it, or there is a target that stayed as it
                was while the image was not.
            TypeError: if the image is not of dtype float32.
            SpecMismatchError: if a mask is of another size than the image.
        """
        kinds = {key: self._target_of(key) for key, value in data.items() if value is not None}
        found = set(kinds.values())
        needed = {'image', 'mask'} if self.augmenter.spec.kind == 'segmentation' else {'image'}
        if not needed <= found or found & set(super().targets) - {'image', 'mask'}:
            raise ValueError(
                f'GeneratorAugmentation: samples of kind {self.augmenter.spec.kind!r} have {sorted(needed)}, found '
                f'{sorted(data)}; call the pipeline with these (or name masks in additional_targets) and nothing that '
                'would not move with the image'
            )
        self._require_float32(data['image'], self.augmenter.spec, 'generator')
        for mask in (data[key] for key, kind in kinds.items() if kind == 'mask'):
            if mask.shape[:2] != data['image'].shape[:2]:
                raise SpecMismatchError(
                    f'GeneratorAugmentation: found a mask of shape {mask.shape} with an image of shape '
                    f'{data["image"].shape}; bring both to the same size'
                )
        return {}

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Alter the image, and move every mask of the call alike."""
        image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(kwargs['image'], -1, 0)))
        altered, places = self.augmenter.altered(image[None], params['draw'])
        self._altered = np.ascontiguousarray(np.moveaxis(altered[0].numpy(), 0, -1)), places[0].numpy()
        result: dict[str, Any] = super().apply_with_params(params, *args, **kwargs)
        self._altered = None
        return result

    def apply(self, img: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """The altered image, (H, W, C) float32."""
        assert self._altered is not None
        return self._altered[0]

    def apply_to_mask(self, mask: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """The mask, each pixel from where the image has it."""
        assert self._altered is not None
        return mask.reshape(len(self._altered[1]), -1)[self._altered[1]].reshape(mask.shape)

    def __repr__(self) -> str:
        return f'GeneratorAugmentation({self.probability}, generator={self.augmenter})'
