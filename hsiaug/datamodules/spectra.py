"""Lightning datamodule of spectra, real and mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from ..datasets import LabelPolicy, MixedDataset, SpectraDataset
from ..datasets.mixed import Mode
from ..samples import SampleSource
from ..scenes import Scene, Split


class EpochLoader(DataLoader[Any]):
    """A loader that tells its dataset which epoch begins each time that it is iterated."""

    def __iter__(self) -> Any:
        """Begin an epoch."""
        epoch = getattr(self, '_epochs', 0)
        self.dataset.set_epoch(epoch)  # type: ignore[attr-defined]
        self._epochs = epoch + 1
        return super().__iter__()


class SpectraDataModule(LightningDataModule):
    """Spectra of a split scene; with a source and a ratio, its training part is mixed.

    Synthetic samples are drawn anew every epoch, in persistent workers too: the epoch reaches them through shared
    memory.

    Args:
        scene: the scene.
        split: a split of it.
        source: generator or dataset of synthetic spectra; None for real data only.
        ratio: synthetic samples per real sample.
        mode: ``'append'`` or ``'replace'``.
        labels: classes of a live generator's samples.
        prior: (K,) class prior for ``labels='prior'``.
        batch_size: samples per batch.
        num_workers: of the loaders.
        seed: of every draw.
    """

    def __init__(
        self,
        scene: Scene,
        split: Split,
        source: SampleSource | None = None,
        ratio: float = 0.5,
        mode: Mode = 'append',
        labels: LabelPolicy = 'real',
        prior: np.ndarray | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.real = SpectraDataset(scene, split, 'train')
        self.val, self.test = (SpectraDataset(scene, split, part) for part in ('val', 'test'))  # type: ignore[arg-type]
        self.train_dataset: SpectraDataset | MixedDataset = self.real
        if source is not None:
            self.train_dataset = MixedDataset(self.real, source, ratio, seed, mode, labels, prior)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed

    def real_spectra(self) -> Tensor:
        """(N, C) real training spectra, on which normalisation is fitted."""
        return self.real.tensors()[0]

    def _loader(self, dataset: Any, shuffle: bool = False) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(self.seed) if shuffle else None
        loader = EpochLoader if isinstance(dataset, MixedDataset) else DataLoader
        return loader(
            dataset,
            self.batch_size,
            shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=generator,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training samples."""
        return self._loader(self.train_dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Real validation spectra."""
        return self._loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Real test spectra."""
        return self._loader(self.test)
