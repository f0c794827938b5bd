"""Lightning tasks for images with masks, of one date and of two."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning_runs import Toys, enlarged, trainer
from metric_names import scored
from torch import nn
from toys import BANDS, Toy

from hsiaug.datamodules import MixedDataModule
from hsiaug.losses.change import multi_scale_loss
from hsiaug.models import ChangeFormerV3, PFSegNet, SegFormer, SiamCRNN
from hsiaug.trainers import ChangeTask, SegmentationTask

OPTIONS: dict[str, dict[str, Any]] = {
    'segformer-hsi': {'backbone': 'mit_tiny', 'options': {'decoder_channels': 16, 'mapping': False, 'upsampling': 2}},
    'pfsegnet': {'backbone': 'resnet_tiny', 'options': {'channels': 16}},
    'changeformer-v3': {'backbone': 'mit_tiny', 'options': {'channels': 16}},
    'changeformer-v6': {'backbone': 'mit_tiny', 'options': {'channels': 16}},
    'siamcrnn': {'backbone': 'resnet_tiny', 'options': {'channels': 16}},
    'fcsiamdiff': {'backbone': 'resnet18'},
    'unet': {'backbone': 'resnet18'},
}
SEGMENTS = ('segformer-hsi', 'pfsegnet')
MULTICLASS: dict[str, Any] = {'task': 'multiclass', 'num_classes': 2, 'loss': 'ce'}
Kind = Literal['segmentation', 'change']


def task_for(model: str, kind: Kind | None = None, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    given = {'in_channels': BANDS, 'lr': 3e-3, **OPTIONS[model], **kwargs}
    if (kind or kind_of(model)) == 'segmentation':
        return SegmentationTask(model, num_classes=3, **given)
    return ChangeTask(model, **given)


def kind_of(model: str) -> Kind:
    return 'segmentation' if model in SEGMENTS else 'change'


def quiet(task: Any) -> Any:
    """In evaluation mode, to be called outside of a trainer."""
    task.log = task.log_dict = lambda *args, **kwargs: None
    return task.eval()


@pytest.mark.parametrize(
    ('kind', 'model', 'weight'),
    [
        ('segmentation', 'segformer-hsi', None),
        ('segmentation', 'unet', 0.5),
        ('change', 'changeformer-v3', None),
        *((kind_of(model), model, 0.5) for model in OPTIONS),
    ],
)
def test_networks_train_on_a_mixed_datamodule(kind: Kind, model: str, weight: float | None) -> None:
    task, module = task_for(model, kind), MixedDataModule(Toys(kind), enlarged(kind), 1.0, weight=weight)
    run = trainer(1)
    run.fit(task, module)
    assert (module.real_seen, module.synthetic_seen) == (16, 16)
    assert run.callback_metrics['train_loss'] > 0
    for stage in ('train', 'val'):
        assert 0 < scored(run.callback_metrics, f'{stage}_Accuracy') <= 1
    (found,) = run.test(task, module, verbose=False)
    assert -(kind == 'change') < scored(found, 'test_JaccardIndex') <= 1  # of changes 0 too


@pytest.mark.parametrize(
    ('model', 'metric', 'options'),
    [
        ('segformer-hsi', 'Accuracy', {}),
        ('changeformer-v3', 'F1Score', {'options': {'channels': 16, 'upsampling': 2}, 'lr': 1e-2}),
    ],
)
def test_it_learns(model: str, metric: str, options: dict[str, Any]) -> None:
    task, kind = task_for(model, **options), kind_of(model)
    run = trainer(20)
    run.fit(task, Toys(kind))
    assert scored(run.test(task, Toys(kind), verbose=False)[0], f'test_{metric}') > 0.7


@pytest.mark.parametrize(
    ('model', 'kwargs'),
    [
        ('segformer-hsi', {'class_weights': [1.0, 2.0, 3.0]}),
        ('changeformer-v3', {'pos_weight': torch.tensor(3.0)}),
        ('changeformer-v3', {**MULTICLASS, 'class_weights': [1.0, 3.0]}),
    ],
)
def test_weights_reach_the_loss_and_ignored_pixels_do_not(model: str, kwargs: dict[str, Any]) -> None:
    task = quiet(task_for(model, ignore_index=255, **kwargs))
    batch = Toy(kind_of(model), 4).data
    batch['mask'][..., :3, :] = 255
    plain = task.training_step(batch, 0).item()
    assert 0 < plain < 5
    assert task.training_step({**batch, 'weight': torch.ones(4)}, 0).item() == pytest.approx(plain, rel=1e-5)
    first = task.training_step({key: value[:1] for key, value in batch.items()}, 0).item()
    only = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert task.training_step({**batch, 'weight': only}, 0).item() == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize(('model', 'network'), [('pfsegnet', PFSegNet), ('siamcrnn', SiamCRNN)])
def test_a_checkpoint(model: str, network: type, tmp_path: Path) -> None:
    task, run = task_for(model), trainer(1)
    run.fit(task, Toys(kind_of(model)))
    run.save_checkpoint(tmp_path / 'task.ckpt')
    again = type(task).load_from_checkpoint(tmp_path / 'task.ckpt', weights_only=True)
    assert isinstance(getattr(again.model, 'network', again.model), network)
    image = torch.rand(2, *([2] if kind_of(model) == 'change' else []), BANDS, 32, 32)
    assert torch.equal(again.eval()(image), task.eval()(image))


@pytest.mark.parametrize(
    ('model', 'network', 'parts'),
    [
        ('segformer-hsi', SegFormer, {'decoder', 'head'}),
        ('changeformer-v3', ChangeFormerV3, {'project', 'fuse', 'head'}),
    ],
)
def test_a_frozen_backbone(model: str, network: type, parts: set[str]) -> None:
    task = task_for(model, freeze_backbone=True)
    found = getattr(task.model, 'network', task.model)
    assert isinstance(found, network)
    assert {name.split('.')[0] for name, p in found.named_parameters() if p.requires_grad} == parts


def test_any_network() -> None:
    network: nn.Module = nn.Conv2d(BANDS, 3, 1)
    task: Any = SegmentationTask(network=network, in_channels=BANDS, num_classes=3)
    assert task.model is network
    assert 'network' not in task.hparams

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


@pytest.mark.parametrize(
    ('built', 'focal', 'wanted'),
    [('pfsegnet', 'segformer-hsi', "'ce'"), ('siamcrnn', 'changeformer-v3', "'bce' or 'ce'")],
)
def test_mistakes_are_named(built: str, focal: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=rf"weights of '{built}' are True or None, found 'some\.pth'"):
        task_for(built, weights='some.pth')
    batch = {**Toy(kind_of(focal), 2).data, 'weight': torch.ones(2)}
    with pytest.raises(ValueError, match=f"need loss={wanted}, found 'focal'"):
        quiet(task_for(focal, loss='focal')).training_step(batch, 0)


# --- of pairs of dates ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize('kwargs', [{}, MULTICLASS])
def test_side_outputs_are_trained_in_either_task(kwargs: dict[str, Any]) -> None:
    task = quiet(task_for('changeformer-v6', **kwargs))
    batch = Toy('change', 4).data
    loss = task.training_step(batch, 0)
    network = task.model.network
    logits, sides = network.forward_with_sides(batch['image'])
    assert loss.item() == pytest.approx(multi_scale_loss(logits, sides, batch['mask']).item(), rel=1e-5)
    loss.backward()
    assert all(side[-1].bias.grad.any() for side in network.sides)
