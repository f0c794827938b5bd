"""Lightning task for segmentation with hsiaug's networks or any other."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..models.pfsegnet import PFSegNet
from ..models.segformer import SegFormer
from .segmentation import training_loss
from .torchgeo_tasks import SemanticSegmentation, log_training, own_network

_OWN: dict[str, Any] = {'segformer-hsi': SegFormer, 'pfsegnet': PFSegNet}


class SegmentationTask(SemanticSegmentation):  # type: ignore[misc]
    """torchgeo's task, with networks for many bands and with samples that have a ``weight``.

    Only the training of batches with ``weight``, and of PFSegNet with its edges, is not torchgeo's own.

    Args:
        model: ``'segformer-hsi'``, ``'pfsegnet'``, or a name that torchgeo's task knows.
        backbone: encoder of the network.
        network: a network from (n, C, H, W) to logits (n, K, H, W), in place of ``model``. Hyperparameters leave it
            out: give it again to ``load_from_checkpoint``.
        options: further arguments of hsiaug's networks, such as ``mapping``.
        edge_weight: of the supervision of edges, of PFSegNet.
        kwargs: arguments of torchgeo's task, such as ``in_channels``, ``num_classes``, ``ignore_index``, ``lr``.

    Raises:
        ValueError: for ``weights`` that hsiaug's networks cannot take, or a loss that cannot honour sample weights.
    """

    ignore = ('weights', 'network')

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

    def configure_models(self) -> None:
        """Take the given network, build one of hsiaug's, or leave it to torchgeo."""
        network = own_network(self, _OWN, self._given[0], self.hparams['num_classes'])
        if network is None:
            super().configure_models()
        else:
            self.model = network

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Training loss and metrics of one batch."""
        hp: Any = self.hparams
        if 'weight' not in batch and not isinstance(self.model, PFSegNet):
            return super().training_step(batch, batch_idx, dataloader_idx)
        if hp['loss'] != 'ce':
            raise ValueError(f"SegmentationTask: sample weights and edges need loss='ce', found {hp['loss']!r}")
        weights: Any = self.criterion.weight, batch.get('weight')
        options = hp['ignore_index'], *weights, hp['edge_weight']
        loss, logits = training_loss(self.model, batch['image'], batch['mask'], *options)
        self.train_metrics(logits, batch['mask'])
        log_training(self, loss, len(logits))
        return loss
