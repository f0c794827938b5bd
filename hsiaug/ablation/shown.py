"""Data for the figures of a study: samples of its first seed and predictions of its models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ..datasets.contract.batches import fetch, spread_rows
from ..datasets.own.adapted import AdaptedDataset
from ..metrics.patches import Pair
from ..samples import SampleSpec
from ..tasks import whole
from ..tasks.base import on_cpu
from .cells import predictions_file
from .plan import REAL, Cell, Study
from .runner import file_name, open_group

MOST_READ = 256
"""Number of real samples read for figures from datasets that do not fit in memory."""


@dataclass(frozen=True)
class ShownSamples:
    """Samples of an arm next to real ones."""

    file: str  # name of the picture
    spec: SampleSpec  # what they are
    real: Pair  # real images and targets
    fake: Pair  # synthetic images and targets


@dataclass(frozen=True)
class ShownPredictions:
    """Predictions of a downstream model on the test part."""

    file: str  # name of the picture
    test: Any
    predicted: dict[str, Tensor]  # targets by training data of the model
    tile_rows: int | None  # height of a tile in a scene of stacked tiles


def shown_samples(study: Study, run: Path, device: str = 'cpu', count: int = 8) -> Iterator[ShownSamples]:
    """Real and synthetic images with masks of each learned arm, for the first seed of each setting."""
    for setting in study.settings if study.task.fixed_set else ():
        group = open_group(study, setting, study.seeds[0], run, device)
        spec = group.data.spec
        # Pairs of dates are training ones: in most test windows nothing changed.
        part = group.real if spec.dates == 2 else group.test
        if isinstance(part, AdaptedDataset):  # too large for memory
            batch = fetch(part, spread_rows(len(part), MOST_READ))
            real: Pair = (batch['image'], batch[spec.target_key])
        else:
            real = whole(part)
        for arm in study.arms:
            if not arm.control:
                fake = on_cpu(group.generator(arm).sample(count, seed=0))
                drawn = fake['image'], fake[spec.target_key]
                yield ShownSamples(file_name(setting, arm.name, 'png', 'pairs-'), spec, real, drawn)


def shown_predictions(study: Study, run: Path) -> Iterator[ShownPredictions]:
    """Predictions of each model trained on real data only, and with each learned arm at its highest ratio.

    They are of the first seed of each setting, whose predictions the study keeps; unfinished cells are left out.
    """
    for setting in study.settings:
        finished = [cell for cell in study.cells(setting, study.seeds[0]) if predictions_file(run, cell).exists()]
        if not finished:
            continue
        group = open_group(study, setting, study.seeds[0], run)
        for network in study.classifiers:
            shown: dict[str, Cell] = {}
            for cell in finished:  # ratios in ascending order
                if cell.classifier == network and (cell.arm is None or not cell.arm.control):
                    shown[REAL if cell.arm is None else cell.arm.name] = cell
            predicted = {
                'real only' if cell.arm is None else f'{name}, {cell.ratio:g}×': load_file(predictions_file(run, cell))[
                    group.data.spec.target_key
                ]
                for name, cell in shown.items()
            }
            file = file_name(setting, network.name, 'png', 'changes-')
            yield ShownPredictions(file, group.test, predicted, group.scene.tile_rows)
