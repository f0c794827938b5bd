"""Augmentation of pairs of dates with their change mask.

torchgeo's change-detection datamodules pass (B, 2, C, H, W) images and (B, 1, H, W) masks to kornia's
``VideoSequential``, which treats the mask as another video: kornia 0.9 refuses a mask of one frame with two dates, and
kornia 0.8 silently misaligned it. Here both dates and the mask are moved together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import kornia.augmentation as K
from kornia.constants import DataKey, Resample
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import Subset

from ..datasets.contract.batches import require_sample
from ..samples import Sample

AUGMENTATIONS = ('aug', 'train_aug', 'val_aug', 'test_aug', 'predict_aug')
DATASETS = ('dataset', 'train_dataset', 'val_dataset', 'test_dataset', 'predict_dataset')


class BitemporalAugmentation(nn.Module):
    """Kornia augmentations for pairs of dates with a change mask. Takes and returns a dictionary.

    Augmentations that move or erase pixels (flips, rotations, crops, ...) are applied to the two dates as one picture
    of 2C bands together with the mask, so that all three stay aligned; the mask is resampled by nearest neighbour and
    keeps its dtype. Augmentations that only change values (normalisation, colour, noise, ...) are applied to the C
    bands of each date, as their statistics expect, and not to the mask. Every sample draws its own parameters. Pixels
    moved in from outside are 0 in both dates and, as nothing changed there, 0 in the mask; ``extra_args`` can change
    that.

    Args:
        *augmentations: 2D augmentations of kornia, in order. ``VideoSequential`` and ``AugmentationSequential`` are
            taken apart; a ``VideoSequential``'s own ``same_on_frame`` applies to its children.
        same_on_dates: whether augmentations that only change values draw the same parameters for both dates.
        extra_args: as for :class:`kornia.augmentation.AugmentationSequential`; determines how masks are filled.

    Raises:
        TypeError: for anything that is not a 2D augmentation of single samples, or cannot move a mask.
        ValueError: for a sequential that applies its children at random or whose frames are not the second dimension.
    """

    def __init__(
        self,
        *augmentations: nn.Module,
        same_on_dates: bool = True,
        extra_args: dict[DataKey, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        # kornia's own default sets align_corners to None, which RandomElasticTransform doesn't take for its image's.
        extra_args = extra_args or {DataKey.MASK: {'resample': Resample.NEAREST}}
        extra_args = {key: {k: v for k, v in given.items() if v is not None} for key, given in extra_args.items()}
        self.steps = nn.ModuleList()
        children = [(child, _moves_pixels(child), same) for child, same in _unwrapped(augmentations, same_on_dates)]
        # How values change is drawn per date or per pair; how pixels move never is: the mask follows one way only.
        for (moves, same), group in groupby(children, key=lambda c: (c[1], c[1] or c[2])):
            members: list[Any] = [child for child, *_ in group]
            if moves:
                self.steps.append(K.AugmentationSequential(*members, data_keys=None, extra_args=extra_args))
            else:
                self.steps.append(K.VideoSequential(*members, data_format='BTCHW', same_on_frame=same))

    @classmethod
    def from_kornia(cls, sequential: K.AugmentationSequential) -> BitemporalAugmentation:
        """The safe equivalent of torchgeo's ``AugmentationSequential(VideoSequential(...), data_keys=None)``.

        The children stay the same objects, in their order, with their ``p`` and parameters.
        """
        return cls(sequential, extra_args=sequential.extra_args)

    def forward(self, batch: Sample) -> Sample:
        """Augment a batch or a single sample.

        Args:
            batch: ``image`` (B, 2, C, H, W) float and optionally ``mask`` (B, 1, H, W) or (B, H, W); a single sample
                has no dimension B. Other keys are kept.

        Returns:
            a new dictionary with the same keys, layouts and dtypes.

        Raises:
            ValueError: if the image is not a pair of dates, or the mask does not match it.
        """
        require_sample(batch, 'BitemporalAugmentation', stacked=True)
        image: Tensor = batch['image']
        if image.ndim not in (4, 5) or image.shape[-4] != 2:
            raise ValueError(
                'BitemporalAugmentation: image must be (B, 2, C, H, W), or (2, C, H, W) for one sample, '
                f'found {tuple(image.shape)}'
            )
        pairs = image if image.ndim == 5 else image[None]
        parts = {'image': pairs}
        if (mask := batch.get('mask')) is not None:
            parts['mask'] = _as_bands(mask, image)
        for step in self.steps:
            if isinstance(step, K.VideoSequential):
                parts['image'] = step(parts['image'])
            else:
                parts = step({**parts, 'image': parts['image'].flatten(1, 2)})
                parts['image'] = parts['image'].unflatten(1, (2, -1))
        result = {**batch, 'image': parts['image'] if image.ndim == 5 else parts['image'][0]}
        if mask is not None:
            result['mask'] = parts['mask'].reshape(*mask.shape[:-2], *parts['mask'].shape[-2:])
        return result


def make_change_safe(datamodule: LightningDataModule) -> list[str]:
    """Replace every augmentation of a torchgeo change-detection datamodule that holds a ``VideoSequential``.

    This covers the batch augmentations and the ``transforms`` of the datasets. ``setup`` makes new datasets, so call
    this function after it; a second call changes nothing.

    Args:
        datamodule: any datamodule with torchgeo's attributes.

    Returns:
        names of the replaced attributes, such as ``['train_aug', 'train_dataset.transforms']``.
    """
    places: list[tuple[str, Any, str]] = [(name, datamodule, name) for name in AUGMENTATIONS]
    for name in DATASETS:
        dataset = getattr(datamodule, name, None)
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        places.append((f'{name}.transforms', dataset, 'transforms'))
    replaced = []
    for name, owner, attribute in places:
        found = getattr(owner, attribute, None)
        if isinstance(found, K.AugmentationSequential) and any(
            isinstance(m, K.VideoSequential) for m in found.modules()
        ):
            setattr(owner, attribute, BitemporalAugmentation.from_kornia(found))
            replaced.append(name)
    return replaced


class _HiddenKey(str):
    """A key that kornia, which finds its own by ``upper()``, lets pass; look-ups work as ever."""

    def upper(self) -> str:
        return ''


def with_hidden_mask(batch: Any) -> Any:
    """A batch of pairs of dates whose mask kornia does not find; any other as it is.

    To draw figures, torchgeo's ChangeDetectionTask runs kornia's VideoSequential on validation batches, which raises on
    two dates with one mask.
    """
    if not isinstance(batch, dict) or 'mask' not in batch or getattr(batch.get('image'), 'ndim', 0) != 5:
        return batch
    return {_HiddenKey(key) if key == 'mask' else key: value for key, value in batch.items()}


def _unwrapped(augmentations: Iterable[nn.Module], same_on_dates: bool) -> Iterator[tuple[nn.Module, bool]]:
    """Single augmentations out of nested sequentials, each with whether it draws alike for both dates."""
    for child in augmentations:
        if not isinstance(child, K.VideoSequential | K.AugmentationSequential):
            yield child, same_on_dates
            continue
        if child.random_apply:
            raise ValueError(
                f'BitemporalAugmentation: {type(child).__name__} with random_apply={child.random_apply!r} cannot be '
                'taken apart; give its augmentations a probability p each'
            )
        if getattr(child, 'data_format', 'BTCHW') != 'BTCHW':
            raise ValueError(
                f'BitemporalAugmentation: VideoSequential with data_format {child.data_format!r}; dates are the second '
                "dimension here, so use 'BTCHW'"
            )
        # Iterated as the sequence that it is: children() would drop an augmentation that stands in it twice.
        yield from _unwrapped(child, getattr(child, 'same_on_frame', same_on_dates))


def _moves_pixels(augmentation: nn.Module) -> bool:
    """Whether the mask has a part in an augmentation: it moves pixels, or like ``RandomErasing`` wipes them out."""
    handler = getattr(type(augmentation), 'apply_transform_mask', None)
    if not isinstance(augmentation, K.AugmentationBase2D):
        raise TypeError(
            f'BitemporalAugmentation: {type(augmentation).__name__} is not a 2D augmentation of single samples; list '
            'kornia augmentations one by one, and put others, or those that mix samples, before or after this'
        )
    if handler is K.AugmentationBase2D.apply_transform_mask:
        raise TypeError(
            f'BitemporalAugmentation: {type(augmentation).__name__} cannot move a mask along with its image; use a '
            'geometric augmentation that can, such as RandomAffine or RandomElasticTransform'
        )
    return handler is not K.IntensityAugmentationBase2D.apply_transform_mask


def _as_bands(mask: Tensor, image: Tensor) -> Tensor:
    """A mask as (B, 1, H, W)."""
    pixels, lead = image.shape[-2:], tuple(image.shape[:-4])
    if mask.shape[-2:] != pixels or tuple(mask.shape[:-2]) not in (lead, (*lead, 1)):
        expected = ' or '.join(str((*shape, *pixels)) for shape in ((*lead, 1), lead))
        raise ValueError(
            f'BitemporalAugmentation: mask must be {expected} beside an image {tuple(image.shape)}, '
            f'found {tuple(mask.shape)}'
        )
    return mask.reshape(-1, 1, *pixels)
