"""Mixing of synthetic samples into the training part of any Lightning datamodule."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchgeo.datamodules import BaseDataModule, GeoDataModule
from torchgeo.datasets import GeoDataset

from ..datasets import MixedDataset, SyntheticBank, require_unseen_samples
from ..datasets.contract.batches import fetch, spread_rows
from ..datasets.contract.wrapped import counts_of, look_through
from ..datasets.mixing.checks import Use
from ..datasets.mixing.exhausted import Exhausted, require_policy
from ..datasets.mixing.sources import LabelPolicies, Ratios, Sources, require_same
from ..datasets.pools.pool import Draw, Source
from ..datasets.preview import preview_grid
from ..evidence import Recommendation
from ..ratio import Mode
from ..settings import check_value
from ..systems import Generator
from ..systems.saved import find_folder
from ..transforms import SyntheticMix
from ..transforms.bitemporal import make_change_safe, with_hidden_mask
from .loading import batches_trained, mixed_train_loader, overfits, require_one_loader, resume_point, samples_of_epoch

Way = Literal['auto', 'dataset', 'batch']
_AHEAD = 10_000  # epochs of which it is known beforehand whether a source holds enough


def open_source(source: Source | str | os.PathLike[str]) -> Source:
    """A bank's or a generator's folder, or ``hf://owner/name`` for a generator on the hub, opened; else as it is.

    Raises:
        CheckpointError: if there is no such folder.
        FileNotFoundError: if the folder holds neither.
    """
    if not isinstance(source, str | os.PathLike):
        return source
    folder = find_folder(source)
    if (folder / 'bank.json').exists() or (folder / 'bank.writing.json').exists():
        return SyntheticBank.open(folder)
    if (folder / 'config.json').exists():
        return Generator.from_pretrained(folder)
    raise FileNotFoundError(
        f'{folder} holds neither a bank (bank.json) nor a generator (config.json); write one with hsiaug sample or '
        'hsiaug train'
    )


class _OfInner:
    """What is the inner module's own, though the base classes of :class:`MixedDataModule` have it too."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: type) -> Any:
        return self if module is None else getattr(module.inner, self.name)


