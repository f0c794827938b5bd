"""A training that was left in the middle of an epoch goes on with the next batch, to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from toys import Toy, keys_of

from hsiaug.datamodules import MixedDataModule
from hsiaug.datasets import MixedDataset
from hsiaug.ratio import Schedule, Step
from hsiaug.samplers import MixedBatchSampler, mixed_loader
from hsiaug.transforms import SyntheticMix

CHANGES = Step({0: 0.5, 1: 1.0, 2: 0.25})  # the length too, in append mode
WAYS: Any = pytest.mark.parametrize('way', ['batches', 'plain', 'mix'])


def stateful(*args: Any, **options: Any) -> Any:
    """torchdata's loader, where it is installed."""
    return pytest.importorskip('torchdata.stateful_dataloader').StatefulDataLoader(*args, **options)


def shuffled(dataset: Any) -> Any:
    """With a generator of its own: torchdata forgets what ``shuffle=True`` draws from the one of the loader."""
    sampler = pytest.importorskip('torchdata.stateful_dataloader.sampler').RandomSampler
    return sampler(dataset, generator=torch.Generator().manual_seed(5))


class Training:
    """A user's loop: a linear network, and whatever mixes, saved and restored with torch alone."""

    def __init__(self, way: str, workers: int, ratio: float | Schedule = CHANGES, mode: Any = 'append') -> None:
        torch.manual_seed(0)
        self.net, self.epoch = torch.nn.Linear(5, 3), 0
        real, source = Toy('spectrum', 24), Toy('spectrum', 40, seed=1)
        options: dict[str, Any] = {'num_workers': workers}
        self.mix = SyntheticMix(source, ratio, mode, seed=3) if way == 'mix' else None
        if way == 'mix':
            self.loader = stateful(real, 4, sampler=shuffled(real), **options)
        else:
            mixed = MixedDataset(real, source, ratio, seed=3, mode=mode)
            if way == 'batches':
                self.loader = stateful(mixed, batch_sampler=MixedBatchSampler(mixed, 4, seed=7), **options)
            else:
                self.loader = stateful(mixed, 4, sampler=shuffled(mixed), **options)
                self.mixed = mixed
        self.way, self.seen = way, 0

    def run(self, epochs: int, steps: int | None = None) -> bool:
        """Train; ``steps`` after which it is killed. Says whether it came to its end."""
        for epoch in range(self.epoch, epochs):
            self.epoch = epoch
            if self.way == 'plain' and self.mixed.epoch != self.epoch:
                self.mixed.set_epoch(self.epoch)
            if self.mix is not None and self.mix.epoch != self.epoch:
                self.mix.set_epoch(self.epoch)
            for batch in self.loader:
                batch = batch if self.mix is None else self.mix(batch)
                loss = torch.nn.functional.cross_entropy(self.net(batch['image']), batch['label'])
                self.net.zero_grad()
                loss.backward()
                with torch.no_grad():
                    for weight in self.net.parameters():
                        weight -= 0.5 * weight.grad  # type: ignore[operator]
                self.seen += 1
                if self.seen == steps:
                    return False
        return True

    def save(self, path: Path) -> None:
        state = {'net': self.net.state_dict(), 'loader': self.loader.state_dict(), 'epoch': self.epoch}
        torch.save({**state, 'mix': None if self.mix is None else self.mix.state_dict()}, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=False)
        self.net.load_state_dict(state['net'])
        self.loader.load_state_dict(state['loader'])
        self.epoch = state['epoch']
        if self.mix is not None:
            self.mix.load_state_dict(state['mix'])


@WAYS
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('killed', [(2, 3), (9, 4), (5, 12)])
def test_a_run_that_is_killed_twice_ends_with_the_bits_of_one_that_is_not(
    way: str, workers: int, killed: tuple[int, int], tmp_path: Path
) -> None:
    mode: Any = 'replace' if way == 'plain' else 'append'  # a plain loader cannot resume at another length
    whole = Training(way, workers, mode=mode)
    assert whole.run(3)
    for number, steps in enumerate((*killed, None)):
        part = Training(way, workers, mode=mode)
        if number:
            part.load(tmp_path / 'state')
        assert part.run(3, steps) == (steps is None)
        part.save(tmp_path / 'state')
    for one, other in zip(whole.net.parameters(), part.net.parameters(), strict=True):
        assert torch.equal(one, other)
    if whole.mix is not None and part.mix is not None:
        assert torch.equal(whole.mix.get_extra_state(), part.mix.get_extra_state())


