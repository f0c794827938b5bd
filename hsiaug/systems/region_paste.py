"""Regions of one training pair pasted into another, in both image and mask."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..datasets.real.held import class_fractions
from ..functional.dates import flat_mask, in_contract, stacked_dates
from ..functional.devices import sent
from ..functional.pasting import Pair, Regions, pairs_that_hold, paste_regions
from ..functional.plain import plain_torch
from ..samples import SampleSpec
from ..streams import stream
from .base import Generator, TrainingData, register


@register('region_paste')
class RegionPaste(Generator):
    """Training pairs with regions pasted from other pairs, with their masks.

    Host and donor are rotated, flipped and shifted independently. *smooth* regions are where a smooth random field is
    low (:func:`~hsiaug.functional.pasting.smooth_regions`), *box* is CutMix, *class* is ClassMix, and *components* are
    connected components of the donor's mask. In pairs of dates, the same region is pasted into both dates and the mask.

    Hosts are drawn uniformly, donors according to the requested label, with probability proportional to the share of
    that class in them. With labels drawn from the training frequencies, the shares of classes and of change stay the
    same; uniform labels (``labels='uniform'`` when mixing) favour rare classes.

    Args:
        spec: spec of the samples, of kind ``'segmentation'`` or ``'change'``.
        regions: shape of the regions, see above.
        shift: shift pairs cyclically, besides flips and rotations.

    Raises:
        ValueError: for samples of another kind.
    """

    kinds: ClassVar = ('segmentation', 'change')
    fitted: ClassVar[tuple[str, ...]] = ('image', 'mask', 'shares')
    image: Tensor  # (N, C, H, W), of pairs of dates (N, 2 C, H, W)
    mask: Tensor  # (N, H, W)
    shares: Tensor  # (N, K) of each class in each mask

    def __init__(self, spec: SampleSpec, regions: Regions = 'smooth', shift: bool = True) -> None:
        super().__init__(spec, regions=regions, shift=shift)
        self.regions, self.shift = regions, shift

    @plain_torch()
    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Keep the training pairs.

        Raises:
            ValueError: if there is none.
        """
        if len(data.x) == 0:
            raise ValueError('RegionPaste: no training pair; at least one is needed')
        self.image, self.mask = stacked_dates(data.x).to(self.device), flat_mask(data.y).to(self.device)
        self.shares = class_fractions(self.mask.cpu(), self.spec).to(self.device)
        self.adopt(data, seed)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        hosts = sent(torch.randint(len(self.image), (len(labels),), generator=rng), self.device)
        image, mask = self._pasted((self.image[hosts], self.mask[hosts]), labels, rng)
        return in_contract(image, mask, self.spec)

    @plain_torch()
    @torch.no_grad()
    def augment(self, batch: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        """Paste regions of training pairs, drawn by the training frequencies of classes, into a batch.

        Args:
            batch: ``image`` and ``mask`` in the contract of the generator's kind; other keys are kept.
            seed: seed of all draws; if None, fresh entropy is taken from torch's global generator.

        Returns:
            the batch with new ``image`` and ``mask``, on the same devices.

        Raises:
            ValueError: if the images do not match the spec.
        """
        image, mask = batch['image'], batch['mask']
        self.require_images(image)
        rng = stream(seed)
        labels = self.usual_labels(len(image), rng)
        host = stacked_dates(image).to(self.device), flat_mask(mask).to(self.device)
        altered = in_contract(*self._pasted(host, labels, rng), self.spec)
        return {**batch, **{key: value.to(batch[key].device, batch[key].dtype) for key, value in altered.items()}}

    def _pasted(self, host: Pair, labels: Tensor, rng: torch.Generator) -> Pair:
        donors = sent(pairs_that_hold(labels, self.on_cpu('shares'), rng), self.device)
        donor = self.image[donors], self.mask[donors]
        return paste_regions(host, donor, self.regions, self.spec.num_classes, rng, self.shift)