class MixedDataModule(BaseDataModule):
    """Wraps a datamodule and mixes synthetic samples into its training batches; the datamodule itself is not changed.

    Its normalisation and augmentations also run on synthetic samples, validation and test remain real, and everything
    else (``plot``, ``mean``, ``batch_size``, ...) is the inner module's. Augmentations of a change-detection module
    that kornia would misalign are replaced (:class:`~hsiaug.transforms.BitemporalAugmentation`).

    There are two ways. *dataset* rebuilds the training loader around a :class:`~hsiaug.datasets.MixedDataset`, with
    batches of exact composition, so that loader workers read the synthetic samples. *batch* mixes on the device, before
    the inner module's augmentations, with :class:`~hsiaug.transforms.SyntheticMix`; Geo modules and live generators
    need it. In append mode, *dataset* makes more steps of the same batch size, *batch* equally many steps with larger
    batches.

    ``real_seen`` and ``synthetic_seen`` count the training samples of this process, over all fits; they are logged as
    ``mix/...`` and kept in checkpoints. After resuming within an epoch, *dataset* continues with exactly the remaining
    batches; *batch* does so for synthetic samples only, while Lightning restarts the real loader's epoch with a
    warning. Under DDP, *dataset* gives each sample to one rank; *batch* uses Lightning's own sampler of real samples,
    which repeats some if the ranks would be uneven. With ``Trainer(overfit_batches=...)``, every epoch has the same
    samples.

    Validation and test samples are compared with what the source's generator has seen, if that is recorded
    (:func:`~hsiaug.datasets.require_unseen_samples`). Each dataset is read once for this, when its loader is first
    requested; datasets indexed by location are not compared.

    Args:
        inner: any Lightning datamodule whose training samples are dictionaries in the sample contract.
        source: a generator, a bank, any dataset in the sample contract, or the folder of a bank or a generator; or
            several of these by name.
        way: ``'dataset'``, ``'batch'``, or ``'auto'``: *batch* for Geo modules and live generators.
        ratio, mode, labels, prior, replacement, weight, seed, different_scales: as for
            :class:`~hsiaug.datasets.MixedDataset`.
        on_exhausted: as for :class:`~hsiaug.datasets.MixedDataset`; with *batch*, only ``'error'`` or ``'repeat'``.
        epoch_size: as for :class:`~hsiaug.datasets.MixedDataset`; with *dataset* only.

    Raises:
        TypeError: if ``inner`` is not a datamodule or, with *dataset*, its loader selects or weights its samples.
        ValueError: for an unknown mode or way, a negative ratio, or a source that holds fewer samples than an epoch
            asks for.
        SpecMismatchError: if source and real data do not match, at the latest with the first batch.
        LeakageError: if the source's generator has seen test pixels of the real data's split; or validation or test
            samples, when their loader is requested.
    """

    def __init__(
        self,
        inner: LightningDataModule,
        source: str | os.PathLike[str] | Dataset[Any] | nn.Module | Mapping[str, Any],
        ratio: Ratios = 0.5,
        mode: Mode = 'append',
        way: Way = 'auto',
        labels: LabelPolicies = None,
        prior: np.ndarray | None = None,
        replacement: bool = False,
        weight: float | None = None,
        seed: int = 0,
        different_scales: bool = False,
        on_exhausted: Exhausted = 'error',
        epoch_size: int | None = None,
    ) -> None:
        check_value('MixedDataModule', 'way', way, Way)
        if not isinstance(inner, LightningDataModule):
            found = inner.__name__ if isinstance(inner, type) else type(inner).__name__
            raise TypeError(f'MixedDataModule: a LightningDataModule expected, found {found}; mix datasets themselves')
        # No base class's __init__: what they set, such as the dataset and what is logged, the inner module has.
        given: Mapping[str, Any] = source if isinstance(source, Mapping) else {'': source}
        opened = {name: open_source(one) for name, one in given.items()}
        self.source: Source | dict[str, Source] = opened if isinstance(source, Mapping) else opened['']
        self.sources = Sources('MixedDataModule', self.source, ratio, None, Draw(seed), mode, seen=0)
        self.schedule, self.mode, self.ratio = self.sources.schedule, self.sources.mode, ratio
        live = not all(isinstance(one, Dataset) for one in opened.values())
        self.way = way if way != 'auto' else 'batch' if live or isinstance(inner, GeoDataModule) else 'dataset'
        self.options: dict[str, Any] = {
            'mode': mode, 'labels': labels, 'prior': prior, 'seed': seed,
            'weight': check_value('MixedDataModule', 'weight', weight, float | None),
            'different_scales': different_scales, 'on_exhausted': require_policy(
                'MixedDataModule', on_exhausted, replacement, mode, self.sources.schedules, epoch_size,
                batches=self.way == 'batch',
            ),
        }  # fmt: skip
        if self.way == 'dataset':
            self.options['epoch_size'] = epoch_size
        self.mix: SyntheticMix | None = None
        self.mixed: MixedDataset | None = None
        self._checked: set[tuple[int, str]] = set()
        self._resumed: list[int] | None = None
        self._saved: dict[str, Any] | None = None  # epoch and settings of a state that was loaded
        self._begun: int | None = None  # the epoch of the trainer that ``mix`` is in
        self._before_step: tuple[int, dict[str, Any]] | None = None  # batches trained on, and the state at that time
        self.real_seen = self.synthetic_seen = 0
        self.source_seen = dict.fromkeys(self.sources.names, 0)
        for name in ('val_dataloader', 'test_dataloader'):
            if not is_overridden(name, inner):  # Lightning then does without, or says what is missing
                setattr(self, name, getattr(inner, name))
        self.inner = inner  # last: from now on what is not ours is set on the inner module

    # --- everything that is the inner module's ----------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name == 'inner' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning's batch-size tuner, for one, sets batch_size, which the inner module's loaders read.
        own = name in self.__dict__ or hasattr(type(self), name) or 'inner' not in self.__dict__
        if own or not hasattr(self.inner, name):
            super().__setattr__(name, value)
        else:
            setattr(self.inner, name, value)

    hparams: Any = _OfInner()
    mean: Any = _OfInner()
    std: Any = _OfInner()
    plot: Any = _OfInner()
    prepare_data: Any = _OfInner()
    predict_dataloader: Any = _OfInner()
    on_exception: Any = _OfInner()
    transfer_batch_to_device: Any = _OfInner()

    @property
    def trainer(self) -> Trainer | None:  # type: ignore[override]
        """The trainer. The inner module gets it too: without one torchgeo's skip their augmentations in silence."""
        return self.__dict__.get('_trainer')

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        self._trainer = trainer
        if 'inner' in self.__dict__:
            self.inner.trainer = trainer

    def val_dataloader(self) -> Any:
        """Real validation samples.

        Raises:
            LeakageError: if the source's generator has learnt from some of them.
        """
        return self._unseen(self.inner.val_dataloader(), 'val')

    def test_dataloader(self) -> Any:
        """Real test samples.

        Raises:
            LeakageError: if the source's generator has seen some of them.
        """
        return self._unseen(self.inner.test_dataloader(), 'test')

    def _unseen(self, loaders: Any, use: Use) -> Any:
        """Loaders whose datasets the sources' generators have not seen; each dataset is read through once at most."""
        for loader in loaders if isinstance(loaders, list | tuple) else (loaders,):
            dataset = getattr(loader, 'dataset', None)
            by_place = any(isinstance(one.dataset, GeoDataset) for one in look_through(dataset).all() if one.as_is)
            if (id(dataset), use) in self._checked or not hasattr(dataset, '__len__') or by_place:
                continue
            with torch.random.fork_rng(devices=[]):  # random transforms of a dataset draw as if it had not been read
                for source in self.source.values() if isinstance(self.source, dict) else (self.source,):
                    require_unseen_samples(source, dataset, use)
            self._checked.add((id(dataset), use))
        return loaders

    # --- mixing -----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Set the inner module up."""
        self.inner.setup(stage)
        make_change_safe(self.inner)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches; with *dataset*, they include synthetic samples."""
        loader = self.inner.train_dataloader()
        require_one_loader(loader, 'MixedDataModule')
        self._before_step = None
        if self.way == 'batch':
            real = getattr(loader, 'dataset', None)
            counts = None if real is None else counts_of(real)
            self.mix = SyntheticMix(self.source, self.ratio, real_counts=counts, **self.options)
            if real is not None:
                self.mix.sources.require_mixable(real)
            self._adopt(self.mix)
            self._begun = None
            if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
                # too few samples are an error now, not in the middle of an epoch
                first = 0 if self.trainer is None else self.trainer.current_epoch
                last = min(getattr(self.trainer, 'max_epochs', None) or 1, first + _AHEAD)
                self.mix.epoch = first
                self.mix.expect(samples_of_epoch(self.trainer, loader), max(last - first, 1))
            if self._resumed is not None and resume_point(self.trainer)[1]:
                self.mix.set_extra_state(torch.tensor(self._resumed))
                self._begun = self.mix.epoch
            self._resumed = None
            return loader
        dataset = getattr(loader, 'dataset', None)
        if not isinstance(loader, DataLoader) or isinstance(dataset, IterableDataset):
            raise TypeError(
                'MixedDataModule: one training DataLoader of samples by number expected, but the inner module gives a '
                f"{type(loader).__name__} of a {type(dataset).__name__}; choose way='batch'"
            )
        self.mixed = MixedDataset(loader.dataset, self.source, self.ratio, **self.options)
        self._adopt(self.mixed)
        return mixed_train_loader(self.trainer, loader, self.mixed, self.options['seed'], 'MixedDataModule')

    def _adopt(self, mixture: MixedDataset | SyntheticMix) -> None:
        """Take over what ``ratio='auto'`` means for the training data; refuse a mixture other than the saved one."""
        if any(mixture.sources.recommendations):
            self.sources, self.schedule = mixture.sources, mixture.schedule
        saved, self._saved = self._saved, None
        if saved is not None:
            require_same('MixedDataModule', saved, mixture.settings)

    @property
    def recommendation(self) -> Recommendation | dict[str, Recommendation] | None:
        """See :attr:`hsiaug.datasets.MixedDataset.recommendation`; None before there is a training loader."""
        return self.sources.recommendation

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count what the *dataset* way mixed, before it moves to a device."""
        if self._training():
            self._before_step = batches_trained(self.trainer), self._state()
        if self.way == 'dataset' and self._training() and 'synthetic' in batch:
            synthetic = int(batch['synthetic'].sum())
            self.synthetic_seen += synthetic
            self.real_seen += len(batch['synthetic']) - synthetic
            for number, name in enumerate(self.source_seen, 1):
                self.source_seen[name] += int((batch['source'] == number).sum())
            self._log()
        return self._inner_hook('on_before_batch_transfer')(batch, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Mix (the *batch* way), then the inner module's normalisation and augmentations."""
        if self.way == 'batch' and self._training():
            batch = self._mix_batch(batch)
            self._log()
        batch = self._inner_hook('on_after_batch_transfer')(batch, dataloader_idx)
        return batch if self._training() else with_hidden_mask(batch)

    def _mix_batch(self, batch: Any) -> Any:
        trainer, mix = self.trainer, self.mix
        if trainer is None or mix is None:
            return batch
        if self._begun != trainer.current_epoch:
            self._begun = trainer.current_epoch
            mix.set_epoch(0 if overfits(trainer) else self._begun)
        real, synthetic, before = mix.real_seen, mix.synthetic_seen, mix.source_seen
        batch = mix(batch)
        self.real_seen += mix.real_seen - real
        self.synthetic_seen += mix.synthetic_seen - synthetic
        for name, seen in mix.source_seen.items():
            self.source_seen[name] += seen - before[name]
        # Lightning has converted the real samples (precision='bf16-true'); what came with the synthetic ones follows.
        return trainer.precision_plugin.convert_input(batch)

    def _inner_hook(self, name: str) -> Any:
        """The inner module's hook or, where it has none of its own, the task's, which ours hides from Lightning."""
        own = getattr(type(self.inner), name) is not getattr(LightningDataModule, name)
        task = None if self.trainer is None else self.trainer.lightning_module
        return getattr(self.inner if own or task is None else task, name)

    def _training(self) -> bool:
        return self.trainer is not None and self.trainer.training

    def _log(self, always: bool = False) -> None:
        trainer = self.trainer
        if trainer is None or (trainer.global_step % max(getattr(trainer, 'log_every_n_steps', 1), 1) and not always):
            return
        seen = {'mix/real_seen': float(self.real_seen), 'mix/synthetic_seen': float(self.synthetic_seen)}
        for name, ratio in zip(self.sources.names, self.sources.ratios(trainer.current_epoch), strict=False):
            seen |= {f'mix/{name}_seen': float(self.source_seen[name]), f'mix/{name}_ratio': ratio}
        for logger in trainer.loggers:
            logger.log_metrics({**seen, 'mix/ratio': self.schedule(trainer.current_epoch)}, step=trainer.global_step)

    def teardown(self, stage: str) -> None:
        """Log the final counts, so that the ratio can be checked."""
        if stage == 'fit':
            self._log(always=True)
        self.inner.teardown(stage)

    def state_dict(self) -> dict[str, Any]:
        """Counts, position of the *batch* way, and the inner module's state.

        Saved within a step (an interruption, a signal), they are those before its batch, with which Lightning resumes.
        """
        state = self._state()
        if self._before_step is not None and self._before_step[0] == batches_trained(self.trainer):
            state = self._before_step[1]
        return {**state, 'inner': self.inner.state_dict()}

    def _state(self) -> dict[str, Any]:
        mix = self.mix.get_extra_state().tolist() if self.mix is not None else None
        seen = {'real_seen': self.real_seen, 'synthetic_seen': self.synthetic_seen}
        mixture = self.mixed if self.mix is None else self.mix
        saved = None if mixture is None else {'epoch': mixture.epoch, 'settings': mixture.settings(mixture.epoch)}
        return {**seen, 'source_seen': dict(self.source_seen), 'mix': mix, 'mixture': saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`. What it was saved with is compared when loaders are asked for."""
        self.real_seen, self.synthetic_seen = state_dict['real_seen'], state_dict['synthetic_seen']
        self.source_seen |= state_dict.get('source_seen', {})  # older ones have none
        self._resumed, self._before_step = state_dict['mix'], None  # Lightning restores before it asks for loaders
        self._saved = state_dict.get('mixture')
        self.inner.load_state_dict(state_dict['inner'])

    # --- pictures --------------------------------------------------------------------------------------------------

    def describe(self, count: int = 6) -> Figure:
        """Print what is mixed, and plot real and synthetic training samples side by side.

        Args:
            count: number of samples of each side.

        Returns:
            a matplotlib figure without a window.
        """
        self.setup('fit')
        if (spec := self.sources.spec) is None:
            raise ValueError(f'describe needs a source with a spec, found {type(self.source).__name__} without one')
        loader = self.inner.train_dataloader()
        real = next(iter(loader))
        if isinstance(loader.dataset, Dataset) and not isinstance(self.inner, GeoDataModule):
            real = fetch(loader.dataset, spread_rows(len(loader.dataset), 4 * count))  # type: ignore[arg-type]
        text = f'{self.sources} mixed into {type(self.inner).__name__}: {self.schedule}, {self.mode}'
        print(text)
        return preview_grid(real, self.sources.random(4 * count, seed=0)[0], spec, count, suptitle=text)
