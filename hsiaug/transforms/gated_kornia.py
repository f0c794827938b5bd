"""What every child of ours in a kornia container has: a ratio for its gate, drawn on the CPU.

https://kornia.readthedocs.io/en/latest/augmentation.container.html
"""

from __future__ import annotations

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor

from ..ratio import Schedule
from .mix import _rank_and_world
from .probability import GatedByRatio

Params = dict[str, Tensor]


class GatedAugmentation(GatedByRatio, IntensityAugmentationBase2D):
    """An augmentation whose gate follows a ratio; children say what happens to gated rows, and leave the others be.

    Args:
        ratio: gated samples per other one, or a schedule of it.
        p: the fraction that is gated.
        same_on_batch: gate the batch as one.
        keepdim: as everywhere in kornia.

    Raises:
        ValueError: if not exactly one of ``ratio`` and ``p`` is given, or it is out of range.
    """

    def __init__(
        self,
        ratio: float | Schedule | None = None,
        p: float | None = None,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        self._set_probability(ratio, p)
        super().__init__(p=self.probability.value, same_on_batch=same_on_batch, keepdim=keepdim)

    def set_rng_device_and_dtype(self, device: torch.device, dtype: torch.dtype) -> None:
        """Stay on the CPU, so that the gate is the same on every device and none has to be waited for."""
        super().set_rng_device_and_dtype(torch.device('cpu'), dtype)

    @staticmethod
    def _blend_by_prob(transformed: Tensor, not_transformed: Tensor, to_apply: Tensor) -> Tensor:
        """Rows outside the gate are untouched already: another pass over the batch would cost as much as the mixing."""
        return transformed

    def _draw_seed(self) -> Tensor:
        """The seed of one draw; 0 where none is needed."""
        if self.p <= 0:
            return torch.tensor(0, device='cpu')
        # Ranks are often seeded alike, and would all draw the same samples.
        return torch.randint(2**62, (), device='cpu') + _rank_and_world()[0]

    def _gated_rows(self, params: Params) -> Tensor:
        gate = torch.atleast_1d(params['batch_prob'] > 0.5)
        # With p = 1 kornia never looks at batch_prob.
        return torch.arange(len(gate), device='cpu') if self.p == 1 else gate.nonzero().flatten().cpu()
