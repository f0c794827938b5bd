"""Classic augmentation of images with masks or labels, and of pairs of dates: controls for learned generators."""

from __future__ import annotations

from typing import ClassVar, Literal

import kornia.augmentation as K
import torch
from scipy.ndimage import label as connected
from torch import Tensor

from ..datasets.real.held import class_fractions
from ..functional.dates import CHANGED, flat_mask, in_contract, stacked_dates
from ..functional.devices import sent
from ..functional.pasting import boxes, pairs_that_hold, pasted_where
from ..functional.plain import plain_torch
from ..samples import SampleSpec
from ..streams import drawn_seed, seeded
from .base import Generator, TrainingData, register

Augmentation = Literal['duplicate', 'flips', 'crops', 'affine', 'noise', 'cutmix', 'copy_paste']


@register('patch_augment')
class PatchAugment(Generator):
    """Training pairs, repeated or augmented.

    *duplicate* repeats them; *flips* flips and rotates them; *crops* enlarges a random half to whole of their area
    (masks by nearest neighbour); *affine* rotates, shifts by up to a tenth of the side and scales by 0.8 to 1.2, with
    mirrored edges; *noise* adds noise of a tenth of each band's standard deviation; *cutmix* pastes a random box of
    another pair, image and mask (Yun et al., "CutMix", ICCV 2019). Given a label, a pair is drawn with probability
    proportional to the share of that class in it.

    Images with one label each are augmented in the same way and keep their label; they are not pasted into each other.

    The two dates of a pair and their change mask are augmented together. For pairs of dates, *copy_paste* puts changed
    objects of another pair into the second date and the mask (after Ghiasi et al., "Simple Copy-Paste", CVPR 2021):
    each connected object with probability one half, but at least one.

    Args:
        spec: spec of the samples, of kind ``'segmentation'``, ``'change'`` or ``'scene'``.
        kind: name of the augmentation, see above.
    """

    kinds: ClassVar = ('segmentation', 'change', 'scene')
    fitted: ClassVar[tuple[str, ...]] = ('image', 'mask', 'std')
    image: Tensor
    mask: Tensor
    std: Tensor

    def __init__(self, spec: SampleSpec, kind: Augmentation = 'duplicate') -> None:
        if kind == 'cutmix' and spec.kind == 'scene':
            raise ValueError("PatchAugment: 'cutmix' mixes classes in one image, which has one label (kind 'scene')")
        if kind == 'copy_paste' and spec.kind != 'change':
            raise ValueError(f"PatchAugment: 'copy_paste' is for pairs of dates (kind 'change'), found {spec.kind!r}")
        super().__init__(spec, kind=kind)
        self.kind = kind

    @plain_torch()
    def fit(self, data: TrainingData, seed: int = 0) -> None:
        """Keep the training pairs."""
        if len(data.x) == 0:
            raise ValueError('PatchAugment: no training pair')
        if self.kind == 'copy_paste' and not (data.y == CHANGED).any():
            raise ValueError(f'PatchAugment: nothing changed in any of the {len(data.y)} training pairs to be copied')
        # An image with one label is like one with a mask of that class.
        masks = data.y[:, None, None].expand(-1, *data.x.shape[-2:]) if self.spec.kind == 'scene' else flat_mask(data.y)
        self.image, self.mask = stacked_dates(data.x).to(self.device), masks.to(self.device)
        self.std = self.image.std(dim=(0, 2, 3))
        self.adopt(data, seed)

    def _draw(self, labels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        rows = sent(pairs_that_hold(labels, self.shares(), rng), self.device)
        image, mask = self.image[rows].clone(), self.mask[rows].clone()
        if self.kind == 'noise':
            noise = sent(torch.randn(image.shape, generator=rng), image.device)
            image = image + 0.1 * self.std[:, None, None] * noise
        elif self.kind == 'cutmix':
            others = sent(torch.randint(len(self.image), (len(rows),), generator=rng), self.device)
            size = (image.shape[-2], image.shape[-1])
            shares = 0.25 + 0.5 * torch.rand((2, len(rows)), generator=rng)  # of each side
            sides = [(share * side).round().clamp_min(1) for share, side in zip(shares, size, strict=True)]
            where = sent(boxes(sides, size, rng), self.device)
            image, mask = pasted_where(where, (image, mask), (self.image[others], self.mask[others]))
        elif self.kind in ('flips', 'crops', 'affine'):
            image, mask = self._geometric(image, mask, rng)
        elif self.kind == 'copy_paste':
            self._paste_changes(image, mask, rng)
        if self.spec.kind == 'scene':
            return {'image': image, 'label': mask[:, 0, 0]}
        return in_contract(image, mask, self.spec)

    def _paste_changes(self, image: Tensor, mask: Tensor, rng: torch.Generator) -> None:
        """Put changed objects of other pairs into the second date and the mask, in place."""
        changed = (self.mask == CHANGED).flatten(1).any(dim=1).nonzero().flatten()
        donors = changed[torch.randint(len(changed), (len(image),), generator=rng).to(changed.device)]
        for i, donor in enumerate(donors.tolist()):
            objects, count = connected((self.mask[donor] == CHANGED).cpu().numpy())
            chosen = torch.rand(count, generator=rng) < 0.5
            chosen[torch.randint(count, (), generator=rng)] = True
            where = torch.cat([torch.zeros(1, dtype=torch.bool), chosen])[torch.from_numpy(objects).long()].to(
                mask.device
            )
            image[i, self.spec.bands :, where] = self.image[donor, self.spec.bands :, where]
            mask[i, where] = CHANGED

    def shares(self) -> Tensor:
        """(N, K) share of each class in the counting pixels of each pair, on the CPU."""
        return self.made_of('mask', lambda mask: class_fractions(mask.cpu(), self.spec))

    def _geometric(self, image: Tensor, mask: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        size = (image.shape[-2], image.shape[-1])
        steps = {
            'flips': [K.RandomHorizontalFlip(p=0.5), K.RandomVerticalFlip(p=0.5), K.RandomRotation90((0, 3), p=1.0)],
            'crops': [K.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(1.0, 1.0), p=1.0)],
            'affine': [K.RandomAffine(180, (0.1, 0.1), (0.8, 1.2), padding_mode='reflection', p=1.0)],
        }[self.kind]
        # kornia draws from torch's global generator, which is left as it was.
        with seeded(drawn_seed(rng)):
            augment = K.AugmentationSequential(*steps, data_keys=['input', 'mask'])
            image, moved = augment(image, mask[:, None].to(image.dtype))
        return image, moved[:, 0].round().long()
