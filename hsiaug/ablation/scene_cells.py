"""How a cell with labelled images is measured."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor

from ..datasets import SceneDataset
from ..metrics import accuracies, fidelity
from ..scenes import LabelledPatchSplit, LabelledPatchSplitter
from ..scenes.patches import PARTS
from ..systems.fit import training_data
from ..trainers import predict_scenes, train_scene_classifier
from .cells import NetworkGroup
from .plan import Arm, SceneClassifier


class SceneGroup(NetworkGroup[SceneClassifier]):
    """Labelled patches of one split, classified by a network. Synthetic ones are drawn anew in every epoch."""

    split: LabelledPatchSplit
    real: SceneDataset

    def _open(self) -> None:
        self.split = cast(LabelledPatchSplitter, self.setting.splitter)(self.scene, self.seed)
        self.real, self.val, self.test = (SceneDataset.from_scene(self.scene, self.split, part) for part in PARTS)
        self.data = training_data(self.scene, self.split)

    def _train(self, downstream: SceneClassifier, dataset: Any, seed: int) -> Any:
        return train_scene_classifier(dataset, downstream.config, seed, self.device)

    def _scores(self, model: Any, test: bool) -> dict[str, Any]:
        part = self.test if test else self.val
        return dataclasses.asdict(accuracies(predict_scenes(model, part.image), part.label, part.spec.num_classes))

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
