"""torchgeo's Lightning tasks with hsiaug's networks or your own, and support for sample weights.

torchgeo's tasks are called by their names since version 0.10, whichever version is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import timm
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassCohenKappa

from ..losses.change import SIDE_WEIGHTS, BinaryChangeLoss
from ..losses.segmentation import segmentation_loss
from ..models.changeformer import ChangeFormerV6
from ..models.pfsegnet import PFSegNet
from ..models.scene_classifiers import SceneModel, scene_classifier
from ..models.segformer import SegFormer
from .change_detection import NETWORKS
from .scene_classifier import scene_loss
from .segmentation import training_loss

try:
    from torchgeo.tasks import ChangeDetection, Classification, SemanticSegmentation
except ImportError:  # before 0.10
    from torchgeo.trainers import ChangeDetectionTask as ChangeDetection
    from torchgeo.trainers import ClassificationTask as Classification
    from torchgeo.trainers import SemanticSegmentationTask as SemanticSegmentation

_SEGMENTERS: dict[str, Any] = {'segformer-hsi': SegFormer, 'pfsegnet': PFSegNet}
Loss = tuple[Tensor, Tensor, Tensor]
"""Loss of a batch, its logits, and the targets that these are measured against."""


class _Task:
    """What is added to torchgeo's tasks: networks that they do not build, and batches that they do not weigh."""

    ignore = ('weights', 'network')  # hyperparameters that are not kept
    keys: ClassVar[tuple[str, ...]] = ('weight',)
    """Of a batch whose loss is not torchgeo's."""
    always: ClassVar[Any] = ()
    """Class of a network whose loss never is."""
    losses: ClassVar[tuple[str, ...]] = ('ce',)
    """That can honour both."""
    added: ClassVar[str]
    """What both are, in words."""

    def configure_models(self: Any) -> None:
        """Take the given network, build one of hsiaug's, or leave it to torchgeo."""
        network = self.own_network()
        if network is None:
            super().configure_models()  # type: ignore[misc]
        else:
            self.model = network

    def named_network(self: Any, networks: Mapping[str, Any], classes: int) -> nn.Module | None:
        """The given network, or one of hsiaug's by its name; None for one of torchgeo's.

        Parts that the hyperparameters freeze are frozen.
        """
        hp, (network,) = self.hparams, self._given
        if network is None and hp['model'] not in networks:
            return None
        if network is None:
            if self.weights not in (None, True, False):
                raise ValueError(
                    f'{type(self).__name__}: weights of {hp["model"]!r} are True or None, found {self.weights!r}'
                )
            weights = 'imagenet' if self.weights else None
            make, options = networks[hp['model']], hp['options'] or {}
            network = make(hp['in_channels'], classes, hp['backbone'], encoder_weights=weights, **options)
        for name, part in network.named_children():
            frozen = 'backbone' if name == 'encoder' else 'decoder'
            if hp[f'freeze_{frozen}'] and name not in ('mapping', 'head'):
                part.requires_grad_(False)
        return network  # type: ignore[no-any-return]

    def training_step(self: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Training loss and metrics of one batch."""
        network = getattr(self.model, 'network', self.model)  # of an Adapted one
        if not set(self.keys) & set(batch) and not isinstance(network, self.always):
            return super().training_step(batch, batch_idx)  # type: ignore[misc, no-any-return]
        if (found := self.hparams['loss']) not in self.losses:
            wanted = ' or '.join(map(repr, self.losses))
            raise ValueError(f'{type(self).__name__}: {self.added} need loss={wanted}, found {found!r}')
        loss, logits, target = self.added_loss(batch)
        self.train_metrics(logits, target)
        # As torchgeo up to 0.8 does in each step; later versions log metrics after each epoch.
        if type(self).on_train_epoch_end is LightningModule.on_train_epoch_end:
            self.log_dict(self.train_metrics, batch_size=len(logits))
        self.log('train_loss', loss, batch_size=len(logits))
        return loss  # type: ignore[no-any-return]


class SegmentationTask(_Task, SemanticSegmentation):  # type: ignore[misc]
    """torchgeo's semantic segmentation task with networks for many bands and support for a sample ``weight``.

    Only training on batches with ``weight``, and with the edge loss of PFSegNet, differs from torchgeo's.

    Args:
        model: ``'segformer-hsi'``, ``'pfsegnet'``, or a model of torchgeo's task.
        backbone: encoder of the network.
        network: a network from (n, C, H, W) to logits (n, K, H, W), used instead of ``model``. It is not saved as a
            hyperparameter: pass it again to ``load_from_checkpoint``.
        options: further arguments of hsiaug's networks, such as ``mapping``.
        edge_weight: weight of the edge loss of PFSegNet.
        kwargs: arguments of torchgeo's task, such as ``in_channels``, ``num_classes``, ``ignore_index``, ``lr``.

    Raises:
        ValueError: for ``weights`` that hsiaug's networks cannot load, or a loss that does not support sample weights.
    """

    always, added = PFSegNet, 'sample weights and edges'

    def __init__(
        self,
        model: str = 'segformer-hsi',
        backbone: str = 'mit_b0',
        network: nn.Module | None = None,
        options: dict[str, Any] | None = None,
        edge_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        self._given = (network,)  # a module itself cannot be kept before the base class is set up
        super().__init__(model, backbone, **kwargs)  # type: ignore[arg-type]

    def own_network(self) -> nn.Module | None:
        """From images to logits."""
        return self.named_network(_SEGMENTERS, self.hparams['num_classes'])

    def added_loss(self, batch: Any) -> Loss:
        """See :func:`~hsiaug.trainers.segmentation.training_loss`."""
        hp: Any = self.hparams
        weights: Any = self.criterion.weight, batch.get('weight')
        options = hp['ignore_index'], *weights, hp['edge_weight']
        return *training_loss(self.model, batch['image'], batch['mask'], *options), batch['mask']


class Adapted(nn.Module):
    """A network from pairs of dates (n, 2, C, H, W) to logits (n, K, H, W) as torchgeo's task calls it.

    The task hands dates stacked along bands to networks whose names it does not know, and a binary task has one logit,
    which is the difference of the two classes' logits.
    """

    def __init__(self, network: nn.Module, binary: bool) -> None:
        super().__init__()
        self.network, self.binary = network, binary

    def _logits(self, logits: Tensor) -> Tensor:
        return logits[:, 1:] - logits[:, :1] if self.binary else logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 1, H, W) or (n, K, H, W) of (n, 2, C, H, W) or (n, 2C, H, W)."""
        return self._logits(self.network(x if x.ndim == 5 else x.unflatten(1, (2, -1))))

    def forward_with_sides(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and, where the network has them, those of side outputs, of (n, 2, C, H, W)."""
        if not isinstance(self.network, ChangeFormerV6):
            return self(image), []
        logits, sides = self.network.forward_with_sides(image)
        return self._logits(logits), [self._logits(side) for side in sides]


class ChangeTask(_Task, ChangeDetection):  # type: ignore[misc]
    """torchgeo's change detection task with networks for many bands, ignored pixels and support for a ``weight``.

    Only training on batches with ``weight``, and with the side outputs of ChangeFormer V6, differs from torchgeo's;
    also, its binary cross-entropy supports ``ignore_index``, which torchgeo's does not.

    Args:
        model: ``'changeformer-v3'``, ``'changeformer-v6'``, ``'siamcrnn'``, or a model of torchgeo's task.
        backbone: encoder of the network.
        network: as for :class:`SegmentationTask`, but from (n, 2, C, H, W), and with K = 2 for a binary task.
        options: further arguments of hsiaug's networks, such as ``channels``.
        kwargs: arguments of torchgeo's task, such as ``in_channels``, ``task``, ``ignore_index``, ``lr``.

    Raises:
        ValueError: for ``weights`` that hsiaug's networks cannot load, or a loss that does not support sample weights.
    """

    always, added, losses = ChangeFormerV6, 'sample weights and side outputs', ('bce', 'ce')

    def __init__(
        self,
        model: str = 'changeformer-v3',
        backbone: str = 'changeformer',
        network: nn.Module | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._given = (network,)  # a module itself cannot be kept before the base class is set up
        super().__init__(model, backbone, **kwargs)  # type: ignore[arg-type]

    def configure_losses(self) -> None:
        """Have ignored pixels left out of the binary cross-entropy."""
        super().configure_losses()
        hp: Any = self.hparams
        if hp['loss'] == 'bce':
            self.criterion = BinaryChangeLoss(hp['ignore_index'], hp['pos_weight'])

    def own_network(self) -> nn.Module | None:
        """From pairs of dates to logits."""
        hp: Any = self.hparams
        binary = hp['task'] == 'binary'
        network = self.named_network(NETWORKS, 2 if binary else hp['num_classes'] or hp['num_labels'])
        return None if network is None else Adapted(network, binary)

    def added_loss(self, batch: Any) -> Loss:
        """Of the logits and of side outputs, where the network has them."""
        hp: Any = self.hparams
        image, mask, weight = batch['image'], batch['mask'], batch.get('weight')
        sides: list[Tensor] = []
        if isinstance(self.model, Adapted):
            logits, sides = self.model.forward_with_sides(image)
        else:
            paired = hp['model'].startswith('fcsiam') or hp['model'] == 'changevit'
            logits = self.model(image if paired else image.flatten(1, 2))
        mask = mask[:, 0].long() if hp['task'] == 'multiclass' else mask
        loss = self._loss(logits, mask, weight)
        for share, side in zip(SIDE_WEIGHTS, sides, strict=bool(sides)):
            loss = loss + share * self._loss(side, mask, weight)
        return loss, logits, mask

    def _loss(self, logits: Tensor, mask: Tensor, sample_weights: Tensor | None) -> Tensor:
        hp: Any = self.hparams
        if hp['loss'] == 'bce':
            loss: Tensor = self.criterion(logits, mask, sample_weights)
            return loss
        weight: Any = self.criterion.weight
        return segmentation_loss(logits, mask, hp['ignore_index'], weight, sample_weights)


class SceneClassificationTask(_Task, Classification):  # type: ignore[misc]
    """torchgeo's classification task with further networks, and support for samples with ``label_prob`` or ``weight``.

    torchgeo's own task builds only timm models, and silently treats class probabilities as labels. Here, they are the
    training target if a batch has them; metrics always use ``label``. Cohen's kappa is logged with torchgeo's metrics.

    Args:
        model: ``'alexnet'``, ``'cnn2d'`` or ``'cnn3d'`` of
            :func:`~hsiaug.models.scene_classifiers.scene_classifier`, or the name of a timm model. ``'vgg16'`` and
            ``'resnet18'``, which exist in both, are hsiaug's if ``options`` are given.
        size: (H, W) of the images, required for hsiaug's networks.
        network: a network from (n, C, H, W) to logits (n, K), used instead of ``model``. It is not saved as a
            hyperparameter: pass it again to ``load_from_checkpoint``.
        options: further arguments of hsiaug's networks: ``narrow``, ``dropout``, ``upsampling``.
        kwargs: arguments of torchgeo's task, such as ``in_channels``, ``num_classes``, ``class_weights``, ``lr``.

    Raises:
        ValueError: for pretrained ``weights`` or a frozen backbone with hsiaug's networks, which have neither, or a
            loss that does not support probabilities or weights.
    """

    keys, added = ('label_prob', 'weight'), 'label_prob and weight'

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

    def own_network(self) -> nn.Module | None:
        """From images to logits."""
        hp: Any = self.hparams
        if self._given[0] is not None:
            return self._given[0]
        if hp['model'] not in get_args(SceneModel) or (hp['options'] is None and timm.is_model(hp['model'])):
            return None
        if self.weights or hp['freeze_backbone']:
            raise ValueError(
                f'SceneClassificationTask: {hp["model"]!r} is trained from scratch, found weights={self.weights!r} and '
                f'freeze_backbone={hp["freeze_backbone"]}; give a pretrained network, or the name of one of timm'
            )
        size = hp['size'][0], hp['size'][1]
        return scene_classifier(hp['model'], hp['in_channels'], hp['num_classes'], size, **(hp['options'] or {}))

    def configure_metrics(self) -> None:
        """Set up torchgeo's metrics, and Cohen's kappa."""
        super().configure_metrics()
        hp: Any = self.hparams
        if hp['task'] == 'multiclass':
            for metrics in (self.train_metrics, self.val_metrics, self.test_metrics):
                metrics.add_metrics({'CohenKappa': MulticlassCohenKappa(hp['num_classes'])})

    def added_loss(self, batch: Any) -> Loss:
        """See :func:`~hsiaug.trainers.scene_classifier.scene_loss`."""
        logits, target, weights = self(batch['image']), batch.get('label_prob', batch['label']), self.criterion.weight
        return scene_loss(logits, target, weights, batch.get('weight')), logits, batch['label']  # type: ignore[arg-type]
