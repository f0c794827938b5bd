"""torchgeo's tasks, by the names that version 0.10 gave them, from whichever version is installed."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule

try:
    from torchgeo.tasks import ChangeDetection, Classification, SemanticSegmentation
except ImportError:  # before 0.10
    from torchgeo.trainers import ChangeDetectionTask as ChangeDetection
    from torchgeo.trainers import ClassificationTask as Classification
    from torchgeo.trainers import SemanticSegmentationTask as SemanticSegmentation


def log_training(task: Any, loss: Any, count: int) -> None:
    """Log the loss and, as torchgeo up to 0.8 does in each step, the metrics; later versions do so after each epoch.

    Args:
        task: one of torchgeo's, whose ``train_metrics`` have seen the batch.
        loss: of the batch.
        count: of its samples.
    """
    if type(task).on_train_epoch_end is LightningModule.on_train_epoch_end:
        task.log_dict(task.train_metrics, batch_size=count)
    task.log('train_loss', loss, batch_size=count)


__all__ = ['ChangeDetection', 'Classification', 'SemanticSegmentation', 'log_training']
