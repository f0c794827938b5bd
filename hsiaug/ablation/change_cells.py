"""How a cell with pairs of dates and change masks is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..datasets.patches import HeldImages
from ..metrics.change import change_scores
from ..metrics.change_fidelity import change_fidelity
from ..metrics.segmentation import segmentation_scores
from ..trainers.change_detection import predict_changes, train_change_detector
from ..trainers.patch_encoder import train_date_encoder
from .patch_cells import ImageGroup
from .plan import Cell, Detector


class ChangeGroup(ImageGroup[Detector]):
    """Pairs of dates of one split, in which a network detects changes."""

    fidelity_samples = 200  # both dates cost twice as much, and no more are compared than there are real ones

    def _open(self) -> None:
        super()._open()
        for part, pairs in (('validation', self.val), ('test', self.test)):
            if not pairs.class_counts[1]:
                raise ValueError(
                    f'{self.setting.scene}, {self.setting.budget}, seed {self.seed}: nothing changed in any of the '
                    f'{len(pairs)} {part} windows, so that no F1 can be told; use another seed, other regions, or a '
                    'larger test_fraction or val_fraction'
                )

    @property
    def shown(self) -> HeldImages:
        """Training pairs: in most windows to test on nothing changed."""
        return self.real

    def _train(self, downstream: Detector, dataset: Any, seed: int) -> Any:
        return train_change_detector(dataset, downstream.config, seed, self.device)

    def _predict(self, model: Any, image: Tensor) -> Tensor:
        self._predicted = predict_changes(model, image)
        return self._predicted

    def _compare(self, predicted: Tensor, mask: Tensor) -> dict[str, Any]:
        ignore = self.real.spec.ignore_index
        scores = dataclasses.asdict(change_scores(predicted, mask, ignore))
        # Without a predicted change precision has no value; in a table of means it is none at all.
        scores['precision'] = 0.0 if scores['precision'] != scores['precision'] else scores['precision']
        return {**scores, 'per_class': segmentation_scores(predicted, mask, 2, ignore).iou}

    def run(self, cell: Cell, metrics: Sequence[str]) -> dict[str, Any]:
        """Train and measure one cell, and keep the changes that it predicts on test windows where maps are drawn."""
        row = super().run(cell, metrics)  # which predicts on test last
        if self.keep:
            file = changes_file(self.folder, cell)
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({'mask': self._predicted.to(torch.uint8)}, file)
        return row

    @cached_property
    def _encoder(self) -> Any:
        return train_date_encoder(self.real.image, self.real.mask, self.real.spec.ignore_index, self.seed)

    def _fidelity(self, image: Tensor, mask: Tensor) -> dict[str, Any]:
        train, test = ((part.image, part.mask) for part in (self.real, self.test))
        result = dataclasses.asdict(change_fidelity(train, test, (image, mask), self.real.spec, self._encoder))
        result['differences']['real_reference'] = result.pop('real_differences')  # as in the other parts
        return result


def changes_file(folder: Path, cell: Cell) -> Path:
    """Where the changes that a cell's model predicted on the test windows are kept: uint8 masks (N, 1, H, W)."""
    return folder / 'predictions' / f'{cell.key}.safetensors'
