"""Training loaders as Lightning's trainer needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info
from torch.utils.data import DataLoader

from ..datasets import MixedDataset
from ..ratio import Constant
from ..samplers import mixed_loader


def require_one_loader(loader: Any, owner: str) -> None:
    """Check that a datamodule gives one loader and not several, of which none is known to be the one to mix into.

    Raises:
        TypeError: for a dictionary, a list or a ``CombinedLoader``.
    """
    if isinstance(loader, Mapping | CombinedLoader) or (isinstance(loader, Sequence) and not isinstance(loader, str)):
        raise TypeError(
            f'{owner}: one training loader expected, but the inner module gives several ({type(loader).__name__}); mix '
            'into one of them: DataLoader(mixed, batch_sampler=MixedBatchSampler(mixed, batch_size)) with '
            'mixed = MixedDataset(real, synthetic, ratio)'
        )


def overfits(trainer: Trainer | None) -> bool:
    """Whether the same few batches are wanted in every epoch."""
    return bool(getattr(trainer, 'overfit_batches', 0))


def resume_point(trainer: Trainer | None) -> tuple[int, int]:
    """The epoch that a training continues with, and how many of its batches the checkpoint that it resumes has seen."""
    if trainer is None:
        return 0, 0
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress.current
    batches: Any = loop.epoch_loop.batch_progress
    if not loop.restarting:
        return epochs.processed, 0
    if batches.is_last_batch:  # between the last batch of an epoch and its end
        return epochs.started, 0
    return epochs.processed, batches.current.processed


def batches_trained(trainer: Trainer | None) -> int:
    """Batches that a trainer has trained on to their end, over all epochs."""
    total: Any = None if trainer is None else trainer.fit_loop.epoch_loop.batch_progress.total
    return 0 if total is None else int(total.processed)


def samples_of_epoch(trainer: Trainer | None, loader: DataLoader[Any]) -> int:
    """How many samples a trainer takes out of a loader in an epoch."""
    own = loader.batch_size is None  # a batch sampler of its own, as Geo modules have
    batches, size = len(loader), getattr(loader.batch_sampler, 'batch_size', 0) if own else loader.batch_size
    for limit in (getattr(trainer, name, 1.0) for name in ('limit_train_batches', 'overfit_batches')):
        if limit:  # overfit_batches is 0 where it is off
            batches = min(batches, limit if isinstance(limit, int) else int(batches * limit))
    samples = batches * (size or 0)
    if batches == len(loader) and isinstance(loader.sampler, Sized) and not loader.drop_last and not own:
        samples = min(samples, len(loader.sampler))
    return samples


def mixed_train_loader(
    trainer: Trainer | None, real: DataLoader[Any], mixed: MixedDataset, seed: int, owner: str
) -> DataLoader[Any]:
    """The loader of a mixed dataset in the epoch, and at the batch of it, where a trainer begins or resumes.

    Where the trainer is to overfit, it gives the batches of epoch 0 in every epoch, as Lightning promises.

    Raises:
        ValueError: if a schedule changes the number of batches and Lightning would not notice.
        TypeError: if the real loader cannot be rebuilt.
    """
    if overfits(trainer):
        mixed.set_epoch(0)
        return mixed_loader(real, mixed, seed, shuffle=False, hold=True)
    reloads = getattr(trainer, 'reload_dataloaders_every_n_epochs', 0)
    steady = mixed.epoch_size is not None or mixed.mode == 'replace' or isinstance(mixed.schedule, Constant)
    if trainer is not None and reloads != 1 and not steady:
        raise ValueError(
            f'{owner}: the schedule {mixed.schedule} in append mode changes the number of batches, which Lightning '
            "reads once; choose mode='replace', or Trainer(reload_dataloaders_every_n_epochs=1)"
        )
    epoch, batch = resume_point(trainer)
    mixed.set_epoch(epoch)
    if batch and mixed.schedule != Constant(0.0):
        rank_zero_info(
            f'{owner}: epoch {epoch} continues after its batch {batch}, with the samples that it would have had; what '
            'Lightning says of a dataloader that is not resumable does not apply'
        )
    return mixed_loader(real, mixed, seed, start=(epoch, batch))
