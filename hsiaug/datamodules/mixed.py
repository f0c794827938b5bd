"""Synthetic samples mixed into the training part of any Lightning datamodule."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchgeo.datamodules import BaseDataModule, GeoDataModule

from ..datasets import LabelPolicy, MixedDataset, SyntheticBank
from ..datasets.batches import fetch
from ..datasets.mixed import require_mixable
from ..datasets.pool import Source, SyntheticPool
from ..datasets.preview import preview_grid
from ..ratio import Constant, Mode, Schedule, as_schedule, require_mode
from ..samplers import mixed_loader
from ..systems import Generator
from ..transforms import SyntheticMix
from ..transforms.bitemporal import make_change_safe

Way = Literal['auto', 'dataset', 'batch']
_GEO_KEYS = ('crs', 'bounds', 'bbox', 'transform')  # where on Earth a real patch lies; a synthetic one lies nowhere


class _Opaque(str):
    """The key of a change mask, which kornia must not take for one.

    To draw figures, torchgeo's ChangeDetectionTask runs kornia's VideoSequential on validation batches, which raises on
    two dates with one mask. kornia finds its keys by ``upper()`` and lets unknown ones pass; look-ups work as ever.
    """

    def upper(self) -> str:
        return ''


def open_source(source: Source | str | os.PathLike[str]) -> Source:
    """A bank's or a generator's folder, opened; anything else as it is.

    Raises:
        FileNotFoundError: if the folder holds neither.
    """
    if not isinstance(source, str | os.PathLike):
        return source
    folder = Path(source)
    if (folder / 'bank.json').exists() or (folder / 'bank.writing.json').exists():
        return SyntheticBank.open(folder)
    if (folder / 'config.json').exists():
        return Generator.from_pretrained(folder)
    raise FileNotFoundError(
        f'{folder} holds neither a bank (bank.json) nor a generator (config.json); write one with hsiaug sample or '
        'hsiaug train'
    )


class MixedDataModule(BaseDataModule):
    """Mixes synthetic samples into the training batches of another datamodule, which stays as it is.

    Its normalisation and augmentations run on synthetic samples too, validation and test remain real, and everything
    else (``plot``, ``mean``, ``batch_size``, ...) is the inner module's. A change-detection module's augmentations that
    kornia would misalign are replaced (:class:`~hsiaug.transforms.BitemporalAugmentation`).

    Two ways: *dataset* rebuilds the training loader around a :class:`~hsiaug.datasets.MixedDataset` with batches of
    exact composition, so that loader workers read the synthetic samples; *batch* mixes on the device, before the inner
    module's augmentations, with :class:`~hsiaug.transforms.SyntheticMix`, which Geo modules and live generators need.
    In append mode the *dataset* way makes more steps of the same batch size, the *batch* way as many steps of larger
    batches.

    ``real_seen`` and ``synthetic_seen`` count what this process trained on; they are logged as ``mix/...`` and kept in
    checkpoints.

    Args:
        inner: any Lightning datamodule whose training samples are dictionaries in the sample contract.
        source: a generator, a bank, any dataset in the sample contract, or the folder of a bank or a generator.
        ratio: synthetic samples per real sample, >= 0, or a schedule over epochs.
        mode: ``'append'`` or ``'replace'``.
        way: ``'dataset'``, ``'batch'``, or ``'auto'``: *batch* for Geo modules and live generators.
        labels: classes of the synthetic samples; None is the real frequencies for a generator, and everything as it
            comes for a dataset.
        prior: (K,) class prior for ``labels='prior'``.
        replacement: use a dataset's samples again within an epoch.
        weight: loss weight of synthetic samples, carried as ``weight``, 1 for real ones; None for no such key.
        seed: of every draw.

    Raises:
        ValueError: for an unknown mode or way, or a negative ratio.
        SpecMismatchError: if source and real data do not fit together, at the latest with the first batch.
        LeakageError: if the source's generator has seen test pixels of the real data's split.
    """

    def __init__(
        self,
        inner: LightningDataModule,
        source: str | os.PathLike[str] | Dataset[Any] | nn.Module,
        ratio: float | Schedule = 0.5,
        mode: Mode = 'append',
        way: Way = 'auto',
        labels: LabelPolicy | None = None,
        prior: np.ndarray | None = None,
        replacement: bool = False,
        weight: float | None = None,
        seed: int = 0,
    ) -> None:
        if way not in get_args(Way):
            raise ValueError(f'MixedDataModule: unknown way {way!r}; choose from {get_args(Way)}')
        LightningDataModule.__init__(self)  # BaseDataModule's own makes a dataset, which the inner module has
        self.inner = inner
        self.source: Source = open_source(source)  # type: ignore[arg-type]
        self.schedule, self.mode = as_schedule(ratio), require_mode(mode, 'MixedDataModule')
        live = not isinstance(self.source, Dataset)
        self.way = way if way != 'auto' else 'batch' if live or isinstance(inner, GeoDataModule) else 'dataset'
        self.options: dict[str, Any] = {
            'mode': mode, 'labels': labels, 'prior': prior, 'replacement': replacement, 'weight': weight, 'seed': seed,
        }  # fmt: skip
        self.mix: SyntheticMix | None = None
        self.mixed: MixedDataset | None = None
        self._resumed: list[int] | None = None
        self.real_seen = self.synthetic_seen = 0

    # --- everything that is the inner module's ----------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name == 'inner' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def trainer(self) -> Trainer | None:  # type: ignore[override]
        """The trainer. The inner module gets it too: without one torchgeo's skip their augmentations in silence."""
        return self.__dict__.get('_trainer')

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        self._trainer = trainer
        if 'inner' in self.__dict__:
            self.inner.trainer = trainer

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        """The inner module's mean."""
        return self.__getattr__('mean')  # type: ignore[no-any-return]

    @property
    def std(self) -> Tensor:  # type: ignore[override]
        """The inner module's standard deviation."""
        return self.__getattr__('std')  # type: ignore[no-any-return]

    def prepare_data(self) -> None:
        """Prepare the inner module's data."""
        self.inner.prepare_data()

    def val_dataloader(self) -> Any:
        """Real validation samples."""
        return self.inner.val_dataloader()

    def test_dataloader(self) -> Any:
        """Real test samples."""
        return self.inner.test_dataloader()

    def predict_dataloader(self) -> Any:
        """The inner module's samples to predict."""
        return self.inner.predict_dataloader()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Transfer as the inner module does."""
        return self.inner.transfer_batch_to_device(batch, device, dataloader_idx)

    def plot(self, *args: Any, **kwargs: Any) -> Figure | None:
        """The inner module's plot."""
        return self.__getattr__('plot')(*args, **kwargs)  # type: ignore[no-any-return]

    # --- mixing -----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Set the inner module up."""
        self.inner.setup(stage)
        make_change_safe(self.inner)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches; in the *dataset* way with synthetic samples in them."""
        loader = self.inner.train_dataloader()
        if self.way == 'batch':
            real = getattr(loader, 'dataset', None)
            counts = getattr(real, 'class_counts', None)
            self.mix = SyntheticMix(self.source, self.schedule, real_counts=counts, **self.options)
            if real is not None:
                require_mixable(real, self.mix.pool)
            if self._resumed is not None:
                self.mix.set_extra_state(torch.tensor(self._resumed))
                self._resumed = None
            return loader
        if not isinstance(loader, DataLoader):
            raise TypeError(
                f'MixedDataModule: one training DataLoader expected, the inner module gives a {type(loader).__name__}; '
                "choose way='batch'"
            )
        self._refuse_changing_length()
        self.mixed = MixedDataset(loader.dataset, self.source, self.schedule, **self.options)
        self.mixed.set_epoch(self.trainer.current_epoch if self.trainer is not None else 0)
        return mixed_loader(loader, self.mixed, self.options['seed'])

    def _refuse_changing_length(self) -> None:
        """Lightning reads the number of batches once, unless it is told to reload loaders."""
        reloads = getattr(self.trainer, 'reload_dataloaders_every_n_epochs', 0)
        if self.mode == 'append' and not isinstance(self.schedule, Constant) and self.trainer and reloads != 1:
            raise ValueError(
                'MixedDataModule: a schedule in append mode changes the number of batches, which Lightning reads once; '
                "choose mode='replace', or Trainer(reload_dataloaders_every_n_epochs=1)"
            )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count what the *dataset* way mixed, before it moves to a device."""
        if self.way == 'dataset' and self._training() and 'synthetic' in batch:
            synthetic = int(batch['synthetic'].sum())
            self.synthetic_seen += synthetic
            self.real_seen += len(batch['synthetic']) - synthetic
            self._log()
        return self._inner_hook('on_before_batch_transfer')(batch, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mix (the *batch* way), then the inner module's normalisation and augmentations."""
        if self.way == 'batch' and self._training() and self.mix is not None and self.trainer is not None:
            if self.mix.epoch != self.trainer.current_epoch:
                self.mix.set_epoch(self.trainer.current_epoch)
            batch = self.mix({key: value for key, value in batch.items() if key not in _GEO_KEYS})
            self.real_seen, self.synthetic_seen = self.mix.real_seen, self.mix.synthetic_seen
            self._log()
        batch = self._inner_hook('on_after_batch_transfer')(batch, dataloader_idx)
        if not self._training() and 'mask' in batch and batch['image'].ndim == 5:
            return {_Opaque(key) if key == 'mask' else key: value for key, value in batch.items()}
        return batch

    def _inner_hook(self, name: str) -> Any:
        """The inner module's hook or, where it has none of its own, the task's, which ours hides from Lightning."""
        own = getattr(type(self.inner), name) is not getattr(LightningDataModule, name)
        task = None if self.trainer is None else self.trainer.lightning_module
        return getattr(self.inner if own or task is None else task, name)

    def _training(self) -> bool:
        return self.trainer is not None and self.trainer.training

    def _log(self) -> None:
        trainer = self.trainer
        if trainer is None or trainer.global_step % max(getattr(trainer, 'log_every_n_steps', 1), 1):
            return
        for logger in trainer.loggers:
            logger.log_metrics(self._metrics(), step=trainer.global_step)

    def _metrics(self) -> dict[str, float]:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        seen = {'mix/real_seen': float(self.real_seen), 'mix/synthetic_seen': float(self.synthetic_seen)}
        return {**seen, 'mix/ratio': self.schedule(epoch)}

    def teardown(self, stage: str) -> None:
        """Log the final counts, so that a log proves the ratio."""
        if stage == 'fit' and self.trainer is not None:
            for logger in self.trainer.loggers:
                logger.log_metrics(self._metrics(), step=self.trainer.global_step)
        self.inner.teardown(stage)

    def state_dict(self) -> dict[str, Any]:
        """Counts, position of the *batch* way, and the inner module's state."""
        state = self.mix.get_extra_state().tolist() if self.mix is not None else None
        seen = {'real_seen': self.real_seen, 'synthetic_seen': self.synthetic_seen}
        return {**seen, 'mix': state, 'inner': self.inner.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.real_seen, self.synthetic_seen = state_dict['real_seen'], state_dict['synthetic_seen']
        self._resumed = state_dict['mix']  # Lightning restores before it asks for loaders
        self.inner.load_state_dict(state_dict['inner'])

    # --- to look at -------------------------------------------------------------------------------------------------

    def describe(self, count: int = 6) -> Figure:
        """Print what is mixed, and draw real and synthetic training samples side by side.

        Args:
            count: number of samples of each side.

        Returns:
            a matplotlib figure, registered with no window.
        """
        self.setup('fit')
        pool = SyntheticPool(self.source, self.options['seed'])
        if pool.spec is None:
            raise ValueError(f'describe needs a source with a spec, found {type(self.source).__name__} without one')
        loader = self.inner.train_dataloader()
        real = next(iter(loader))
        if isinstance(loader.dataset, Dataset) and not isinstance(self.inner, GeoDataModule):
            rows = np.linspace(0, len(loader.dataset) - 1, min(4 * count, len(loader.dataset))).astype(int)  # type: ignore[arg-type]
            real = fetch(loader.dataset, rows)
        text = f'{pool} mixed into {type(self.inner).__name__}: {self.schedule}, {self.mode}'
        print(text)
        return preview_grid(real, pool.random(4 * count, seed=0), pool.spec, count, suptitle=text)
