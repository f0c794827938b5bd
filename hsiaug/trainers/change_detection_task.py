"""Lightning task for change detection with hsiaug's networks or any other."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..losses.change import SIDE_WEIGHTS, BinaryChangeLoss
from ..losses.segmentation import segmentation_loss
from ..models.changeformer import ChangeFormerV6
from .change_detection import NETWORKS
from .torchgeo_tasks import ChangeDetection, log_training, own_network


class Adapted(nn.Module):
    """A network on pairs of dates as torchgeo's task calls it.

    The task hands dates stacked along bands to networks whose names it does not know, and a binary task has one
    logit, which is the difference of the two classes' logits.

    Args:
        network: from (n, 2, C, H, W) to logits (n, K, H, W).
        binary: whether the task is binary, and K is 2.
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


class ChangeTask(ChangeDetection):  # type: ignore[misc]
    """torchgeo's task, with networks for many bands, side outputs, ignored pixels and samples that have a ``weight``.

    Only the training of batches with ``weight``, and of ChangeFormer V6 with its side outputs, is not torchgeo's own;
    and its binary cross-entropy takes ``ignore_index``, which torchgeo's does not.

    Args:
        model: ``'changeformer-v3'``, ``'changeformer-v6'``, ``'siamcrnn'``, or a name that torchgeo's task knows.
        backbone: encoder of the network.
        network: a network from (n, 2, C, H, W) to logits (n, K, H, W), of which a binary task needs 2, in place of
            ``model``. Hyperparameters leave it out: give it again to ``load_from_checkpoint``.
        options: further arguments of hsiaug's networks, such as ``channels``.
        kwargs: arguments of torchgeo's task, such as ``in_channels``, ``task``, ``ignore_index``, ``lr``.

    Raises:
        ValueError: for ``weights`` that hsiaug's networks cannot take, or a loss that cannot honour sample weights.
    """

    ignore = ('weights', 'network')

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

    def configure_models(self) -> None:
        """Take the given network, build one of hsiaug's, or leave it to torchgeo."""
        hp: Any = self.hparams
        binary = hp['task'] == 'binary'
        network = own_network(self, NETWORKS, self._given[0], 2 if binary else hp['num_classes'] or hp['num_labels'])
        if network is None:
            super().configure_models()
        else:
            self.model = Adapted(network, binary)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Training loss and metrics of one batch."""
        hp: Any = self.hparams
        own = self.model if isinstance(self.model, Adapted) else None
        sides: list[Tensor] = []
        if 'weight' not in batch and not (own and isinstance(own.network, ChangeFormerV6)):
            return super().training_step(batch, batch_idx)
        if hp['loss'] not in ('bce', 'ce'):
            raise ValueError(
                f"ChangeTask: sample weights and side outputs need loss='bce' or 'ce', found {hp['loss']!r}"
            )
        image, mask = batch['image'], batch['mask']
        if own is not None:
            logits, sides = own.forward_with_sides(image)
        else:
            paired = hp['model'].startswith('fcsiam') or hp['model'] == 'changevit'
            logits = self.model(image if paired else image.flatten(1, 2))
        mask = mask[:, 0].long() if hp['task'] == 'multiclass' else mask
        loss = self._loss(logits, mask, batch.get('weight'))
        for weight, side in zip(SIDE_WEIGHTS, sides, strict=bool(sides)):
            loss = loss + weight * self._loss(side, mask, batch.get('weight'))
        self.train_metrics(logits, mask)
        log_training(self, loss, len(logits))
        return loss

    def _loss(self, logits: Tensor, mask: Tensor, sample_weights: Tensor | None) -> Tensor:
        hp: Any = self.hparams
        if hp['loss'] == 'bce':
            loss: Tensor = self.criterion(logits, mask, sample_weights)
            return loss
        weight: Any = self.criterion.weight
        return segmentation_loss(logits, mask, hp['ignore_index'], weight, sample_weights)
