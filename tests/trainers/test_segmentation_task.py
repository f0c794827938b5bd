from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_runs import Toys, enlarged, trainer
from metric_names import scored
from torch import nn
from toys import BANDS, Toy

from hsiaug.datamodules import MixedDataModule
from hsiaug.models import PFSegNet, SegFormer
from hsiaug.trainers import SegmentationTask

OPTIONS: dict[str, dict[str, Any]] = {
    'segformer-hsi': {'backbone': 'mit_tiny', 'options': {'decoder_channels': 16, 'mapping': False, 'upsampling': 2}},
    'pfsegnet': {'backbone': 'resnet_tiny', 'options': {'channels': 16}},
    'unet': {'backbone': 'resnet18'},
}


def task_for(model: str, **kwargs: Any) -> SegmentationTask:
    torch.manual_seed(0)
    return SegmentationTask(model, in_channels=BANDS, num_classes=3, **{'lr': 3e-3, **OPTIONS[model], **kwargs})


@pytest.mark.parametrize(('model', 'weight'), [('segformer-hsi', None), *((name, 0.5) for name in OPTIONS)])
def test_networks_train_on_a_mixed_datamodule(model: str, weight: float | None) -> None:
    task = task_for(model)
    module = MixedDataModule(Toys('segmentation'), enlarged('segmentation'), 1.0, weight=weight)
    run = trainer(1)
    run.fit(task, module)
    assert (module.real_seen, module.synthetic_seen) == (16, 16)
    assert run.callback_metrics['train_loss'] > 0
    for stage in ('train', 'val'):
        assert 0 < scored(run.callback_metrics, f'{stage}_Accuracy') <= 1
    (found,) = run.test(task, module, verbose=False)
    assert 0 < scored(found, 'test_JaccardIndex') <= 1


def test_it_learns() -> None:
    task = task_for('segformer-hsi')
    run = trainer(20)
    run.fit(task, Toys('segmentation'))
    assert scored(run.test(task, Toys('segmentation'), verbose=False)[0], 'test_Accuracy') > 0.7


def test_weights_reach_the_loss_and_batches_without_them_are_torchgeos() -> None:
    task = task_for('segformer-hsi', class_weights=[1.0, 2.0, 3.0], ignore_index=255)
    task.log = task.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    batch = Toy('segmentation', 4).data
    batch['mask'][0, 0] = 255
    task.eval()
    plain = task.training_step(batch, 0).item()
    assert task.training_step({**batch, 'weight': torch.ones(4)}, 0).item() == pytest.approx(plain, rel=1e-5)
    first = task.training_step({key: value[:1] for key, value in batch.items()}, 0).item()
    only = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert task.training_step({**batch, 'weight': only}, 0).item() == pytest.approx(first, rel=1e-5)


def test_any_network_a_checkpoint_and_freezing(tmp_path: Path) -> None:
    network = nn.Conv2d(BANDS, 3, 1)
    task = SegmentationTask(network=network, in_channels=BANDS, num_classes=3)
    assert task.model is network
    assert 'network' not in task.hparams
    frozen = task_for('segformer-hsi', freeze_backbone=True)
    assert isinstance(frozen.model, SegFormer)
    trained = {name.split('.')[0] for name, p in frozen.model.named_parameters() if p.requires_grad}
    assert trained == {'decoder', 'head'}
    task = task_for('pfsegnet')
    run = trainer(1)
    run.fit(task, Toys('segmentation'))
    run.save_checkpoint(tmp_path / 'task.ckpt')
    again = SegmentationTask.load_from_checkpoint(tmp_path / 'task.ckpt', weights_only=True)
    assert isinstance(again.model, PFSegNet)
    image = torch.rand(2, BANDS, 16, 16)
    assert torch.equal(again.model.eval()(image), task.model.eval()(image))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"weights of 'pfsegnet' are True or None, found 'some\.pth'"):
        task_for('pfsegnet', weights='some.pth')
    task = task_for('segformer-hsi', loss='focal')
    with pytest.raises(ValueError, match="need loss='ce', found 'focal'"):
        task.training_step({**Toy('segmentation', 2).data, 'weight': torch.ones(2)}, 0)
