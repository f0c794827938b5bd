import pytest
import torch
from lightning.pytorch import Trainer
from lightning_runs import trainer
from torch.utils.data import DataLoader

from hsiaug.datamodules import SpectraDataModule
from hsiaug.metrics import accuracies
from hsiaug.scenes import Scene, Split
from hsiaug.systems import TrainingData
from hsiaug.trainers import SpectralClassificationTask, fit_generator


def fit(module: SpectraDataModule, epochs: int) -> tuple[Trainer, SpectralClassificationTask]:
    torch.manual_seed(0)
    task = SpectralClassificationTask(12, 3, lr=3e-3)
    run = trainer(epochs)
    run.fit(task, module)
    return run, task


@pytest.mark.parametrize('workers', [0, 1])
def test_task_trains_on_a_mixed_datamodule(scene: Scene, split: Split, data: TrainingData, workers: int) -> None:
    source = fit_generator('mixup', data, {'partners': 'across'})
    module = SpectraDataModule(scene, split, source, ratio=1.0, num_workers=workers, batch_size=16)
    run, task = fit(module, epochs=6)
    assert float(run.callback_metrics['train_synthetic']) == pytest.approx(0.5, abs=0.02)
    assert torch.allclose(task.model.scaler.offset, data.x.mean(dim=0), atol=1e-5)  # type: ignore[union-attr]
    (metrics,) = run.test(task, module, verbose=False)
    assert metrics['test_OA'] > 0.9


def test_every_epoch_draws_anew_and_ratio_zero_is_the_real_data(scene: Scene, split: Split, data: TrainingData) -> None:
    module = SpectraDataModule(scene, split, fit_generator('noise', data), ratio=1.0)
    loader = module.train_dataloader()
    epochs = [torch.cat([b['image'][b['synthetic']] for b in loader]).sort(dim=0).values for _ in range(2)]
    assert epochs[0].shape == epochs[1].shape
    assert not torch.equal(*epochs)
    plain, zero = (
        fit(SpectraDataModule(scene, split, source, ratio=0.0), 1)[1].state_dict()
        for source in (None, fit_generator('noise', data))
    )
    assert all(torch.equal(plain[key], zero[key]) for key in plain)


def test_sample_weights_scale_the_loss_of_synthetic_spectra() -> None:
    task = SpectralClassificationTask(5, 3)
    image, label = torch.rand(4, 5), torch.tensor([0, 1, 2, 0])
    weight = torch.tensor([1.0, 1.0, 0.25, 0.0])
    each = torch.nn.functional.cross_entropy(task(image), label, reduction='none')
    expected = (each[0] + each[1] + 0.25 * each[2]) / 2.25
    found = task.training_step({'image': image, 'label': label, 'weight': weight}, 0)
    assert torch.allclose(found, expected)
    plain = task.training_step({'image': image, 'label': label}, 0)
    assert torch.allclose(plain, each.mean())
    nothing = task.training_step({'image': image, 'label': label, 'weight': torch.zeros(4)}, 0)
    assert float(nothing) == 0  # no NaN that would destroy the network


def test_several_loaders_are_validated_together() -> None:
    x, y = torch.rand(20, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    samples = [{'image': image, 'label': label} for image, label in zip(x, y, strict=True)]
    task, run = SpectralClassificationTask(5, 3), trainer(1)
    loaders = [DataLoader(samples[:13], 8), DataLoader(samples[13:], 4)]  # type: ignore[arg-type]
    run.fit(task, DataLoader(samples, 8), loaders)  # type: ignore[arg-type]
    expected = accuracies(task(x).argmax(dim=1), y, 3)
    assert float(run.callback_metrics['val_OA']) == pytest.approx(expected.oa)
    assert float(run.callback_metrics['val_kappa']) == pytest.approx(expected.kappa, abs=1e-6)
