"""A Lightning task for spectra, which torchgeo has none for."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa

from ..models.nn1d import NN1D, Scaling
from .scene_classifier import scene_loss


class SpectralClassificationTask(LightningModule):
    """Trains a classifier of spectra on batches in the sample contract.

    torchgeo's ClassificationTask builds image models and misreads soft targets. This task uses ``label_prob`` as the
    target if a batch has it; metrics always use ``label``.

    Args:
        bands: number of bands C.
        num_classes: number of classes K.
        model: network from (n, C) to logits (n, K); by default, NN-1D.
        lr: learning rate of AdamW.
        weight_decay: weight decay of AdamW.
        scaling: input scaling of NN-1D, fitted on the datamodule's real training spectra.
    """

    def __init__(
        self,
        bands: int,
        num_classes: int,
        model: nn.Module | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        scaling: Scaling = 'standard',
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore='model')
        self.model = model or NN1D(bands, num_classes, scaling=scaling)
        metrics = MetricCollection(
            {
                'OA': MulticlassAccuracy(num_classes, average='micro'),
                'AA': MulticlassAccuracy(num_classes, average='macro'),
                'kappa': MulticlassCohenKappa(num_classes),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone(prefix='val_'), metrics.clone(prefix='test_')

    def on_fit_start(self) -> None:
        """Fit the input scaling on real training spectra."""
        datamodule = getattr(self.trainer, 'datamodule', None)
        real = getattr(datamodule, 'real_spectra', None)
        if isinstance(self.model, NN1D) and real is not None:
            self.model.scaler.fit(real().to(self.device))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (n, K)."""
        return self.model(image)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy against ``label_prob`` where there is one, else ``label``; weighted where ``weight`` is."""
        target = batch.get('label_prob', batch['label'])
        loss = scene_loss(self(batch['image']), target, sample_weights=batch.get('weight'))
        self.log('train_loss', loss, batch_size=len(batch['image']))
        if 'synthetic' in batch:
            share = batch['synthetic'].to(torch.float32).mean()
            self.log('train_synthetic', share, batch_size=len(batch['image']), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count one batch."""
        self.val_metrics.update(self(batch['image']).argmax(dim=1), batch['label'])

    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count one batch."""
        self.test_metrics.update(self(batch['image']).argmax(dim=1), batch['label'])

    def on_validation_epoch_end(self) -> None:
        """Accuracies of all batches, of all loaders together."""
        self._log(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Accuracies of all batches, of all loaders together."""
        self._log(self.test_metrics)

    def _log(self, metrics: MetricCollection) -> None:
        self.log_dict(metrics.compute())
        metrics.reset()

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """(n,) predicted labels."""
        return self(batch['image']).argmax(dim=1)

    def configure_optimizers(self) -> Any:
        """AdamW."""
        hp: Any = self.hparams
        # With precision='16-true' the usual 1e-8 is 0, and a parameter without gradient becomes 0 / 0.
        eps = 1e-4 if next(self.parameters()).dtype == torch.float16 else 1e-8
        return torch.optim.AdamW(self.parameters(), lr=hp['lr'], weight_decay=hp['weight_decay'], eps=eps)
