"""Scores of change detection: those of the change class first, means over both classes with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_stat_scores

from .segmentation import counting


@dataclass(frozen=True)
class ChangeScores:
    """F1, IoU, precision and recall of the change class; means of IoU and F1 over both classes; overall accuracy.

    All in [0, 1]. What has nothing to be measured on is NaN: recall where nothing has changed, precision where no
    change is predicted, F1 and IoU where neither. A class that neither the target nor the prediction holds does not
    count in the means.
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
        ignore_index: target of pixels that do not count.

    Raises:
        ValueError: if the shapes differ, no pixel counts, or a mask holds anything but 0 and 1.
    """
    predicted, target = counting(predicted, target, ignore_index, 'change_scores')
    for name, mask in (('predicted', predicted), ('target', target)):
        if (found := set(mask.unique().tolist())) - {0, 1}:
            raise ValueError(
                f'change_scores: {name} masks hold 0 for unchanged and 1 for changed, found {sorted(found)[:8]}; '
                f'subtract 1 from masks of 1 and 2; is ignore_index={ignore_index} the value of pixels without a label?'
            )
    hits, false, quiet, missed, _ = binary_stat_scores(predicted, target, validate_args=False).to(torch.float64)
    iou = torch.stack([hits, quiet]) / (torch.stack([hits, quiet]) + false + missed)
    f1 = 2 * iou / (1 + iou)
    return ChangeScores(
        float(f1[0]),
        float(iou[0]),
        float(hits / (hits + false)),
        float(hits / (hits + missed)),
        float(iou.nanmean()),
        float(f1.nanmean()),
        float((hits + quiet) / len(target)),
    )
