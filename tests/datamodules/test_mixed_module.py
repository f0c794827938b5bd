from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from real_modules import CityPairs, RealModule, SyntheticWater
from torch.utils.data import DataLoader
from torchgeo.trainers import ChangeDetectionTask, ClassificationTask, SemanticSegmentationTask
from toy_modules import ToyModule, ToyPairs
from toys import Toy, keys_of

import hsiaug
from hsiaug.datamodules import MixedDataModule, SpectraDataModule
from hsiaug.datasets import adapt
from hsiaug.ratio import Linear, SyntheticFirst
from hsiaug.samples import LeakageError, SpecMismatchError
from hsiaug.scenes import RandomSplit, Scene, Split
from hsiaug.systems import TrainingData
from hsiaug.trainers import SpectralClassificationTask, fit_generator, training_data


def task_for(kind: str) -> Any:
    if kind == 'scene':
        return ClassificationTask(model='resnet18', in_channels=7, task='multiclass', num_classes=2, lr=1e-3)
    if kind == 'segmentation':
        return SemanticSegmentationTask(
            model='unet', backbone='resnet18', in_channels=7, task='multiclass', num_classes=2, loss='ce', lr=1e-3
        )
    return ChangeDetectionTask(model='fcsiamdiff', backbone='resnet18', in_channels=4, loss='bce', lr=1e-3)


