"""The generator of CONTRIBUTING.md goes every way that a generator can go, without a line of the package changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hsiaug import Generator, MixedDataset, SpectraDataset, SyntheticBank, fit_generator, write_bank
from hsiaug.ablation import Arm, Classifier, Setting, Study, run_study
from hsiaug.ablation.results import RESULTS_FILE, read_results
from hsiaug.engine import Run
from hsiaug.scenes import RandomSplit, Scene, Split
from hsiaug.systems import REGISTRY, TrainingData
from hsiaug.trainers import ClassifierConfig

GUIDE = (Path(__file__).parents[1] / 'CONTRIBUTING.md').read_text()
(SOURCE,) = re.findall(r'```python toy\n(.+?)```', GUIDE, flags=re.DOTALL)


@pytest.fixture(scope='module')
def toy() -> Iterator[SimpleNamespace]:
    space: dict[str, Any] = {'__name__': 'contributed'}
    exec(compile(SOURCE, 'CONTRIBUTING.md', 'exec', dont_inherit=True), space)
    yield SimpleNamespace(**space)
    del REGISTRY['toy']  # other tests expect the package's generators


def test_it_is_short() -> None:
    assert len(SOURCE.splitlines()) <= 60


def test_trained_by_its_name_it_learns(toy: SimpleNamespace, data: TrainingData) -> None:
    generator = fit_generator('toy', data, {'iterations': 600})
    for label in range(data.spec.num_classes):
        real = data.x[data.y == label]
        fake = generator.sample(400, torch.full((400,), label), seed=0)['image']
        assert (fake.mean(dim=0) - real.mean(dim=0)).abs().max() < 0.15
        assert (fake.std(dim=0) / real.std(dim=0)).median() == pytest.approx(1.0, abs=0.25)


def test_killed_it_resumes_to_the_same_bits(
    toy: SimpleNamespace, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('hsiaug.systems.fit.Run', partial(Run, every=20))
    whole = fit_generator('toy', data, {'iterations': 60}, seed=1)
    update = toy.ToyTraining.update

    def killed(self: Any, rng: torch.Generator) -> None:
        if self.step == 50:
            raise SystemExit
        update(self, rng)

    monkeypatch.setattr(toy.ToyTraining, 'update', killed)
    with pytest.raises(SystemExit):
        fit_generator('toy', data, {'iterations': 60}, seed=1, folder=tmp_path)
    monkeypatch.setattr(toy.ToyTraining, 'update', update)
    assert [path.name for path in tmp_path.iterdir()] == ['toy.safetensors']
    resumed = fit_generator('toy', data, {'iterations': 60}, seed=1, folder=tmp_path)
    assert torch.equal(resumed.mean, whole.mean)
    assert not list(tmp_path.iterdir())


def test_saved_loaded_banked_and_mixed(
    toy: SimpleNamespace, scene: Scene, split: Split, data: TrainingData, tmp_path: Path
) -> None:
    generator = fit_generator('toy', data)
    loaded = Generator.from_pretrained(generator.save_pretrained(tmp_path / 'toy'))
    assert torch.equal(loaded.sample(8, seed=3)['image'], generator.sample(8, seed=3)['image'])
    write_bank(loaded, 60, tmp_path / 'bank')
    real = SpectraDataset(scene, split, 'train')
    for source in (loaded, SyntheticBank.open(tmp_path / 'bank')):
        mixed = MixedDataset(real, source, ratio=0.5)
        assert len(mixed) == len(real) + round(0.5 * len(real))
        assert sum(bool(sample['synthetic']) for sample in mixed) == round(0.5 * len(real))


def test_ablated(toy: SimpleNamespace, scene: Scene, tmp_path: Path) -> None:
    study = Study(
        'toy',
        {'stripes': lambda: scene},
        (Setting('stripes', '40 %', RandomSplit(fraction=0.4)),),
        (Arm('toy', 'toy'),),
        ratios=(1.0,),
        seeds=(0, 1),
        classifiers=(Classifier(config=ClassifierConfig(hidden=16, layers=1), steps=(20,), scalings=('standard',)),),
    )
    run_study(study, tmp_path / 'run', progress=False)
    rows = read_results(tmp_path / 'run' / RESULTS_FILE)
    assert sorted((row['arm'], row['seed']) for row in rows) == [('real', 0), ('real', 1), ('toy', 0), ('toy', 1)]
