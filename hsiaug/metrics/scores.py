"""Scores of classification, segmentation and change detection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix


@dataclass(frozen=True)
class Accuracies:
    """Overall accuracy, mean per-class accuracy (recall), Cohen's kappa, and the recall of each class; in [0, 1]."""

    oa: float
    aa: float
    kappa: float
    per_class: tuple[float, ...]


def accuracies(predicted: Tensor, target: Tensor, num_classes: int) -> Accuracies:
    """Accuracies from one confusion matrix.

    Args:
        predicted: (N,) labels.
        target: (N,) labels.
        num_classes: K; classes that do not occur in ``target`` have recall NaN and do not count in ``aa``.

    Raises:
        ValueError: if the shapes differ, there are no labels, or one is not an integer in [0, K).
    """
    matrix = _confusion('accuracies', *counting(predicted, target, None, 'accuracies'), num_classes)
    oa = float(matrix.trace() / matrix.sum())
    recall = matrix.diagonal() / matrix.sum(dim=1)
    chance = float((matrix.sum(dim=0) @ matrix.sum(dim=1)) / matrix.sum() ** 2)
    kappa = (oa - chance) / (1 - chance) if chance < 1 else 0.0
    return Accuracies(oa, float(recall.nanmean()), kappa, tuple(recall.tolist()))


@dataclass(frozen=True)
class SegmentationScores:
    """Mean IoU, macro F1 and overall accuracy, and IoU and F1 of each class; in [0, 1].

    Classes that occur neither in target nor in prediction are NaN and do not count in the means; nor does a class that
    is the ignore index.
    """

    miou: float
    f1: float
    oa: float
    iou: tuple[float, ...]
    f1_per_class: tuple[float, ...]


def counting(predicted: Tensor, target: Tensor, ignore_index: int | None, who: str) -> tuple[Tensor, Tensor]:
    """(n,) predictions and targets of the pixels that count, on the CPU."""
    predicted, target = torch.as_tensor(predicted), torch.as_tensor(target)
    if predicted.shape != target.shape:
        raise ValueError(
            f'{who}: predicted {tuple(predicted.shape)} and target {tuple(target.shape)} must have one shape; take the '
            'argmax of logits first, with keepdim for change masks'
        )
    predicted, target = predicted.reshape(-1).cpu(), target.reshape(-1).cpu()
    if ignore_index is not None:
        predicted, target = predicted[target != ignore_index], target[target != ignore_index]
    if target.numel() == 0:
        raise ValueError(f'{who}: nothing to score, every target is ignored' if ignore_index is not None else
                         f'{who}: nothing to score, found no targets')  # fmt: skip
    return predicted, target


def _confusion(
    who: str, predicted: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = None
) -> Tensor:
    """(K, K) float64 counts of (n,) predictions by (n,) targets, which are the rows."""
    for name, labels in (('predicted', predicted), ('target', target)):
        if labels.is_floating_point():
            raise ValueError(f'{who}: {name} classes must be whole numbers, found {labels.dtype}; take the argmax')
        if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise ValueError(
                f'{who}: {name} classes must lie in [0, {num_classes}), found [{int(labels.min())}, '
                f'{int(labels.max())}]; is ignore_index={ignore_index} the value of pixels without a label?'
            )
    matrix: Tensor = multiclass_confusion_matrix(predicted.long(), target.long(), num_classes, validate_args=False)
    return matrix.double()


def segmentation_scores(
    predicted: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = None
) -> SegmentationScores:
    """Scores of all pixels together, from one confusion matrix.

    Args:
        predicted: (N, H, W) int64 classes, or any other shape.
        target: classes in the same shape.
        num_classes: number of classes K.
        ignore_index: target of pixels to ignore.

    Raises:
        ValueError: if the shapes differ, all pixels are ignored, or a class is not an integer in [0, K).
    """
    predicted, target = counting(predicted, target, ignore_index, 'segmentation_scores')
    matrix = _confusion('segmentation_scores', predicted, target, num_classes, ignore_index)
    iou, f1 = _overlaps(matrix)
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        iou[ignore_index] = f1[ignore_index] = float('nan')
    return SegmentationScores(
        float(iou.nanmean()),
        float(f1.nanmean()),
        float(matrix.trace() / matrix.sum()),
        tuple(iou.tolist()),
        tuple(f1.tolist()),
    )


@dataclass(frozen=True)
class ChangeScores:
    """F1, IoU, precision and recall of the change class; means of IoU and F1 over both classes; overall accuracy.

    All in [0, 1]. Undefined scores are NaN: recall if nothing has changed, precision if no change is predicted, F1 and
    IoU if neither. Classes that occur neither in target nor in prediction do not count in the means.
    """

    f1: float
    iou: float
    precision: float
    recall: float
    miou: float
    mf1: float
    oa: float


def change_scores(predicted: Tensor, target: Tensor, ignore_index: int | None = None) -> ChangeScores:
    """Scores of all pixels together, from one confusion matrix.

    Args:
        predicted: (N, 1, H, W) int64, 1 where changed, or any other shape.
        target: masks in the same shape.
        ignore_index: target of pixels to ignore.

    Raises:
        ValueError: if the shapes differ, all pixels are ignored, or a mask holds anything but 0 and 1.
    """
    predicted, target = counting(predicted, target, ignore_index, 'change_scores')
    for name, mask in (('predicted', predicted), ('target', target)):
        if (found := set(mask.unique().tolist())) - {0, 1}:
            raise ValueError(
                f'change_scores: {name} masks hold 0 for unchanged and 1 for changed, found {sorted(found)[:8]}; '
                f'subtract 1 from masks of 1 and 2; is ignore_index={ignore_index} the value of pixels without a label?'
            )
    matrix = _confusion('change_scores', predicted.long(), target.long(), 2, ignore_index)
    (iou, f1), hits = _overlaps(matrix), matrix[1, 1]
    return ChangeScores(
        float(f1[1]),
        float(iou[1]),
        float(hits / matrix[:, 1].sum()),
        float(hits / matrix[1].sum()),
        float(iou.nanmean()),
        float(f1.nanmean()),
        float(matrix.trace() / matrix.sum()),
    )


def _overlaps(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and F1 (K,) of classes, from counts (K, K); NaN for a class that does not occur."""
    right, both = matrix.diagonal(), matrix.sum(dim=0) + matrix.sum(dim=1)
    return right / (both - right), 2 * right / both
