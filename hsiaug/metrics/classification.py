"""Accuracies of a classification."""

from __future__ import annotations

from dataclasses import dataclass

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
    """
    # torchmetrics counts two classes at least
    matrix = multiclass_confusion_matrix(predicted, target, max(num_classes, 2))[:num_classes, :num_classes].double()
    total, right = matrix.sum(), matrix.diagonal().sum()
    oa = float(right / total)
    recall = matrix.diagonal() / matrix.sum(dim=1)
    chance = float((matrix.sum(dim=0) * matrix.sum(dim=1)).sum() / total**2)
    kappa = (oa - chance) / (1 - chance) if chance < 1 else 0.0
    return Accuracies(oa, float(recall.nanmean()), kappa, tuple(recall.tolist()))
