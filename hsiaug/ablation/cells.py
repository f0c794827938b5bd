"""How one cell is measured."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..datasets import MixedDataset, SpectraDataset, estimate_prior
from ..generators import Generator, TrainingData
from ..metrics import Accuracies, accuracies, fidelity
from ..samples import require_unseen
from ..scenes import Scene, Split
from ..trainers import LinearSVM, fit_generator, predict, train_nn1d, training_data
from .plan import REAL, Arm, Cell, Classifier, Setting

Predictor = Callable[[torch.Tensor], torch.Tensor]
_TUNING_SEED = 1_000_003
_COSTLY = ('spectral_gan',)  # generators worth keeping: the others are refitted faster than read


@dataclass
class Group:
    """One split of one scene and everything that its cells share.

    Args:
        scene: the scene.
        setting: split and budget.
        seed: of split, generators and classifiers.
        folder: run folder; trained generators are kept there.
        device: where to train.
    """

    scene: Scene
    setting: Setting
    seed: int
    folder: Path
    device: str = 'cpu'

    def __post_init__(self) -> None:
        self.split: Split = self.setting.splitter(self.scene, self.seed)
        self.real = SpectraDataset(self.scene, self.split, 'train')
        self.data: TrainingData = training_data(self.scene, self.split)
        self.test = SpectraDataset(self.scene, self.split, 'test').tensors()
        self._tuned: dict[Classifier, Classifier] = {}
        self._generators: dict[str, Generator] = {}

    @cached_property
    def prior(self) -> np.ndarray:
        """Class prior of the training area, estimated from unlabelled pixels."""
        x, y, pool = (part.numpy() for part in (self.data.x, self.data.y, self.data.unlabelled))
        return estimate_prior(x, y, pool, self.data.spec.num_classes)

    def tuned(self, classifier: Classifier) -> Classifier:
        """The classifier with the setting that validates best with real data only; ties go to the first candidate.

        Candidates start from another initialisation than the cells: were the winner's own validation figure the one
        that ratios are compared with, luck would favour ratio 0.
        """
        if classifier not in self._tuned:
            if classifier.name == 'nn1d':
                candidates = [
                    replace(classifier, config=replace(classifier.config, scaling=scaling, steps=steps))
                    for scaling in classifier.scalings
                    for steps in classifier.steps
                ]
            else:
                candidates = [replace(classifier, c=(c,)) for c in classifier.c]
            scores = [0.0]
            if len(candidates) > 1:
                seed = self.seed + _TUNING_SEED
                scores = [self._accuracies(self._train(c, self.real, seed), False).oa for c in candidates]
            self._tuned[classifier] = candidates[int(np.argmax(scores))]
        return self._tuned[classifier]

    def _train(
        self, classifier: Classifier, dataset: MixedDataset | SpectraDataset, seed: int | None = None
    ) -> Predictor:
        if classifier.name == 'nn1d':
            network = train_nn1d(dataset, classifier.config, self.seed if seed is None else seed, self.device)
            return lambda image: predict(network, image)
        batch = dataset.batch(range(len(dataset)))
        return LinearSVM(classifier.c[0]).fit(batch['image'], batch['label'], self.data.x).predict

    def _accuracies(self, model: Predictor, test: bool) -> Accuracies:
        image, label = self.test if test else (self.data.val_x, self.data.val_y)
        return accuracies(model(image), label, self.data.spec.num_classes)

    def generator(self, arm: Arm) -> Generator:
        """The arm's generator, trained on this split once; costly ones are kept in the run folder."""
        key = json.dumps([arm.generator, arm.settings], sort_keys=True)
        if key not in self._generators:
            name = f'{self.setting.scene}-{self.split.fingerprint}-{arm.name}'.replace(' ', '_').replace('/', '_')
            kept = self.folder / 'generators' / name
            if arm.generator in _COSTLY and kept.is_dir():
                generator = Generator.from_pretrained(kept, self.device)
            else:
                generator = fit_generator(arm.generator, self.data, arm.settings, self.seed, self.device)
                if arm.generator in _COSTLY:
                    generator.save_pretrained(kept)
            require_unseen(generator.provenance, self.split.scene, self.split.test)
            self._generators[key] = generator
        return self._generators[key]

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train and measure one cell; the result is JSON-ready."""
        start = time.perf_counter()
        classifier = self.tuned(cell.classifier)
        dataset: MixedDataset | SpectraDataset = self.real
        if cell.arm is not None:
            needs_prior = cell.arm.labels == 'prior'
            dataset = MixedDataset(
                self.real,
                self.generator(cell.arm),
                cell.ratio,
                seed=self.seed,
                labels=cell.arm.labels,
                prior=self.prior if needs_prior else None,
            )
        model = self._train(classifier, dataset)
        val, test = self._accuracies(model, False), self._accuracies(model, True)
        return {
            'cell': cell.key,
            'scene': self.setting.scene,
            'budget': self.setting.budget,
            'classifier': classifier.name,
            'arm': REAL if cell.arm is None else cell.arm.name,
            'control': cell.arm is not None and cell.arm.control,
            'ratio': cell.ratio,
            'seed': self.seed,
            'split': self.split.fingerprint,
            'classes': list(self.data.spec.classes),
            'dropped': list(self.split.dropped),
            'train_real': len(self.real),
            'train_synthetic': len(dataset) - len(self.real),
            'test_count': len(self.test[1]),
            'setting': _chosen(classifier),
            'steps': classifier.config.steps if classifier.name == 'nn1d' else None,
            'val': {k: v for k, v in dataclasses.asdict(val).items() if k != 'per_class'},
            'test': {k: _finite(v) for k, v in dataclasses.asdict(test).items()},
            'seconds': round(time.perf_counter() - start, 3),
        }

    def measure_fidelity(self, arm: Arm, per_class: int = 200) -> dict[str, Any]:
        """Fidelity of an arm's samples, equally many of each class."""
        classes = self.data.spec.num_classes
        order = torch.randperm(classes * per_class, generator=torch.Generator().manual_seed(self.seed))
        labels = torch.arange(classes).repeat_interleave(per_class)[order]
        fake = self.generator(arm).sample(len(labels), labels, seed=self.seed)
        train = (self.data.x, self.data.y)
        result = fidelity(train, self.test, (fake['image'].cpu(), fake['label'].cpu()), classes)
        return {
            'scene': self.setting.scene,
            'budget': self.setting.budget,
            'arm': arm.name,
            'seed': self.seed,
            'msad': result.msad,
            'svm': result.svm,
            'authenticity_share_closer': result.closer_than_real,
            'std_ratio': result.std_ratio,
            'roughness_ratio': result.roughness_ratio,
        }


def _chosen(classifier: Classifier) -> dict[str, Any]:
    if classifier.name == 'nn1d':
        return {'scaling': classifier.config.scaling, 'steps': classifier.config.steps}
    return {'c': classifier.c[0]}


def _finite(value: Any) -> Any:
    """JSON has no NaN: a class that the test part lacks has recall null."""
    if isinstance(value, tuple | list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and value != value else value


def write_json(path: Path, data: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text(json.dumps(data, indent=1))
    os.replace(temporary, path)
