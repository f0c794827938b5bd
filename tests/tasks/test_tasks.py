"""A task for each kind of sample: found by its samples, and enough to train, predict, score and measure."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from hsiaug.ablation import Arm, Detector, Setting, Study
from hsiaug.ablation.arms import DEFAULT_ARMS
from hsiaug.ablation.runner import open_group
from hsiaug.datasets import scene_dataset
from hsiaug.report.evaluation import FIGURES, PARTS
from hsiaug.samples import Kind, SampleSpec
from hsiaug.scenes import (
    BitemporalScene,
    LabelledPatchSplitter,
    PatchSplitter,
    RandomSplit,
    SimulatedScene,
)
from hsiaug.systems import Generator
from hsiaug.tasks import TASKS, task_of, task_of_split, whole
from hsiaug.trainers import ChangeDetectorConfig, ClassifierConfig, SceneClassifierConfig, SegmenterConfig

SPLITTERS: dict[str, Any] = {
    'spectrum': RandomSplit(fraction=0.2),
    'scene': LabelledPatchSplitter(size=16, patch=6, patch_stride=4, block=16, per_class=12, min_labelled=0.1),
    'segmentation': PatchSplitter(size=16, stride=8),
    'change': PatchSplitter(size=16, stride=8),
}
CONFIGS: dict[str, Any] = {
    'spectrum': ClassifierConfig(hidden=8, layers=1, steps=3),
    'scene': SceneClassifierConfig('cnn2d', steps=2, batch_size=4),
    'segmentation': SegmenterConfig('segformer', 'mit_tiny', channels=8, batch_size=4, steps=2),
    'change': ChangeDetectorConfig('changeformer-v3', 'mit_tiny', 8, batch_size=4, steps=2),
}


def parts(kind: str) -> list[Any]:
    dates = 2 if kind == 'change' else 1
    scene: Any = SimulatedScene(64, 64, np.linspace(450, 2400, 8), classes=3, patch=6, dates=dates, change=0.1)
    scene = BitemporalScene.from_simulated(scene) if dates == 2 else scene
    split = SPLITTERS[kind](scene, 0)
    return [scene_dataset(scene, split, part) for part in ('train', 'val', 'test')]


@pytest.mark.parametrize('kind', get_args(Kind))
def test_a_task_trains_predicts_and_scores_datasets_of_the_contract(kind: Kind) -> None:
    train, _, test = parts(kind)
    task = task_of(train)
    assert task is TASKS[kind] is task_of(kind) is task_of(train.spec)
    assert task is task_of_split(SPLITTERS[kind], train.spec.dates) is task_of_split(train.split, train.spec.dates)
    model = task.model({'config': {f.name: getattr(CONFIGS[kind], f.name) for f in fields(CONFIGS[kind])}})
    assert model == replace(task.model(), config=CONFIGS[kind])
    chosen = model.candidates()[0]
    chosen = replace(chosen, config=CONFIGS[kind])
    image, target = whole(test)
    predicted = task.predict(task.train(chosen, train, seed=0), image)
    assert predicted.shape == target.shape
    assert predicted.dtype == torch.int64
    spec = train.spec
    assert set(task.metrics) | {'per_class'} <= set(task.score(predicted, target, spec))
    perfect = task.score(target.clamp(max=spec.num_classes - 1), target, spec)  # ignored pixels count nowhere
    assert perfect[task.metrics[0]] == pytest.approx(1)
    pictures, masks = task.as_images((image, target))
    assert pictures.shape == (len(image), spec.bands, *masks.shape[1:])


@pytest.mark.parametrize('kind', get_args(Kind))
def test_what_other_rooms_hold_by_kind_is_complete(kind: Kind) -> None:
    assert set(FIGURES) == set(DEFAULT_ARMS) == set(TASKS)
    task = TASKS[kind]
    assert all(name == model.name and model.kind == kind for name, model in task.models.items())
    assert set(PARTS) == {'spectra', 'images', 'mean spectra', 'pairs', 'dates'}


def test_models_are_named_or_described_and_numbers_are_floats() -> None:
    task = TASKS['segmentation']
    assert task.model() is task.model('segformer')
    assert task.model('pfsegnet').config.model == 'pfsegnet'  # type: ignore[attr-defined]
    given = task.model({'name': 'pfsegnet', 'steps': [3, 4], 'learning_rates': [1]})
    assert given == replace(task.model('pfsegnet'), steps=(3, 4), learning_rates=(1.0,))
    config = task.model({'config': {'weight_decay': 0}}).config  # type: ignore[attr-defined]
    assert isinstance(config.weight_decay, float)  # 0 and 0.0 are one cell
    with pytest.raises(ValueError, match=r"kind 'segmentation' are for the models \['segformer', 'pfsegnet'\]"):
        task.model('nn1d')
    with pytest.raises(ValueError, match=r"'x' of samples of kind 'segmentation': config: unknown field 'hidden'"):
        task.model({'name': 'x', 'config': {'hidden': 3}})
    with pytest.raises(ValueError, match="unknown field 'scalings'"):
        task.model({'scalings': ['minmax']})
    assert task.model({'name': 'ours', 'config': {'steps': 3}}).config.model == 'segformer'  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"'PFSegNet' .* did you mean 'pfsegnet'"):  # else it would be the first
        task.model({'name': 'PFSegNet'})


def test_a_search_trains_the_network_that_a_study_trains() -> None:
    for task in TASKS.values():
        first: Any = task.model()
        assert task.configure(None, 'model') == first.config
        assert task.configure({'steps': 7}, 'model') == replace(first.config, steps=7)


@pytest.mark.parametrize('task', TASKS.values(), ids=TASKS)
def test_settings_that_are_not_given_are_those_of_the_named_model(task: Any) -> None:
    for name, model in task.models.items():
        given = task.model({'name': name, 'config': {'steps': 7}})
        assert given == replace(model, config=replace(model.config, steps=7))


def test_a_study_of_models_for_other_samples_says_which_fit(tmp_path: Path) -> None:
    """A splitter of patches says nothing of dates: that the scene has one is seen when it is opened."""
    scene = SimulatedScene(64, 64, classes=3, patch=6)
    setting = Setting('s', 'b', SPLITTERS['change'])
    plan = Study('x', {'s': lambda: scene}, (setting,), (Arm('flips', 'patch_augment'),), classifiers=(Detector(),))
    with pytest.raises(ValueError, match=r"kind 'segmentation', but 'changeformer' works on 'change'.*'pfsegnet'"):
        open_group(plan, setting, 0, tmp_path)


def test_strangers_are_refused() -> None:
    with pytest.raises(ValueError, match='something with a spec'):
        task_of(torch.utils.data.TensorDataset(torch.zeros(3)))
    with pytest.raises(TypeError, match='a split of pixels'):
        task_of_split('blocks')


class Copies(Generator):
    """Real samples in any order: as good as can be."""

    type_name = 'copies'

    def __init__(self, data: Any) -> None:
        super().__init__(data.spec)
        self.image, self.target = whole(data)

    def _draw(self, labels: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        if self.spec.target_key == 'mask':
            rows = torch.randint(len(self.image), (len(labels),), generator=rng)
        else:
            rows = torch.stack([(self.target == k).nonzero()[0, 0] for k in labels])
        return {'image': self.image[rows], self.spec.target_key: self.target[rows]}


@pytest.mark.parametrize('kind', get_args(Kind))
def test_an_evaluation_is_a_record_of_all_sides(kind: Kind) -> None:
    train, _, test = parts(kind)
    found = TASKS[kind].evaluate(
        Copies(train), train, test, count=12, per_class=4, encoder=lambda image: image.mean(dim=(2, 3))[:, :3]
    )
    assert list(found.sides) == ['real, training', 'real, test', 'synthetic']
    assert all(set(side) == {'image', found.spec.target_key} for side in found.sides.values())
    assert set(found.measures) <= set(PARTS)
    assert all(PARTS[what](found) for what in found.measures)
    assert len(found.sides['synthetic']['image']) == 12


def test_the_key_of_the_target_stands_in_the_spec() -> None:
    sizes: dict[str, Any] = {'spectrum': None}
    for kind, key in (('spectrum', 'label'), ('scene', 'label'), ('segmentation', 'mask'), ('change', 'mask')):
        spec = SampleSpec(kind, 3, ('a', 'b'), size=sizes.get(kind, (4, 4)))  # type: ignore[arg-type]
        assert spec.target_key == key
        assert spec.dates == (2 if kind == 'change' else 1)
