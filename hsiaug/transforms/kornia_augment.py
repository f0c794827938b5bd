"""Augmentation of images and masks by a generator inside kornia's AugmentationSequential.

https://kornia.readthedocs.io/en/latest/augmentation.container.html
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..datasets.mixing.columns import put_rows
from ..ratio import Schedule
from ..samples import SpecMismatchError
from .augment import Augmenter, SampleAugmenter
from .gated_kornia import GatedAugmentation, Params


class RandomGeneratorAugmentation(GatedAugmentation):
    """Randomly let a generator alter samples of a batch, image and masks by the same draw.

    Each sample is altered or not independently, with kornia's convention for ``p``; with a container's
    ``same_on_batch``, all are or none is, each with its own draw. Put it first, while images are still in the
    generator's unit. Images are (B, C, H, W) in any floating dtype and on any device; masks are (B, 1, H, W) or (B, H,
    W), as tensors or as a list of one mask per sample, and keep their dtype. Other samples pass bit for bit, and
    ``aug(image, mask, params=aug._params)`` repeats the same changes. Class labels do not change, as generators that
    alter labelled images keep them. All randomness is drawn on the CPU from torch's global generator; with probability
    0, nothing is drawn. The reported transformation matrix is the identity, so boxes and keypoints are refused. The
    generator is not a submodule.

    Args:
        generator: a generator with an ``augment`` method, for samples of kind ``'segmentation'`` or ``'scene'``.
        ratio, p: as for :class:`hsiaug.transforms.GeneratorAugmentation`; give one of them.
        keepdim: return (C, H, W) for (C, H, W) and (B, H, W) masks for such masks, as everywhere in kornia.
        image_only: state that there are no masks; otherwise, altering images of kind ``'segmentation'`` without their
            masks is an error.

    Raises:
        TypeError: if the generator cannot alter samples of these kinds.
        ValueError: if not exactly one of ``ratio`` and ``p`` is given, or it is out of range.
    """

    why_not = '{} cannot be altered'

    def __init__(
        self,
        generator: SampleAugmenter,
        ratio: float | Schedule | None = None,
        p: float | None = None,
        keepdim: bool = False,
        image_only: bool = False,
    ) -> None:
        super().__init__(ratio, p, keepdim=keepdim, image_only=image_only)
        self.augmenter = Augmenter('RandomGeneratorAugmentation', generator, ('segmentation', 'scene'))
        self._drawn: tuple[int, dict[int, Tensor]] | None = None

    def forward_parameters(self, batch_shape: tuple[int, ...]) -> Params:
        """Draw the gate, and the seed of what the generator draws.

        Returns:
            kornia's own parameters, with ``seed`` and ``row``, both (B,) int64, so that containers can slice them.
        """
        params: Params = super().forward_parameters(batch_shape)
        count = len(params['batch_prob'])
        return {**params, 'seed': self._draw_seed().expand(count), 'row': torch.arange(count)}

    def apply_transform(
        self, input: Tensor, params: Params, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Alter the gated images."""
        rows = self._gated_rows(params)
        if len(rows) == 0:
            return input
        seed = int(params['seed'][0])
        if self.augmenter.spec.kind == 'segmentation':
            self._expect_masks(seed)
        image, places = self.augmenter.altered(input[rows.to(input.device)], seed)
        self._drawn = seed, dict(zip(params['row'].cpu()[rows].tolist(), places, strict=True))
        return put_rows(input, rows, image)

    def apply_transform_mask(
        self, input: Tensor, params: Params, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Move the gated masks as their images were.

        Raises:
            TypeError: if it was said that there are images only.
            ValueError: if the images of this draw have not been altered before.
            SpecMismatchError: if the masks are of another size than the images.
        """
        self._masks_came()
        rows = self._gated_rows(params)
        if len(rows) == 0:
            return input
        if self._drawn is None or self._drawn[0] != int(params['seed'][0]):
            raise ValueError(
                'RandomGeneratorAugmentation: masks follow the images of their draw, which were not given; replay '
                'params with image and mask'
            )
        size, count = tuple(self.augmenter.spec.size or ()), len(params['row'])
        if tuple(input.shape[-2:]) != size or len(input) != count:
            raise SpecMismatchError(
                f'RandomGeneratorAugmentation: found masks of shape {tuple(input.shape)}, expected {count} of the size '
                f'{size[0]} x {size[1]} of the images'
            )
        numbers = params['row'].cpu()[rows].tolist()
        places = torch.stack([self._drawn[1][number] for number in numbers]).to(input.device)[:, None]
        masks = input[rows.to(input.device)].flatten(2)
        moved = masks.gather(2, places.expand(-1, masks.shape[1], -1)).view(len(rows), *input.shape[1:])
        return put_rows(input, rows, moved)

    def __repr__(self) -> str:
        return f'RandomGeneratorAugmentation({self.probability}, generator={self.augmenter})'
