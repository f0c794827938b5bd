"""Pairs of dates with change masks, in which a network detects changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from ..datasets import ChangeDataset
from ..metrics.change_fidelity import change_fidelity
from ..metrics.patches import Encoder, Pair
from ..metrics.scores import change_scores, segmentation_scores
from ..metrics.values import DIFFERENCES, OF_BOTH, OF_DATE, Value, patch_values
from ..samples import SampleSpec
from ..trainers.change_detection import ChangeDetectorConfig
from ..trainers.patch_encoder import train_date_encoder
from .base import whole
from .downstream import Downstream, Network, Record
from .segmentation import MaskedImages


@dataclass(frozen=True)
class Detector(Network):
    """A downstream change-detection network; arguments as for :class:`Network`."""

    kind = 'change'

    name: str = 'changeformer'
    config: ChangeDetectorConfig = field(default_factory=ChangeDetectorConfig)


class DatePairs(MaskedImages):
    """Pairs of dates (2, C, H, W) with change masks (1, H, W)."""

    kind = 'change'
    dates = 2
    metrics = ('f1', 'iou', 'precision', 'recall', 'miou', 'mf1')
    note = 'F1, IoU, precision and recall are those of the change class; mIoU and mF1 are means over both classes.'
    downstream, config, dataset = Detector, ChangeDetectorConfig, ChangeDataset
    models: ClassVar[Mapping[str, Downstream]] = {
        'changeformer': Detector(),
        **{
            name: Detector(name, ChangeDetectorConfig(name))
            for name in ('changeformer-v6', 'siamcrnn', 'fcsiamdiff', 'fcsiamconc')
        },  # type: ignore[arg-type]
    }
    fidelity_samples = 200  # both dates cost twice as much, and no more are compared than there are real ones
    keeps_predictions = True

    def predict(self, model: Any, image: Tensor) -> Tensor:
        """Change masks (n, 1, H, W)."""
        return super().predict(model, image)[:, None]

    def score(self, predicted: Tensor, target: Tensor, spec: SampleSpec) -> Record:
        """Of the change class, means over both classes, and the IoU of each."""
        scores = dataclasses.asdict(change_scores(predicted, target, spec.ignore_index))
        # Without a predicted change precision has no value; in a table of means it is none at all.
        scores['precision'] = 0.0 if scores['precision'] != scores['precision'] else scores['precision']
        return {**scores, 'per_class': segmentation_scores(predicted, target, 2, spec.ignore_index).iou}

    def unscorable(self, dataset: Any) -> str | None:
        """Why no model can be scored on pairs in which nothing has changed."""
        mask = whole(dataset)[1]
        if (mask == 1).any():
            return None
        return (
            f'nothing changed in any of the {len(mask)} windows, so that there is no F1; use another seed, other '
            'regions, or a larger test_fraction or val_fraction'
        )

    def as_images(self, pair: Pair, date: int = 0) -> Pair:
        """One of the dates."""
        return pair[0][:, date], pair[1][:, 0]

    def encoder(self, train: Pair, spec: SampleSpec, seed: int = 0) -> Encoder:
        """Trained on single dates."""
        return train_date_encoder(*train, spec.ignore_index, seed)

    def fidelity(self, sides: Sequence[Pair], spec: SampleSpec, encoder: Encoder | None, seed: int = 0) -> Record:
        """Of each date, of both with the mask, and of the differences between them."""
        train, test, fake = sides
        return {'dates': change_fidelity(train, test, fake, spec, encoder or self.encoder(train, spec, seed), seed)}

    def _as_record(self, result: Any) -> Record:
        record = dataclasses.asdict(result)
        record['differences']['real_reference'] = record.pop('real_differences')  # as in the other parts
        return record

    def _values(self, result: Any) -> dict[str, Value]:
        differences = {
            f'differences between dates, {name}': Value(
                getattr(result.differences, field), getattr(result.real_differences, field), '0'
            )
            for field, name in DIFFERENCES.items()
        }
        return {
            **patch_values(result.first, OF_DATE, 'date 1: '), **patch_values(result.second, OF_DATE, 'date 2: '),
            **patch_values(result.both, OF_BOTH, 'both dates: '), **differences,
        }  # fmt: skip