@pytest.mark.parametrize('mode', ['append', 'replace'])
@pytest.mark.parametrize('drop_last', [False, True])
def test_a_sampler_goes_on_after_any_batch(mode: Any, drop_last: bool) -> None:
    def fresh() -> MixedBatchSampler:
        mixed = MixedDataset(Toy('spectrum', 24), Toy('spectrum', 40, seed=1), CHANGES, mode=mode)
        return MixedBatchSampler(mixed, 5, drop_last)

    sampler = fresh()
    epochs = [list(sampler) for _ in range(4)]
    for epoch, batches in enumerate(epochs[:3]):
        for given in range(1, len(batches) + 1):
            left, again = fresh(), fresh()
            left.set_epoch(epoch)
            iteration = iter(left)
            for _ in range(given):
                next(iteration)
            state = left.state_dict()
            del iteration  # a break leaves the position alone: users save after it
            assert left.state_dict() == state
            again.load_state_dict(state)
            assert again.state_dict() == state
            assert list(again) == batches[given:]
            assert list(again) == epochs[epoch + 1]
        left.set_epoch(epoch)
        assert list(left) == batches
        again.load_state_dict(left.state_dict())  # between two epochs
        assert list(again) == epochs[epoch + 1]
    again.load_state_dict(state)
    again.set_epoch(0)  # somebody says where to go on
    assert list(again) == epochs[0]


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('finished', [False, True])
def test_a_state_from_the_end_of_an_epoch_gives_no_batch_twice(workers: int, finished: bool) -> None:
    def fresh() -> Any:
        mixed = MixedDataset(Toy('spectrum', 24), Toy('spectrum', 40, seed=1), CHANGES)
        return stateful(mixed, batch_sampler=MixedBatchSampler(mixed, 4), num_workers=workers)

    whole = [[keys_of(batch['image']) for batch in loader] for loader in [fresh()] for _ in range(2)]
    left, again = fresh(), fresh()
    iteration = iter(left)
    for _ in range(len(whole[0])):
        next(iteration)
    if finished:
        with pytest.raises(StopIteration):
            next(iteration)
    again.load_state_dict(left.state_dict())
    if not finished:
        assert list(again) == []
    assert [keys_of(batch['image']) for batch in again] == whole[1]


def test_a_state_of_something_else_is_refused_by_what_differs() -> None:
    def mixture(real: int = 24, source: int = 40, **options: Any) -> MixedDataset:
        return MixedDataset(Toy('spectrum', real), Toy('spectrum', source, seed=1), **options)

    sampler = MixedBatchSampler(mixture(), 4)
    next(iter(sampler))
    for other, what in (
        (MixedBatchSampler(mixture(), 8), 'batch size: 4 when it was saved, 8 here'),
        (MixedBatchSampler(mixture(), 4, seed=1), 'order: 0 when it was saved, 1 here'),
        (MixedBatchSampler(mixture(seed=1), 4), 'seed: 0 when it was saved, 1 here'),
        (MixedBatchSampler(mixture(23), 4), 'real samples: 24 when it was saved, 23 here'),
        (MixedBatchSampler(mixture(source=39), 4), r'synthetic samples: \[40\] when it was saved, \[39\] here'),
        (MixedBatchSampler(mixture(ratio=1.0), 4), r'ratios: \[0.5\] when it was saved, \[1.0\] here'),
        (MixedBatchSampler(mixture(), 4, num_replicas=2, rank=0), 'ranks: 1 when it was saved, 2 here'),
    ):
        with pytest.raises(ValueError, match=what):
            other.load_state_dict(sampler.state_dict())
    with pytest.raises(ValueError, match=r"MixedDataset: this is not a state dict .* \['epoch', 'settings'\] missing"):
        mixture().load_state_dict({'a': 1})
    with pytest.raises(ValueError, match='seed: 0 when it was saved, 1 here'):
        mixture(seed=1).load_state_dict(mixture().state_dict())
    state = SyntheticMix(Toy('spectrum', 9)).state_dict()
    for mix, what in (
        (SyntheticMix(Toy('spectrum', 9), seed=2), 'seed of synthetic samples 0 when it was saved, 2 here'),
        (SyntheticMix(Toy('spectrum', 8)), 'number of synthetic samples 9 when it was saved, 8 here'),
        (SyntheticMix(Toy('spectrum', 9), mode='append'), 'mode'),
    ):
        with pytest.raises(ValueError, match=what):
            mix.load_state_dict(state)
    older = {key: value[:6] for key, value in state.items()}  # from before the seed was part of it
    SyntheticMix(Toy('spectrum', 9), seed=2).load_state_dict(older)


