"""Base class of hsiaug's augmentations for kornia: a probability set by a ratio, drawn on the CPU, and mask checks.

https://kornia.readthedocs.io/en/latest/augmentation.container.html
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor

from ..datasets.shared import world
from ..ratio import Schedule
from .probability import GatedByRatio

Params = dict[str, Tensor]


class GatedAugmentation(GatedByRatio, IntensityAugmentationBase2D):
    """An augmentation whose probability follows a ratio; subclasses define what happens to the chosen rows.

    Unless ``image_only`` is set, changing images without their masks is an error.
    """

    why_not: ClassVar[str]
    """Why boxes and keypoints, whose name stands for ``{}``, are refused."""

    def __init__(
        self,
        ratio: float | Schedule | None = None,
        p: float | None = None,
        same_on_batch: bool = False,
        keepdim: bool = False,
        image_only: bool = False,
    ) -> None:
        self._set_probability(ratio, p)
        super().__init__(p=self.probability.value, same_on_batch=same_on_batch, keepdim=keepdim)
        self.image_only = image_only
        self._awaits_mask: object = None

    def set_rng_device_and_dtype(self, device: torch.device, dtype: torch.dtype) -> None:
        """Stay on the CPU, so that the gate is the same on every device and none has to be waited for."""
        super().set_rng_device_and_dtype(torch.device('cpu'), dtype)

    @staticmethod
    def _blend_by_prob(transformed: Tensor, not_transformed: Tensor, to_apply: Tensor) -> Tensor:
        """Rows outside the gate are untouched already: another pass over the batch would cost as much as the mixing."""
        return transformed

    def apply_transform_box(self, input: Any, params: Params, flags: dict[str, Any], transform: Any = None) -> Any:
        """Refuse boxes, which would stay where they are."""
        self._refuse('boxes')

    def apply_transform_keypoint(self, input: Any, params: Params, flags: dict[str, Any], transform: Any = None) -> Any:
        """Refuse keypoints, which would stay where they are."""
        self._refuse('keypoints')

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(f'{type(self).__name__}: {self.why_not.format(what)}; give images and masks only')

    def _expect_masks(self, draw: object) -> None:
        """Remember that images were changed: their masks come later, and nothing else shows that they never do."""
        missed, self._awaits_mask = self._awaits_mask, None if self.image_only else draw
        if missed not in (None, draw):
            self._awaits_mask = None
            raise ValueError(
                f'{type(self).__name__}: images of the last batch were changed, but their masks were not passed, so '
                "that they no longer match; pass both, as AugmentationSequential(..., data_keys=['input', 'mask']) or "
                'data_keys=None with a dict do, or set image_only=True if no masks are used'
            )

    def _masks_came(self) -> None:
        if self.image_only:
            raise TypeError(f'{type(self).__name__}: image_only=True, but a mask was passed too; leave it out')
        self._awaits_mask = None

    def _draw_seed(self) -> Tensor:
        """The seed of one draw; 0 where none is needed."""
        if self.p <= 0:
            return torch.tensor(0, device='cpu')
        # Ranks are often seeded alike, and would all draw the same samples.
        return torch.randint(2**62, (), device='cpu') + world()[0]

    def _gated_rows(self, params: Params) -> Tensor:
        gate = torch.atleast_1d(params['batch_prob'] > 0.5)
        # With p = 1 kornia never looks at batch_prob.
        return torch.arange(len(gate), device='cpu') if self.p == 1 else gate.nonzero().flatten().cpu()
