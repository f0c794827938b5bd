from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_runs import trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torchgeo.datamodules import NonGeoDataModule
from toys import BANDS, Toy, toy_spec

from hsiaug.datamodules import MixedDataModule
from hsiaug.datasets import MixedDataset, SceneDataset
from hsiaug.models import PatchCNN
from hsiaug.trainers import (
    SceneClassificationTask,
    SceneClassifierConfig,
    predict_scenes,
    train_scene_classifier,
)
from hsiaug.trainers.scene_classifier import scene_loss

CONFIG = SceneClassifierConfig('cnn2d', steps=40, batch_size=8, learning_rate=3e-3)


def bright(n: int, seed: int = 0, **changes: Any) -> SceneDataset:
    """Images whose class is the band that is brighter than the others, in counts."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(3, (n,), generator=rng)
    image = 500 + 20 * torch.randn(n, BANDS, 8, 8, generator=rng)
    image[torch.arange(n), label] += 40
    return SceneDataset(image, label, toy_spec('scene', **changes))


def accuracy(network: nn.Module, data: SceneDataset) -> float:
    return float((predict_scenes(network, data.image) == data.label).float().mean())


# --- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('model', 'augment'), [('cnn2d', 'none'), ('cnn2d', 'flips'), ('cnn3d', 'flips'), ('resnet18', 'flips')]
)
def test_it_learns_and_a_seed_means_the_same(model: Any, augment: Any) -> None:
    narrow = 8 if model == 'resnet18' else 1
    config = SceneClassifierConfig(model, narrow, steps=40, batch_size=8, learning_rate=3e-3, augment=augment)
    before = torch.random.get_rng_state()
    network = train_scene_classifier(bright(48), config, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert accuracy(network, bright(60, seed=1)) > 0.6
    few = replace(config, steps=3)
    states = [list(train_scene_classifier(bright(16), few, seed=s).state_dict().values()) for s in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(states[0], states[2], strict=True))


def test_standardisation_is_fitted_on_real_images_alone() -> None:
    real = bright(24)
    far = SceneDataset(real.image + 1000, real.label, real.spec)
    network = train_scene_classifier(MixedDataset(real, far, 1.0), CONFIG)
    assert network.scaler.offset == pytest.approx(real.image.mean(dim=(0, 2, 3)), rel=1e-5)


def test_samples_count_with_their_weight() -> None:
    real = bright(24)
    wrong = SceneDataset(real.image, (real.label + 1) % 3, real.spec)
    test = bright(60, seed=1)
    misled = train_scene_classifier(MixedDataset(real, wrong, 3.0, replacement=True), CONFIG)
    ignored = train_scene_classifier(MixedDataset(real, wrong, 3.0, replacement=True, weight=0.0), CONFIG)
    assert accuracy(misled, test) < 0.3
    assert accuracy(ignored, test) > 0.8


def test_soft_labels_are_the_target() -> None:
    class Soft(SceneDataset):
        def batch(self, indices: Any) -> dict[str, Tensor]:
            found = super().batch(indices)
            return found | {'label_prob': one_hot((found['label'] + 1) % 3, 3).float()}  # against the labels

    real, soft = bright(24), Soft(*(bright(24).batch(range(24)).values()), toy_spec('scene'))
    network = train_scene_classifier(MixedDataset(real, soft, 3.0, replacement=True), CONFIG)
    assert accuracy(network, bright(60, seed=1)) < 0.3


def test_the_loss_is_a_weighted_mean() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, target = torch.randn(5, 3, generator=rng), torch.tensor([0, 1, 2, 2, 1])
    classes, samples = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 2.0, 1.0, 0.0])
    hard = torch.nn.functional.one_hot(target, 3).float()
    assert scene_loss(logits, target) == pytest.approx(cross_entropy(logits, target))
    assert scene_loss(logits, target, classes) == pytest.approx(cross_entropy(logits, target, classes))
    kept = samples > 0
    expected = cross_entropy(logits[[0, 2, 2, 3]], target[[0, 2, 2, 3]])
    assert scene_loss(logits, target, None, samples) == pytest.approx(expected)
    both = scene_loss(logits, target, classes, samples)
    assert both == pytest.approx(cross_entropy(logits[[0, 2, 2, 3]], target[[0, 2, 2, 3]], classes))
    assert scene_loss(logits, hard, classes, samples) == pytest.approx(both)
    assert scene_loss(logits[kept], target[kept], None, samples[kept]) == pytest.approx(expected)


def test_class_weights_and_mistakes() -> None:
    rare = bright(40)
    rare.label[:] = torch.where(torch.arange(40) < 36, 0, rare.label)
    weighed = SceneClassifierConfig('cnn2d', steps=2, class_weights='sqrt_inverse')
    assert train_scene_classifier(rare, weighed) is not None
    for changes, message in (
        ({'model': 'lenet'}, "unknown model 'lenet'; choose from"),
        ({'augment': 'cutmix'}, "unknown augment 'cutmix'"),
        ({'batch_size': 1}, 'batch_size must be at least 2, found 1'),
        ({'warmup': 1.0}, r'warmup must be in \[0, 1\), found 1.0'),
    ):
        with pytest.raises(ValueError, match=message):
            SceneClassifierConfig(**changes)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"train_scene_classifier: .*kind 'scene' expected, found Toy with kind 'change'"
    ):
        train_scene_classifier(Toy('change', 4), CONFIG)
    data = SceneDataset(torch.rand(4, BANDS, 6, 6), torch.tensor([0, 1, 2, 0]), toy_spec('scene', size=(6, 6)))
    with pytest.raises(ValueError, match="'resnet18' needs sides of at least 8"):
        train_scene_classifier(data, SceneClassifierConfig('resnet18'))


# --- Lightning task -------------------------------------------------------------------------------------------------


class Scenes(NonGeoDataModule):
    def __init__(self, batch_size: int = 8) -> None:
        super().__init__(SceneDataset, batch_size=batch_size, num_workers=0)
        self.mean, self.std = torch.tensor(500.0), torch.tensor(25.0)

    def setup(self, stage: str) -> None:
        self.train_dataset, self.val_dataset, self.test_dataset = (bright(n, s) for s, n in enumerate((24, 12, 60)))


def task_for(model: str, **kwargs: Any) -> SceneClassificationTask:
    torch.manual_seed(0)
    options: dict[str, Any] = {'lr': 3e-3, 'in_channels': BANDS, 'num_classes': 3, 'size': (8, 8)}
    return SceneClassificationTask(model, **{**options, **kwargs})


@pytest.mark.parametrize(('model', 'weight'), [('cnn2d', None), ('cnn3d', 0.5)])
def test_networks_train_on_a_mixed_datamodule(model: str, weight: float | None) -> None:
    task, module = task_for(model), MixedDataModule(Scenes(), bright(24, 7), 1.0, weight=weight)
    run = trainer(8)
    run.fit(task, module)
    assert (module.real_seen, module.synthetic_seen) == (8 * 24, 8 * 24)
    assert run.callback_metrics['train_loss'] > 0
    assert -1 <= run.callback_metrics['val_CohenKappa'] <= 1
    (found,) = run.test(task, module, verbose=False)
    assert found['test_OverallAccuracy'] > 0.6
    assert found['test_CohenKappa'] > 0.4


def test_weights_and_soft_labels_reach_the_loss() -> None:
    task = task_for('cnn2d', class_weights=[1.0, 2.0, 3.0])
    task.log = task.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    batch: dict[str, Tensor] = bright(6).batch(range(6))
    batch['image'] = (batch['image'] - 500) / 25
    task.eval()
    plain = task.training_step(batch, 0).item()
    assert task.training_step({**batch, 'weight': torch.ones(6)}, 0).item() == pytest.approx(plain, rel=1e-5)
    hard = torch.nn.functional.one_hot(batch['label'], 3).float()
    assert task.training_step({**batch, 'label_prob': hard}, 0).item() == pytest.approx(plain, rel=1e-5)
    turned = {**batch, 'label_prob': hard.roll(1, dims=1)}
    assert task.training_step(turned, 0).item() != pytest.approx(plain, rel=1e-3)
    first = task.training_step({key: value[:1] for key, value in batch.items()}, 0).item()
    only = {**batch, 'weight': torch.eye(6)[0]}
    assert task.training_step(only, 0).item() == pytest.approx(first, rel=1e-5)
    focal = task_for('cnn2d', loss='focal')
    with pytest.raises(ValueError, match="label_prob and weight need loss='ce', found 'focal'"):
        focal.training_step(only, 0)


def test_which_network_and_checkpoints(tmp_path: Path) -> None:
    assert isinstance(task_for('cnn2d').model, PatchCNN)
    timms, ours = task_for('resnet18').model, task_for('resnet18', options={'narrow': 8}).model
    assert type(timms).__module__.startswith('timm')
    assert type(ours).__module__.startswith('torchvision')
    given = nn.Sequential(nn.Flatten(), nn.Linear(BANDS * 64, 3))
    task = SceneClassificationTask(network=given, in_channels=BANDS, num_classes=3)
    assert task.model is given
    assert 'network' not in task.hparams
    task = task_for('resnet18', options={'narrow': 16, 'dropout': 0.1})
    run = trainer(1)
    run.fit(task, Scenes())
    run.save_checkpoint(tmp_path / 'task.ckpt')
    again = SceneClassificationTask.load_from_checkpoint(tmp_path / 'task.ckpt', weights_only=True)
    image = torch.rand(2, BANDS, 8, 8)
    assert torch.equal(again.model.eval()(image), task.model.eval()(image))
    with pytest.raises(ValueError, match="'cnn2d' is trained from scratch, found weights=True"):
        task_for('cnn2d', weights=True)