# --- Lightning ------------------------------------------------------------------------------------------------------


class Inner(LightningDataModule):
    def __init__(self, loader: Any = DataLoader) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> Any:
        return self.loader(Toy('spectrum', 24), 4)


class Task(LightningModule):
    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.fails_at = torch.nn.Linear(5, 3), fails_at

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == self.fails_at:
            raise InterruptedError
        return torch.nn.functional.cross_entropy(self.net(batch['image']), batch['label'])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.5)


def fit(task: Task, data: Any, folder: Path, **options: Any) -> None:
    saver = ModelCheckpoint(folder, 'last', every_n_train_steps=1, enable_version_counter=False)
    Trainer(
        max_epochs=3, accelerator='cpu', logger=False, callbacks=[saver], enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, reload_dataloaders_every_n_epochs=1,
    ).fit(task, data, **options)  # fmt: skip


@pytest.mark.parametrize('loader', ['module', 'module, stateful', 'loader, stateful'])
@pytest.mark.parametrize(
    ('mode', 'fails'),
    [('replace', (2, 4)), ('replace', (6,)), ('replace', (7, 13)), ('append', (2, 4)), ('append', (10, 24))],
)
def test_lightning_killed_twice_ends_with_the_bits_of_an_undisturbed_training(
    loader: str, mode: Any, fails: tuple[int, ...], tmp_path: Path
) -> None:
    # Lightning loses its own place, with any loader, where it is killed again after it has resumed at the end of an
    # epoch, and where that epoch was shorter than the next.

    def data() -> Any:
        if loader != 'loader, stateful':
            inner = Inner(stateful if 'stateful' in loader else DataLoader)
            return MixedDataModule(inner, Toy('spectrum', 40, seed=1), CHANGES, mode, way='dataset')
        ratio: Any = 0.5 if mode == 'append' else CHANGES  # whose length a trainer reads once
        mixed = MixedDataset(Toy('spectrum', 24), Toy('spectrum', 40, seed=1), ratio, mode=mode)
        return mixed_loader(stateful(Toy('spectrum', 24), 4), mixed)

    whole = Task()
    fit(whole, data(), tmp_path / 'whole')
    options: dict[str, Any] = {}
    for step in fails:
        with pytest.raises(InterruptedError):
            fit(Task(step), data(), tmp_path / 'killed', **options)
        options = {'ckpt_path': tmp_path / 'killed' / 'last.ckpt'}
    last = Task()
    fit(last, data(), tmp_path / 'killed', **options)
    for one, other in zip(whole.net.parameters(), last.net.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('way', ['dataset', 'batch'])
def test_lightning_refuses_the_checkpoint_of_another_seed(way: Any, tmp_path: Path) -> None:
    def data(seed: int) -> MixedDataModule:
        return MixedDataModule(Inner(), Toy('spectrum', 40, seed=1), 0.5, way=way, seed=seed)

    with pytest.raises(InterruptedError):
        fit(Task(2), data(0), tmp_path)
    with pytest.raises(ValueError, match=r'MixedDataModule: .*\n  seed: 0 when it was saved, 1 here'):
        fit(Task(), data(1), tmp_path, ckpt_path=tmp_path / 'last.ckpt')
