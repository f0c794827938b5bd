"""A mixed datamodule under the options of Lightning's trainer: what is trained on, and what is counted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset
from toy_modules import ToyModule
from toys import Toy, keys_of

from hsiaug.datamodules import MixedDataModule, SpectraDataModule
from hsiaug.datasets import MixedDataset
from hsiaug.ratio import Linear, Step
from hsiaug.samplers import MixedBatchSampler
from hsiaug.samples import Kind
from hsiaug.scenes import Scene, Split
from hsiaug.systems import TrainingData
from hsiaug.trainers import SpectralClassificationTask, fit_generator

WAYS: Any = pytest.mark.parametrize('way', ['dataset', 'batch'])


class Inner(LightningDataModule):
    """A user's own: shuffled unless told otherwise, its batch size an attribute or a hyperparameter."""

    def __init__(self, kind: Kind = 'scene', n: int = 32, batch_size: int = 8, workers: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.kind, self.n, self.batch_size, self.workers = kind, n, batch_size, workers

    def train_dataloader(self) -> Any:
        options: dict[str, Any] = {'num_workers': self.workers, 'persistent_workers': self.workers > 0}
        return DataLoader(Toy(self.kind, self.n), self.batch_size, **options)

    def val_dataloader(self) -> Any:
        return DataLoader(Toy(self.kind, 8, seed=3), 8)


class Task(LightningModule):
    """Remembers every batch that it is trained on; may fail within a step."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.net = torch.nn.Linear(5, 3)
        self.steps: list[tuple[int, int, list[bytes], list[bool]]] = []
        self.dtypes: set[Any] = set()
        self.fails_at = fails_at

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == self.fails_at:
            raise InterruptedError
        batch = batch.get('a', batch)
        image = batch['image']
        self.dtypes |= {image.dtype, *(batch[key].dtype for key in ('label_prob', 'weight') if key in batch)}
        keys = keys_of(image.float())
        self.steps.append((self.current_epoch, batch_idx, keys, batch['synthetic'].tolist()))
        pixels = image.flatten(1) if image.ndim == 2 else image.mean((-1, -2)) if image.ndim == 4 else image
        return torch.nn.functional.cross_entropy(self.net(pixels), batch.get('label_prob', batch['label']))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def seen(self) -> tuple[int, int]:
        """Real and synthetic samples trained on."""
        flags = [flag for *_, row in self.steps for flag in row]
        return len(flags) - sum(flags), sum(flags)

    def epochs(self) -> list[list[list[bytes]]]:
        """Batches of each epoch."""
        numbers = sorted({step[0] for step in self.steps})
        return [[step[2] for step in self.steps if step[0] == number] for number in numbers]


def trainer(epochs: int = 3, **options: Any) -> Trainer:
    plain: dict[str, Any] = {
        'max_epochs': epochs, 'accelerator': 'cpu', 'logger': False, 'enable_checkpointing': False,
        'enable_progress_bar': False, 'enable_model_summary': False, 'num_sanity_val_steps': 0,
    }  # fmt: skip
    return Trainer(**(plain | options))


def module(way: Any, ratio: Any = 0.5, mode: Any = 'append', inner: Any = None, **options: Any) -> MixedDataModule:
    return MixedDataModule(inner or Inner(), Toy('scene', 64, seed=1), ratio, mode, way, **options)


# --- precision ------------------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize(
    ('precision', 'dtype'),
    [
        ('bf16-true', torch.bfloat16), ('16-true', torch.float16), ('64-true', torch.float64),
        ('bf16-mixed', torch.float32), ('32-true', torch.float32),
    ],
)  # fmt: skip
def test_every_precision_mixes_in_its_dtype(way: str, precision: str, dtype: torch.dtype) -> None:
    for mode in ('append', 'replace'):
        torch.manual_seed(0)
        task, mixed = Task(), module(way, 1.0, mode, weight=0.5)
        trainer(2, precision=precision).fit(task, mixed)
        assert task.dtypes == {dtype}  # weights too
        assert task.seen == (mixed.real_seen, mixed.synthetic_seen) == ((64, 64) if mode == 'append' else (32, 32))
        # Real and synthetic samples alike are the stored ones in that dtype.
        stored = torch.cat([Toy('scene', 32).data['image'], Toy('scene', 64, seed=1).data['image']])
        assert {key for step in task.steps for key in step[2]} <= set(keys_of(stored.to(dtype).float()))


@WAYS
@pytest.mark.parametrize('precision', ['bf16-true', '16-true', '64-true'])
def test_our_spectral_task_trains_with_soft_labels_in_every_precision(
    way: str, precision: Any, scene: Scene, split: Split, data: TrainingData
) -> None:
    source = fit_generator('mixup', data, {'partners': 'across'})
    mixed = MixedDataModule(SpectraDataModule(scene, split, batch_size=32), source, 1.0, way=way, weight=0.5)  # type: ignore[arg-type]
    task = SpectralClassificationTask(12, 3, lr=1e-3)
    run = trainer(6, precision=precision)
    run.fit(task, mixed)
    assert all(torch.isfinite(parameter).all() for parameter in task.parameters())
    assert float(run.callback_metrics['train_loss']) < 1.0


# --- batch size -----------------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize('mode', ['power', 'binsearch'])
def test_the_batch_size_tuner_reaches_the_inner_module(way: str, mode: str, tmp_path: Path) -> None:
    task, mixed = Task(), module(way)
    run = trainer(2, default_root_dir=tmp_path)
    options: dict[str, Any] = {'init_val': 2, 'steps_per_trial': 1, 'max_trials': 2, 'margin': 0.0}
    found = Tuner(run).scale_batch_size(task, datamodule=mixed, mode=mode, **options)
    assert found == mixed.batch_size == mixed.inner.batch_size
    assert found == 4  # tried: 2 and 4, and the module began with 8
    tried = {len(step[2]) for step in task.steps}
    assert len(tried) > 1  # the loaders really were of several sizes
    assert (mixed.real_seen, mixed.synthetic_seen) == (0, 0)  # the weights are those before the search
    task.steps.clear()
    run = trainer(2, default_root_dir=tmp_path)
    run.fit(task, mixed)
    assert task.seen == (mixed.real_seen, mixed.synthetic_seen) == (64, 32)
    largest = max(len(step[2]) for step in task.steps)
    assert largest == (found if way == 'dataset' else found + found // 2)


@WAYS
def test_a_search_before_training_leaves_no_trace_in_the_training(way: str, tmp_path: Path) -> None:
    task, mixed, plain, alone = Task(), module(way), Task(), module(way, inner=Inner(batch_size=16))
    finder = BatchSizeFinder(steps_per_trial=2, init_val=4, max_trials=3)
    trainer(2, default_root_dir=tmp_path, callbacks=[finder]).fit(task, mixed)
    assert mixed.inner.batch_size == finder.optimal_batch_size == 16
    trainer(2).fit(plain, alone)
    assert task.steps[-len(plain.steps) :] == plain.steps
    assert (mixed.real_seen, mixed.synthetic_seen) == (alone.real_seen, alone.synthetic_seen)


def test_settings_are_the_inner_modules() -> None:
    nested = MixedDataModule(MixedDataModule(Inner(), Toy('scene', 9, seed=1), 0.1), Toy('scene', 64, seed=2), 0.5)
    nested.batch_size = 5
    assert nested.inner.inner.batch_size == 5
    assert (len(nested.source), len(nested.inner.source)) == (64, 9)  # type: ignore[arg-type]
    assert nested.hparams == {'kind': 'scene', 'n': 32, 'batch_size': 8, 'workers': 0}
    torchgeos: Any = MixedDataModule(ToyModule(batch_size=4), Toy('segmentation', 9, seed=1), 0.1)
    torchgeos.batch_size = 6
    torchgeos.setup('fit')
    assert torchgeos.train_dataloader().batch_sampler.batch_size == 6


class WithoutValidation(LightningDataModule):
    """A user's own with no samples to validate on; keeps the errors that it is told of."""

    def __init__(self, n: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.told: list[BaseException] = []

    def train_dataloader(self) -> Any:
        return DataLoader(Toy('scene', self.hparams['n']), 8)

    def on_exception(self, exception: BaseException) -> None:
        self.told.append(exception)


def test_what_lightning_logs_and_tells_reaches_the_inner_module(tmp_path: Path) -> None:
    inner = WithoutValidation()
    mixed = module('dataset', inner=inner)
    trainer(1, logger=CSVLogger(tmp_path)).fit(Task(), mixed)  # a task that validates where there are samples for it
    assert '16' in next(tmp_path.rglob('hparams.yaml')).read_text()
    with pytest.raises(MisconfigurationException, match='val_dataloader'):
        trainer(1).validate(Task(), mixed)
    with pytest.raises(InterruptedError):
        trainer(1).fit(Task(fails_at=1), mixed)
    assert [type(error) for error in inner.told] == [MisconfigurationException, InterruptedError]


# --- counts ---------------------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize('reload', [0, 1, 2])
@pytest.mark.parametrize('workers', [0, 1])
def test_counts_are_of_all_that_was_trained_on(way: str, reload: int, workers: int) -> None:
    task, mixed = Task(), module(way, inner=Inner(workers=workers))
    trainer(3, reload_dataloaders_every_n_epochs=reload).fit(task, mixed)
    assert task.seen == (mixed.real_seen, mixed.synthetic_seen) == (96, 48)
    epochs = task.epochs()
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    trainer(2, reload_dataloaders_every_n_epochs=reload, limit_train_batches=2).fit(task, mixed)
    assert task.seen == (mixed.real_seen, mixed.synthetic_seen)
    assert mixed.real_seen > 96


@WAYS
def test_a_growing_schedule_that_is_reloaded_loses_nothing(way: str) -> None:
    task, mixed = Task(), module(way, Step({0: 0, 1: 0.5, 2: 2}))
    trainer(3, reload_dataloaders_every_n_epochs=1).fit(task, mixed)
    assert task.seen == (mixed.real_seen, mixed.synthetic_seen) == (96, 16 + 64)


# --- the same batches, and fewer ------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize('mode', ['append', 'replace'])
@pytest.mark.parametrize('workers', [0, 1])
def test_overfitting_sees_the_same_batches_in_every_epoch(way: str, mode: str, workers: int) -> None:
    task, mixed = Task(), module(way, 1.0, mode, inner=Inner(workers=workers))
    trainer(3, overfit_batches=2).fit(task, mixed)
    first, *others = task.epochs()
    assert len(first) == 2
    assert others == [first, first]
    assert mixed.synthetic_seen == task.seen[1] > 0
    trainer(2).fit(task, mixed)  # and no longer when training goes on as usual
    last = [step[2] for step in task.steps if step[0] == 1][-4:]
    assert last != first


@pytest.mark.parametrize('workers', [0, 1])
def test_overfitting_holds_a_sampler_without_a_datamodule_too(workers: int) -> None:
    for several in (False, True):
        mixed = MixedDataset(Toy('scene', 32), Toy('scene', 64, seed=1), 0.5)
        sampler = MixedBatchSampler(mixed, 8)
        loader: Any = DataLoader(mixed, batch_sampler=sampler, num_workers=workers, persistent_workers=workers > 0)
        loaders = {'a': loader, 'b': DataLoader(Toy('scene', 32), 8)} if several else loader
        task = Task()
        trainer(3, overfit_batches=2).fit(task, loaders)
        first, *others = task.epochs()
        assert others == [first, first]
        task = Task()
        trainer(3).fit(task, loaders)  # the same sampler, no longer held
        assert task.epochs()[0] != task.epochs()[1]
        assert task.seen == (96, 48)


def test_our_spectral_module_overfits_and_refuses_a_changing_length(
    scene: Scene, split: Split, data: TrainingData
) -> None:
    source = fit_generator('noise', data)

    class Spectral(SpectralClassificationTask):
        epochs: dict[int, list[Any]] = {}  # noqa: RUF012

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.epochs.setdefault(self.current_epoch, []).append(keys_of(batch['image']))
            return super().training_step(batch, batch_idx)

    task = Spectral(12, 3)
    trainer(2, overfit_batches=2).fit(task, SpectraDataModule(scene, split, source, 1.0, batch_size=16))
    assert task.epochs[0] == task.epochs[1]
    with pytest.raises(ValueError, match=r'SpectraDataModule: the schedule Linear\(.*reload_dataloaders'):
        trainer(2).fit(task, SpectraDataModule(scene, split, source, Linear(0, 1, 2)))


@WAYS
@pytest.mark.parametrize(
    'several',
    [lambda one: {'a': one, 'b': one}, lambda one: [one, one], lambda one: CombinedLoader([one, one], 'min_size')],
    ids=['dict', 'list', 'combined'],
)
def test_several_loaders_are_refused_with_a_way_out(way: str, several: Callable[[Any], Any]) -> None:
    class Several(Inner):
        def train_dataloader(self) -> Any:
            return several(super().train_dataloader())

    with pytest.raises(TypeError, match=r'one training loader expected.*MixedBatchSampler'):
        trainer().fit(Task(), module(way, inner=Several()))


# --- resuming -------------------------------------------------------------------------------------------------------


class SaveWhenInterrupted(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        trainer.save_checkpoint(self.folder / f'step={trainer.global_step}.ckpt')


SAVED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, int]]] = {
    # options of the checkpoint callback, of the trainer, and where training goes on
    'after a batch': ({'every_n_train_steps': 6}, {}, (1, 2)),
    'after the last batch': ({'every_n_train_steps': 8}, {}, (2, 0)),
    'after a validation within the epoch': ({'save_on_train_epoch_end': False}, {'val_check_interval': 2}, (0, 2)),
    'after the validation of an epoch': ({'save_on_train_epoch_end': False}, {}, (1, 0)),
    'at the end of an epoch': ({'save_on_train_epoch_end': True}, {}, (1, 0)),
    'within a step': ({}, {}, (1, 2)),
    'after a batch, by steps': ({'every_n_train_steps': 6}, {'max_steps': 16}, (1, 2)),
}


