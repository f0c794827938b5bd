"""torchgeo's tasks, by the names that version 0.10 gave them, from whichever version is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

try:
    from torchgeo.tasks import ChangeDetection, Classification, SemanticSegmentation
except ImportError:  # before 0.10
    from torchgeo.trainers import ChangeDetectionTask as ChangeDetection
    from torchgeo.trainers import ClassificationTask as Classification
    from torchgeo.trainers import SemanticSegmentationTask as SemanticSegmentation


def own_network(task: Any, networks: Mapping[str, Any], given: nn.Module | None, classes: int) -> nn.Module | None:
    """The network ``given`` to one of torchgeo's tasks, or one of hsiaug's by its name; None where that is torchgeo's.

    Parts that the hyperparameters freeze are frozen.
    """
    hp = task.hparams
    if given is None and hp['model'] not in networks:
        return None
    if given is None:
        if task.weights not in (None, True, False):
            raise ValueError(
                f'{type(task).__name__}: weights of {hp["model"]!r} are True or None, found {task.weights!r}'
            )
        weights = 'imagenet' if task.weights else None
        make, options = networks[hp['model']], hp['options'] or {}
        given = make(hp['in_channels'], classes, hp['backbone'], encoder_weights=weights, **options)
    assert given is not None
    for name, part in given.named_children():
        frozen = 'backbone' if name == 'encoder' else 'decoder'
        if hp[f'freeze_{frozen}'] and name not in ('mapping', 'head'):
            part.requires_grad_(False)
    return given


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


__all__ = ['ChangeDetection', 'Classification', 'SemanticSegmentation', 'log_training', 'own_network']
