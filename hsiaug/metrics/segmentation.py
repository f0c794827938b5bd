"""Scores of a segmentation: intersection over union, F1, overall accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix


@dataclass(frozen=True)
class SegmentationScores:
    """Mean IoU, macro F1 and overall accuracy, and IoU and F1 of each class; in [0, 1].

    A class that neither the target nor the prediction holds is NaN and does not count in the means.
    """

    miou: float
    f1: float
    oa: float
    iou: tuple[float, ...]
    f1_per_class: tuple[float, ...]


def counting(predicted: Tensor, target: Tensor, ignore_index: int | None, who: str) -> tuple[Tensor, Tensor]:
    """(n,) predictions and targets of the pixels that count, on the CPU.

    Raises:
        ValueError: if the shapes differ, or no pixel counts.
    """
    if predicted.shape != target.shape:
        raise ValueError(
            f'{who}: predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must have one shape; take the '
            'argmax of logits first, with keepdim for change masks'
        )
    predicted, target = predicted.reshape(-1).cpu(), target.reshape(-1).cpu()
    if ignore_index is not None:
        predicted, target = predicted[target != ignore_index], target[target != ignore_index]
    if target.numel() == 0:
        raise ValueError(f'{who}: no pixel counts, every target is ignored')
    return predicted, target


def segmentation_scores(
    predicted: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = None
) -> SegmentationScores:
    """Scores of all pixels together, from one confusion matrix.

    Args:
        predicted: (N, H, W) int64 classes, or any other shape.
        target: classes in the same shape.
        num_classes: K.
        ignore_index: target of pixels that do not count.

    Raises:
        ValueError: if the shapes differ, no pixel counts, or a class lies outside [0, K).
    """
    predicted, target = counting(predicted, target, ignore_index, 'segmentation_scores')
    for name, mask in (('predicted', predicted), ('target', target)):
        if not 0 <= int(mask.min()) <= int(mask.max()) < num_classes:
            raise ValueError(
                f'segmentation_scores: {name} classes must lie in [0, {num_classes}), found [{int(mask.min())}, '
                f'{int(mask.max())}]; is ignore_index={ignore_index} the value of pixels without a label?'
            )
    matrix = multiclass_confusion_matrix(predicted, target, num_classes, validate_args=False).to(torch.float64)
    right, both = matrix.diagonal(), matrix.sum(dim=0) + matrix.sum(dim=1)
    iou, f1 = right / (both - right), 2 * right / both
    return SegmentationScores(
        float(iou.nanmean()),
        float(f1.nanmean()),
        float(right.sum() / matrix.sum()),
        tuple(iou.tolist()),
        tuple(f1.tolist()),
    )