@WAYS
@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('when', list(SAVED))
def test_a_resumed_training_sees_what_the_uninterrupted_one_did(
    way: str, when: str, workers: int, tmp_path: Path
) -> None:
    save, options, place = SAVED[when]

    def fresh() -> MixedDataModule:
        return module(way, Linear(0.25, 1, 3), 'replace', Inner(workers=workers))

    whole, all_of_it = Task(), fresh()
    trainer(4, **options).fit(whole, all_of_it)
    if save:
        saver: Callback = ModelCheckpoint(tmp_path, '{step}', save_top_k=-1, **save)
        trainer(4, enable_checkpointing=True, callbacks=[saver], **options).fit(Task(), fresh())
    else:
        with pytest.raises(InterruptedError):
            trainer(4, callbacks=[SaveWhenInterrupted(tmp_path)], **options).fit(Task(fails_at=6), fresh())
    first = min(tmp_path.iterdir(), key=lambda path: int(path.stem.split('=')[1].split('-')[0]))
    resumed, rest = Task(), fresh()
    trainer(4, **options).fit(resumed, rest, ckpt_path=first)
    assert resumed.steps[0][:2] == place
    tail = whole.steps[-len(resumed.steps) :]
    if way == 'batch':  # Lightning begins the real loader's epoch again; the synthetic samples go on
        for one in (resumed.steps, tail):
            one[:] = [(e, b, [k for k, f in zip(keys, flags, strict=True) if f], flags) for e, b, keys, flags in one]
    assert resumed.steps == tail
    assert (rest.real_seen, rest.synthetic_seen) == (all_of_it.real_seen, all_of_it.synthetic_seen)


