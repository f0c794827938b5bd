"""Lightning datamodule of the spectra of a scene, real or mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from ..datasets import MixedDataset, SpectraDataset
from ..datasets.mixing.exhausted import Exhausted
from ..datasets.mixing.sources import LabelPolicies, NamedSources, Ratios
from ..ratio import Mode
from ..scenes import Scene, Split
from .loading import mixed_train_loader


class SpectraDataModule(LightningDataModule):
    """Spectra of a split scene; with a source and a ratio, its training part is mixed.

    Every epoch draws new synthetic samples, also in persistent workers, which learn of the epoch through shared memory.

    Args:
        scene: the scene.
        split: a split of the scene.
        source: generator or dataset of synthetic spectra, or several by name; None for real data only.
        batch_size: number of samples per batch.
        num_workers: number of workers of each loader.
        ratio, mode, labels, prior, seed, different_scales, on_exhausted, epoch_size: as for
            :class:`~hsiaug.datasets.MixedDataset`.
    """

    def __init__(
        self,
        scene: Scene,
        split: Split,
        source: NamedSources | None = None,
        ratio: Ratios = 0.5,
        mode: Mode = 'append',
        labels: LabelPolicies = None,
        prior: np.ndarray | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        different_scales: bool = False,
        on_exhausted: Exhausted = 'error',
        epoch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.real = SpectraDataset(scene, split, 'train')
        self.val, self.test = (SpectraDataset(scene, split, part) for part in ('val', 'test'))  # type: ignore[arg-type]
        self.mixed = None
        if source is not None:
            self.mixed = MixedDataset(
                self.real, source, ratio, seed, mode, labels, prior, different_scales=different_scales,
                on_exhausted=on_exhausted, epoch_size=epoch_size,
            )  # fmt: skip
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed

    def real_spectra(self) -> Tensor:
        """(N, C) real training spectra, on which normalisation is fitted."""
        return self.real.tensors()[0]

    def _loader(self, dataset: Any, shuffle: bool = False) -> DataLoader[Any]:
        generator, workers = torch.Generator().manual_seed(self.seed) if shuffle else None, self.num_workers
        return DataLoader(
            dataset, self.batch_size, shuffle, num_workers=workers, persistent_workers=workers > 0, generator=generator
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training samples."""
        loader = self._loader(self.real, shuffle=True)
        if self.mixed is None:
            return loader
        return mixed_train_loader(self.trainer, loader, self.mixed, self.seed, 'SpectraDataModule')

    def val_dataloader(self) -> DataLoader[Any]:
        """Real validation spectra."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Real test spectra."""
        return self._loader(self.test)