def train(
    task: Any, module: LightningDataModule, folder: Path | None = None, epochs: int = 2, **options: Any
) -> Trainer:
    logger = CSVLogger(folder, name='', version='') if folder else False
    trainer = Trainer(
        max_epochs=epochs, accelerator='cpu', logger=logger, enable_checkpointing=False, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(task, module)
    return trainer


@pytest.mark.parametrize('way', ['dataset', 'batch'])
@pytest.mark.parametrize('kind', ['scene', 'segmentation', 'change'])
def test_torchgeo_tasks_train_on_mixed_real_data(real_data: Path, tmp_path: Path, kind: str, way: str) -> None:
    torch.manual_seed(0)
    inner = RealModule(str(real_data), kind, spy=True)
    source: Any = CityPairs(str(real_data), 'synthetic') if kind == 'change' else SyntheticWater(str(real_data), kind)
    module = MixedDataModule(inner, source, 0.5, way=way)  # type: ignore[arg-type]
    trainer = train(task_for(kind), module, tmp_path)
    real, synthetic = (16, 8) if kind == 'change' else (24, 12)
    assert (module.real_seen, module.synthetic_seen) == (2 * real, 2 * synthetic)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert metrics
    assert all(np.isfinite(value) for value in metrics.values())
    log = (tmp_path / 'metrics.csv').read_text()
    assert 'mix/synthetic_seen' in log
    assert str(float(2 * synthetic)) in log
    # The inner module's normalisation and flips ran on every batch, real and synthetic alike.
    flipped = set()
    assert sum(int(before['synthetic'].sum()) for before, _ in inner.seen) == 2 * synthetic
    shape = (-1, 1, 1)
    mean, std = inner.mean.reshape(shape), inner.std.reshape(shape)
    for before, after in inner.seen:
        for row in range(len(before['image'])):
            expected = (before['image'][row] - mean) / std
            flip = not torch.allclose(after['image'][row], expected, atol=1e-4)
            found = after['image'][row].flip(-1) if flip else after['image'][row]
            assert torch.allclose(found, expected, atol=1e-4)
            if 'mask' in before:
                mask = after['mask'][row].flip(-1) if flip else after['mask'][row]
                assert torch.equal(mask.to(torch.int64).squeeze(), before['mask'][row].squeeze())
            flipped.add((bool(before['synthetic'][row]), flip))
    assert len(flipped) == 4


def test_our_spectral_task_on_a_real_scene_and_checkpointed_counts(real_data: Path, tmp_path: Path) -> None:
    with np.load(real_data / 'salinas_a' / 'salinas_a.npz') as file:
        gt = file['gt']
        scene = Scene('salinas_a', file['cube'], gt, {int(i): f'class {i}' for i in np.unique(gt) if i})
    split = RandomSplit(fraction=0.03)(scene)
    source = fit_generator('variability', training_data(scene, split))
    module = MixedDataModule(SpectraDataModule(scene, split, batch_size=16), source, 1.0, labels='sqrt')
    assert module.way == 'batch'
    task = SpectralClassificationTask(204, 6, lr=3e-3)
    trainer = train(task, module, tmp_path, epochs=12)
    real = len(split.train)
    assert (module.real_seen, module.synthetic_seen) == (12 * real, 12 * real)
    assert float(trainer.callback_metrics['train_synthetic']) == pytest.approx(0.5, abs=1e-6)
    assert trainer.test(task, module, verbose=False)[0]['test_OA'] > 0.8
    trainer.save_checkpoint(tmp_path / 'last.ckpt')
    again = MixedDataModule(SpectraDataModule(scene, split, batch_size=16), source, 1.0, labels='sqrt')
    more = Trainer(
        max_epochs=13, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    more.fit(SpectralClassificationTask(204, 6), again, ckpt_path=tmp_path / 'last.ckpt')
    assert again.synthetic_seen == 13 * real


def test_validation_figures_of_the_change_task_do_not_break_a_run(real_data: Path) -> None:
    # A logger with add_figure (TensorBoard; here the dummy of fast_dev_run) sends the task into kornia's trap.
    source = CityPairs(str(real_data), 'synthetic')
    task = task_for('change')
    plain = RealModule(str(real_data), 'change')
    with pytest.raises(ValueError, match='same number of frames'):
        Trainer(fast_dev_run=True, accelerator='cpu').fit(task, plain)
    Trainer(fast_dev_run=True, accelerator='cpu').fit(task, MixedDataModule(plain, source, 0.5))


@pytest.mark.parametrize('way', ['dataset', 'batch'])
def test_ratio_zero_trains_to_the_same_bits(real_data: Path, way: str) -> None:
    states = []
    for mixed in (False, True):
        torch.manual_seed(3)
        module: Any = RealModule(str(real_data))
        if mixed:
            module = MixedDataModule(module, SyntheticWater(str(real_data)), 0, way=way)  # type: ignore[arg-type]
        task = task_for('segmentation')
        torch.manual_seed(4)
        train(task, module, epochs=1)
        states.append(task.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


class Ranked(LightningModule):
    """Writes down what its process is trained on."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.model, self.out, self.rows = torch.nn.Conv2d(5, 3, 1), out, list[str]()

    def training_step(self, batch: Any, _: int) -> Any:
        for key, synthetic in zip(keys_of(batch['image']), batch['synthetic'].tolist(), strict=True):
            self.rows.append(f'{self.current_epoch} {synthetic:d} {key.hex()[:64]}')
        return torch.nn.functional.cross_entropy(self.model(batch['image']), batch['mask'])

    def on_train_end(self) -> None:
        mixed = self.trainer.datamodule  # type: ignore[attr-defined]
        counts = f'{mixed.real_seen} {mixed.synthetic_seen}'
        (self.out / f'rank{self.global_rank}').write_text('\n'.join([*self.rows, counts]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize('way', ['dataset', 'batch'])
def test_two_ddp_processes_share_one_epoch(tmp_path: Path, way: Any) -> None:
    inner = Inner()
    inner.train_dataset = Toy('segmentation', 21)
    Trainer(
        max_epochs=2, accelerator='cpu', devices=2, strategy='ddp_fork', logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(Ranked(tmp_path), MixedDataModule(inner, Toy('segmentation', 60, seed=1), 1.0, way=way))  # fmt: skip
    ranks = [(tmp_path / f'rank{r}').read_text().splitlines() for r in (0, 1)]
    real_keys = {key.hex()[:64] for key in keys_of(Toy('segmentation', 21).data['image'])}
    for epoch in '01':
        rows = [row.split() for rank in ranks for row in rank[:-1] if row[0] == epoch]
        real = [key for _, flag, key in rows if flag == '0']
        synthetic = [key for _, flag, key in rows if flag == '1']
        assert set(real) == real_keys
        assert len(set(synthetic)) == len(synthetic)
        if way == 'dataset':  # one epoch shared out: nothing lost, nothing twice
            assert (len(real), len(synthetic)) == (21, 21)
        else:  # Lightning's own sampler repeats one real sample to make the ranks even
            assert (len(real), len(synthetic)) == (22, 22)
    counts = np.sum([[int(v) for v in rank[-1].split()] for rank in ranks], axis=0)
    assert counts.tolist() == ([42, 42] if way == 'dataset' else [44, 44])


class Inner(LightningDataModule):
    def __init__(self, kind: Any = 'segmentation') -> None:
        super().__init__()
        self.train_dataset = Toy(kind, 20)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train_dataset, 4, shuffle=True)


def test_schedules_reach_the_loader_and_a_changing_length_is_refused() -> None:
    module = MixedDataModule(Inner(), Toy('segmentation', 60, seed=1), SyntheticFirst(1), mode='replace')
    loader = module.train_dataloader()
    assert [sum(int(b['synthetic'].sum()) for b in loader) for _ in range(2)] == [20, 0]
    growing = MixedDataModule(Inner(), Toy('segmentation', 60, seed=1), Linear(0, 1, 2))
    growing.trainer = Trainer(accelerator='cpu', logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match='reload_dataloaders_every_n_epochs=1'):
        growing.train_dataloader()
    growing.trainer = Trainer(
        accelerator='cpu', logger=False, enable_checkpointing=False, reload_dataloaders_every_n_epochs=1
    )
    assert len(growing.train_dataloader()) == 5


def test_everything_else_is_the_inner_modules(scene: Scene, split: Split) -> None:
    inner = SpectraDataModule(scene, split, batch_size=7)
    module = MixedDataModule(inner, Toy('spectrum', 5), 0)
    assert module.batch_size == 7
    assert torch.equal(module.real_spectra(), inner.real_spectra())
    assert len(module.val_dataloader().dataset) == len(split.val)
    with pytest.raises(AttributeError, match='nothing_of_the_kind'):
        module.nothing_of_the_kind  # noqa: B018


def test_only_datamodules_are_wrapped() -> None:
    for wrong in (Toy('spectrum', 4), ToyModule):
        with pytest.raises(TypeError, match=r'a LightningDataModule expected, found Toy'):
            MixedDataModule(wrong, Toy('spectrum', 4))  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused(scene: Scene, split: Split, data: TrainingData, tmp_path: Path) -> None:
    elsewhere = SpectraDataModule(scene, RandomSplit(fraction=0.4)(scene, seed=9))
    generator = fit_generator('noise', data)
    for way in ('dataset', 'batch'):
        module = MixedDataModule(elsewhere, generator, 1.0, way=way)  # type: ignore[arg-type]
        with pytest.raises(LeakageError, match='has seen'):
            module.train_dataloader()
    with pytest.raises(SpecMismatchError, match='kind: real'):
        MixedDataModule(SpectraDataModule(scene, split), Toy('scene', 90), 0.5).train_dataloader()
    with pytest.raises(FileNotFoundError, match='neither a bank'):
        MixedDataModule(elsewhere, tmp_path)
    with pytest.raises(ValueError, match='unknown way'):
        MixedDataModule(elsewhere, generator, way='best')  # type: ignore[arg-type]
    generator.save_pretrained(tmp_path / 'generator')
    opened = MixedDataModule(SpectraDataModule(scene, split), tmp_path / 'generator')
    assert opened.source.spec == generator.spec  # type: ignore[union-attr]


def test_describe_draws_real_beside_synthetic(capsys: pytest.CaptureFixture[str]) -> None:
    figure = MixedDataModule(Inner(), Toy('segmentation', 60, seed=1), 0.5).describe(count=3)
    assert '<Toy: 60 segmentation samples> mixed into Inner' in capsys.readouterr().out
    assert len(figure.axes) >= 12
    assert keys_of(Toy('segmentation', 2).data['image'])


@pytest.mark.parametrize('way', ['dataset', 'batch'])
def test_a_bank_too_small_for_an_epoch_is_an_error_before_the_first_step(way: Any) -> None:
    class Inner(LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Toy('segmentation', 64), 8)

    class Task(LightningModule):
        steps = 0

        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Conv2d(5, 3, 1)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            self.steps += 1
            return torch.nn.functional.cross_entropy(self.net(batch['image']), batch['mask'])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(ratio: Any, mode: Any = 'replace', epochs: int = 1, **options: Any) -> int:
        task = Task()
        quiet: dict[str, Any] = {'logger': False, 'enable_checkpointing': False, 'enable_progress_bar': False}
        trainer = Trainer(max_epochs=epochs, accelerator='cpu', enable_model_summary=False, **quiet, **options)
        try:
            trainer.fit(task, MixedDataModule(Inner(), Toy('segmentation', 20, seed=1), ratio, mode, way))
        except ValueError as error:
            assert 'synthetic samples are needed, but the synthetic dataset holds 20' in str(error)  # noqa: PT017
            return -task.steps if task.steps else -1
        return task.steps

    assert fit(1.0, 'append') == -1
    assert fit(1.0) == -1
    assert fit(0.25) == 8
    if way == 'batch':
        assert fit(1.0, limit_train_batches=4) == 4  # 16 of 20
        assert fit(Linear(0, 1, 3), epochs=4) == -1  # the last epochs ask for 32


def test_validation_and_test_samples_that_were_learnt_from_are_refused() -> None:
    module = ToyModule()
    train, val, test = (adapt(ToyPairs(part), unit='reflectance') for part in ('train', 'val', 'test'))
    generator = hsiaug.fit('patch_augment', train, val=val, kind='flips')
    leaking = hsiaug.fit('patch_augment', [train, test], kind='flips')
    reads: list[int] = []
    for source, refused in ((generator, False), (leaking, True)):
        mixed = MixedDataModule(module, source)
        mixed.setup('fit')
        mixed.setup('test')
        read = type(module.val_dataset).__getitem__
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(module.val_dataset), '__getitem__', lambda s, k: (reads.append(k), read(s, k))[1])  # noqa: B023
            mixed.val_dataloader()
            mixed.val_dataloader()
        assert len(reads) == len(val) * (1 + refused)  # once for each module
        if refused:
            with pytest.raises(LeakageError, match='has seen 8 of 8 test samples'):
                mixed.test_dataloader()
        else:
            mixed.test_dataloader()
