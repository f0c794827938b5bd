from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_runs import Toys, enlarged, trainer
from metric_names import scored
from torch import nn
from toys import BANDS, Toy

from hsiaug.datamodules import MixedDataModule
from hsiaug.losses.change import multi_scale_loss
from hsiaug.models import ChangeFormerV3, SiamCRNN
from hsiaug.trainers import ChangeTask

OPTIONS: dict[str, dict[str, Any]] = {
    'changeformer-v3': {'backbone': 'mit_tiny', 'options': {'channels': 16}},
    'changeformer-v6': {'backbone': 'mit_tiny', 'options': {'channels': 16}},
    'siamcrnn': {'backbone': 'resnet_tiny', 'options': {'channels': 16}},
    'fcsiamdiff': {'backbone': 'resnet18'},
    'unet': {'backbone': 'resnet18'},
}
MULTICLASS: dict[str, Any] = {'task': 'multiclass', 'num_classes': 2, 'loss': 'ce'}


def task_for(model: str, **kwargs: Any) -> ChangeTask:
    torch.manual_seed(0)
    task = ChangeTask(model, in_channels=BANDS, **{'lr': 3e-3, **OPTIONS[model], **kwargs})
    return task


def quiet(task: ChangeTask) -> ChangeTask:
    """In evaluation mode, to be called outside of a trainer."""
    task.log = task.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    return task.eval()


@pytest.mark.parametrize(('model', 'weight'), [('changeformer-v3', None), *((name, 0.5) for name in OPTIONS)])
def test_networks_train_on_a_mixed_datamodule(model: str, weight: float | None) -> None:
    task = task_for(model)
    module = MixedDataModule(Toys('change'), enlarged('change'), 1.0, weight=weight)
    run = trainer(1)
    run.fit(task, module)
    assert (module.real_seen, module.synthetic_seen) == (16, 16)
    assert run.callback_metrics['train_loss'] > 0
    for stage in ('train', 'val'):
        assert 0 < scored(run.callback_metrics, f'{stage}_Accuracy') <= 1
    (found,) = run.test(task, module, verbose=False)
    assert 0 <= scored(found, 'test_JaccardIndex') <= 1


def test_it_learns() -> None:
    task = task_for('changeformer-v3', options={'channels': 16, 'upsampling': 2}, lr=1e-2)
    run = trainer(20)
    run.fit(task, Toys('change'))
    assert scored(run.test(task, Toys('change'), verbose=False)[0], 'test_F1Score') > 0.7


@pytest.mark.parametrize('model', ['changeformer-v3', 'siamcrnn'])
def test_binary_and_two_class_tasks_agree(model: str) -> None:
    binary, multiclass = quiet(task_for(model)), quiet(task_for(model, **MULTICLASS))
    batch = Toy('change', 4).data
    one, two = binary(batch['image']), multiclass(batch['image'])
    assert one.shape == (4, 1, 8, 8)
    assert torch.allclose(one.sigmoid(), two.softmax(dim=1)[:, 1:], atol=1e-6)
    # torchgeo stacks the dates of networks whose names it does not know.
    assert torch.equal(binary(batch['image'].flatten(1, 2)), one)
    assert torch.allclose(binary.predict_step(batch, 0), multiclass.predict_step(batch, 0)[:, 1:], atol=1e-6)
    losses = [task.training_step(batch, 0).item() for task in (binary, multiclass)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize('kwargs', [{'pos_weight': torch.tensor(3.0)}, {**MULTICLASS, 'class_weights': [1.0, 3.0]}])
def test_weights_reach_the_loss_and_ignored_pixels_do_not(kwargs: dict[str, Any]) -> None:
    task = quiet(task_for('changeformer-v3', ignore_index=255, **kwargs))
    batch = Toy('change', 4).data
    batch['mask'][:, :, :3] = 255
    plain = task.training_step(batch, 0).item()
    assert 0 < plain < 5
    assert task.training_step({**batch, 'weight': torch.ones(4)}, 0).item() == pytest.approx(plain, rel=1e-5)
    first = task.training_step({key: value[:1] for key, value in batch.items()}, 0).item()
    only = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert task.training_step({**batch, 'weight': only}, 0).item() == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize('kwargs', [{}, MULTICLASS])
def test_side_outputs_are_trained_in_either_task(kwargs: dict[str, Any]) -> None:
    task = quiet(task_for('changeformer-v6', **kwargs))
    batch = Toy('change', 4).data
    loss = task.training_step(batch, 0)
    network: Any = task.model.network  # type: ignore[union-attr]
    logits, sides = network.forward_with_sides(batch['image'])
    assert loss.item() == pytest.approx(multi_scale_loss(logits, sides, batch['mask']).item(), rel=1e-5)
    loss.backward()
    assert all(side[-1].bias.grad.any() for side in network.sides)


def test_any_network_a_checkpoint_and_freezing(tmp_path: Path) -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(BANDS, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x[:, 1] - x[:, 0])

    network = Difference()
    task = ChangeTask(network=network, in_channels=BANDS)
    assert 'network' not in task.hparams
    image = torch.rand(2, 2, BANDS, 32, 32)
    logits = network(image)
    assert torch.equal(task(image), logits[:, 1:] - logits[:, :1])
    frozen = task_for('changeformer-v3', freeze_backbone=True)
    assert isinstance(frozen.model.network, ChangeFormerV3)  # type: ignore[union-attr]
    trained = {name.split('.')[1] for name, p in frozen.model.named_parameters() if p.requires_grad}
    assert trained == {'project', 'fuse', 'head'}
    task = task_for('siamcrnn')
    run = trainer(1)
    run.fit(task, Toys('change'))
    run.save_checkpoint(tmp_path / 'task.ckpt')
    again = ChangeTask.load_from_checkpoint(tmp_path / 'task.ckpt', weights_only=True)
    assert isinstance(again.model.network, SiamCRNN)  # type: ignore[union-attr]
    assert torch.equal(again.eval()(image), task.eval()(image))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"weights of 'siamcrnn' are True or None, found 'some\.pth'"):
        task_for('siamcrnn', weights='some.pth')
    batch = {**Toy('change', 2).data, 'weight': torch.ones(2)}
    with pytest.raises(ValueError, match="need loss='bce' or 'ce', found 'focal'"):
        quiet(task_for('changeformer-v3', loss='focal')).training_step(batch, 0)
