"""Patches with one label each, cut from images with masks."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from ...samples import SampleSpec
from ...scenes.labelled_patches import Rule
from ...streams import shuffled


def class_patches(
    image: Tensor,
    mask: Tensor,
    spec: SampleSpec,
    size: int,
    rule: Rule = 'centre',
    stride: int | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor, SampleSpec]:
    """Cut smaller patches of images and label each.

    Args:
        image: (N, C, H, W).
        mask: (N, H, W) int64 classes or the ignore index.
        spec: their spec, of kind ``'segmentation'``.
        size: side of a patch.
        rule: ``'centre'`` labels a patch by its central pixel (right of and below the middle if the side is even);
            ``'dominant'`` by the most frequent class of its valid pixels, the lower one in a tie. Patches whose label
            is ignored are left out.
        stride: step between patches; half the size if None.
        per_class: largest number of patches per class, drawn at random.
        seed: seed of the draw.

    Returns:
        (n, C, size, size) patches, (n,) int64 labels, and their spec of kind ``'scene'``.

    Raises:
        ValueError: if a setting does not fit, or no patch has a label.
    """
    if spec.kind != 'segmentation' or rule not in get_args(Rule):
        raise ValueError(
            f"class_patches: kind 'segmentation' and a rule of {get_args(Rule)} are needed, found "
            f'{spec.kind!r} and {rule!r}'
        )
    step = max(1, size // 2) if stride is None else stride
    if not 1 <= size <= min(image.shape[-2:]) or step < 1 or (per_class is not None and per_class < 1):
        raise ValueError(
            f'class_patches: size {size} must lie in 1 to {min(image.shape[-2:])}, the side of the images, and stride '
            f'{step} and per_class {per_class} be at least 1'
        )
    windows = mask.unfold(1, size, step).unfold(2, size, step)  # (N, h, w, size, size)
    if rule == 'centre':
        label = windows[..., size // 2, size // 2]
    else:
        label = torch.full(windows.shape[:3], -1, device=mask.device)
        most = torch.zeros(windows.shape[:3], dtype=torch.int64, device=mask.device)
        for k in range(spec.num_classes):
            if k != spec.ignore_index:
                count = (windows == k).sum(dim=(3, 4))
                label, most = torch.where(count > most, k, label), torch.maximum(count, most)
    counts = spec.counted(label)
    place = counts.nonzero()
    if len(place) == 0:
        raise ValueError(f'class_patches: no patch of {size} x {size} pixels has a valid label')
    y = label[counts]
    if per_class is not None:
        order = shuffled(len(y), seed).to(y.device)
        kept = torch.cat([order[y[order] == k][:per_class] for k in range(spec.num_classes)]).sort().values
        place, y = place[kept], y[kept]
    patches = image.unfold(2, size, step).unfold(3, size, step)  # (N, C, h, w, size, size)
    x = patches[place[:, 0], :, place[:, 1], place[:, 2]].contiguous()
    ignored = spec.ignore_index if spec.ignore_index is not None and spec.ignore_index < spec.num_classes else None
    return x, y, replace(spec, kind='scene', size=(size, size), ignore_index=ignored)


__all__ = ['Rule', 'class_patches']
