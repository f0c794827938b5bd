"""How a cell with labelled images is measured."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ..datasets import SceneDataset
from ..metrics import accuracies, fidelity
from ..scenes import LabelledPatchSplit, LabelledPatchSplitter
from ..scenes.patches import PARTS
from ..trainers import predict_scenes, train_scene_classifier, training_data
from .cells import Group
from .plan import Arm, SceneClassifier


class SceneGroup(Group[SceneClassifier]):
    """Labelled patches of one split, classified by a network. Synthetic ones are drawn anew in every epoch."""

    split: LabelledPatchSplit
    real: SceneDataset

    def _open(self) -> None:
        self.split = cast(LabelledPatchSplitter, self.setting.splitter)(self.scene, self.seed)
        self.real, self.val, self.test = (SceneDataset.from_scene(self.scene, self.split, part) for part in PARTS)
        self.data = training_data(self.scene, self.split)

    @property
    def test_count(self) -> int:
        """Number of test patches."""
        return len(self.test)

    def _candidates(self, downstream: SceneClassifier) -> list[SceneClassifier]:
        config = downstream.config
        return [
            replace(downstream, config=replace(config, steps=steps, learning_rate=rate))
            for steps in downstream.steps or (config.steps,)
            for rate in downstream.learning_rates or (config.learning_rate,)
        ]

    def _train(self, downstream: SceneClassifier, dataset: Any, seed: int) -> Any:
        return train_scene_classifier(dataset, downstream.config, seed, self.device)

    def _scores(self, model: Any, test: bool) -> dict[str, Any]:
        part = self.test if test else self.val
        return dataclasses.asdict(accuracies(predict_scenes(model, part.image), part.label, part.spec.num_classes))

    def _chosen(self, downstream: SceneClassifier) -> dict[str, Any]:
        return {'steps': downstream.config.steps, 'learning_rate': downstream.config.learning_rate}

    def measure_fidelity(self, arm: Arm, per_class: int = 100) -> dict[str, Any]:
        """Fidelity of an arm's patches, equally many of each class, by the mean spectrum of each."""
        classes = self.real.spec.num_classes
        labels = torch.arange(classes).repeat(per_class)
        fake = self.generator(arm).sample(len(labels), labels, seed=self.seed)
        sides = [(part.image, part.label) for part in (self.real, self.test)]
        sides.append((fake['image'].cpu(), fake['label'].cpu()))
        train, test, synthetic = ((mean_spectra(image), label) for image, label in sides)
        return self._spectral_record(arm, fidelity(train, test, synthetic, classes))


def mean_spectra(image: Tensor) -> Tensor:
    """(n, C) mean spectra of images (n, C, H, W)."""
    return image.mean(dim=(-2, -1))