def test_our_spectral_module_resumes_within_an_epoch(
    scene: Scene, split: Split, data: TrainingData, tmp_path: Path
) -> None:
    source = fit_generator('noise', data)

    def run(**options: Any) -> list[Any]:
        seen: list[Any] = []

        class Spectral(SpectralClassificationTask):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                seen.append(keys_of(batch['image']))
                return super().training_step(batch, batch_idx)

        saver = ModelCheckpoint(tmp_path, '{step}', save_top_k=-1, every_n_train_steps=7)
        run = trainer(2, callbacks=[saver], enable_checkpointing=True)
        run.fit(Spectral(12, 3), SpectraDataModule(scene, split, source, 1.0, batch_size=16), **options)
        return seen

    whole = run()
    resumed = run(ckpt_path=tmp_path / 'step=7.ckpt')
    assert resumed == whole[7:]


def test_a_stream_of_samples_is_sent_to_the_way_that_takes_it() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(Toy('scene', 8))

    class Streamed(LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Stream(), 4)

    with pytest.raises(TypeError, match=r"gives a DataLoader of a Stream; choose way='batch'"):
        MixedDataModule(Streamed(), Toy('scene', 20, seed=1)).train_dataloader()
    assert MixedDataModule(Streamed(), Toy('scene', 20, seed=1), way='batch').train_dataloader() is not None
