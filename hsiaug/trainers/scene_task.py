"""Lightning task for the classification of images with hsiaug's networks or any other."""

from __future__ import annotations

from typing import Any, get_args

import timm
from torch import Tensor, nn
from torchmetrics.classification import MulticlassCohenKappa

from ..models.scene_classifiers import SceneModel, scene_classifier
from .scene_classifier import scene_loss
from .torchgeo_tasks import Classification, log_training


class SceneClassificationTask(Classification):  # type: ignore[misc]
    """torchgeo's task, with networks that it does not build, and samples with ``label_prob`` or ``weight``.

    torchgeo's own task builds timm's models alone, and takes class probabilities for labels without a word. Here they
    are the target of training where a batch has them; metrics are always against ``label``. Cohen's kappa is logged
    with torchgeo's metrics.

    Args:
        model: ``'alexnet'``, ``'cnn2d'`` or ``'cnn3d'`` of
            :func:`~hsiaug.models.scene_classifiers.scene_classifier`, or a name that timm knows. ``'vgg16'`` and
            ``'resnet18'``, which are known to both, are hsiaug's where ``options`` are given.
        size: (H, W) of the images, which the former need to know.
        network: a network from (n, C, H, W) to logits (n, K), in place of ``model``. Hyperparameters leave it out: give
            it again to ``load_from_checkpoint``.
        options: further arguments of hsiaug's networks: ``narrow``, ``dropout``, ``upsampling``.
        kwargs: arguments of torchgeo's task, such as ``in_channels``, ``num_classes``, ``class_weights``, ``lr``.

    Raises:
        ValueError: for pretrained ``weights`` or a frozen backbone of hsiaug's networks, which have neither, or a loss
            that cannot honour what samples carry.
    """

    ignore = ('weights', 'network')

    def __init__(
        self,
        model: str = 'resnet18',
        size: tuple[int, int] = (32, 32),
        network: nn.Module | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._given = (network,)  # a module itself cannot be kept before the base class is set up
        super().__init__(model, **kwargs)

    def configure_models(self) -> None:
        """Take the given network, build one of hsiaug's, or leave it to torchgeo."""
        hp: Any = self.hparams
        if self._given[0] is not None:
            self.model = self._given[0]
        elif hp['model'] not in get_args(SceneModel) or (hp['options'] is None and timm.is_model(hp['model'])):
            super().configure_models()
        elif self.weights or hp['freeze_backbone']:
            raise ValueError(
                f'SceneClassificationTask: {hp["model"]!r} is trained from scratch, found weights={self.weights!r} and '
                f'freeze_backbone={hp["freeze_backbone"]}; give a pretrained network, or the name of one of timm'
            )
        else:
            size = hp['size'][0], hp['size'][1]
            self.model = scene_classifier(
                hp['model'], hp['in_channels'], hp['num_classes'], size, **(hp['options'] or {})
            )

    def configure_metrics(self) -> None:
        """Set up torchgeo's metrics, and Cohen's kappa."""
        super().configure_metrics()
        hp: Any = self.hparams
        if hp['task'] == 'multiclass':
            for metrics in (self.train_metrics, self.val_metrics, self.test_metrics):
                metrics.add_metrics({'CohenKappa': MulticlassCohenKappa(hp['num_classes'])})

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Training loss and metrics of one batch."""
        hp: Any = self.hparams
        if not {'label_prob', 'weight'} & set(batch):
            return super().training_step(batch, batch_idx, dataloader_idx)
        if hp['loss'] != 'ce':
            raise ValueError(f"SceneClassificationTask: label_prob and weight need loss='ce', found {hp['loss']!r}")
        logits = self(batch['image'])
        target = batch.get('label_prob', batch['label'])
        loss = scene_loss(logits, target, self.criterion.weight, batch.get('weight'))  # type: ignore[arg-type]
        self.train_metrics(logits, batch['label'])
        log_training(self, loss, len(logits))
        return loss
