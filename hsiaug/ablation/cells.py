"""Measurement of single cells."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils.data import Dataset

from ..datasets import MixedDataset, require_unseen_samples, scene_dataset
from ..datasets.own.parts import AnyScene, AnySplit
from ..engine.divergence import DivergedError
from ..ratio import SyntheticFirst
from ..records import short_digest
from ..scenes.patches import PARTS
from ..systems import Generator
from ..systems.data import training_data
from ..systems.fit import fit_generator
from ..systems.training import trainer_of
from ..tasks import task_of, whole
from ..tasks.base import finite
from ..tasks.downstream import D, Downstream
from ..trainers.convergence import Trial, loss_still_falls, tune
from .plan import REAL, Arm, Cell, Setting
from .results import file_stem

_TUNING_SEED = 1_000_003
_FOREVER = 2**31  # epochs


class Group:
    """One split of one scene and everything that its cells share."""

    def __init__(
        self,
        scene: AnyScene,
        setting: Setting,
        seed: int,
        folder: Path,
        device: str = 'cpu',
        keep: bool = False,
        inception: Path | None = None,
    ) -> None:
        self.scene, self.setting, self.seed, self.folder, self.device = scene, setting, seed, folder, device
        self.keep, self.inception = keep, inception
        self.split: AnySplit = setting.splitter(scene, seed)  # type: ignore[arg-type]
        parts: list[Any] = [scene_dataset(scene, self.split, part) for part in PARTS]
        self.real, self.val, self.test = parts
        self.task = task_of(self.real)
        self.data = training_data(scene, self.split)
        for part, dataset in (('validation', self.val), ('test', self.test)):
            if why := self.task.unscorable(dataset):
                raise ValueError(f'{setting.scene}, {setting.budget}, seed {seed}, {part} part: {why}')
        self._held = {'val': whole(self.val), 'test': whole(self.test)}
        self._tuned: dict[Downstream, Downstream] = {}
        self._generators: dict[str, Generator] = {}
        self._drawn: dict[str, Any] = {}

    @cached_property
    def prior(self) -> np.ndarray | None:
        """Class prior for the label policy ``prior``."""
        return self.task.prior(self.data)

    @cached_property
    def _measure(self) -> Callable[[Generator], dict[str, Any]]:
        return self.task.study_fidelity(self.real, self.test, self.seed, self.inception)

    def measure_fidelity(self, arm: Arm) -> dict[str, Any]:
        """Fidelity of an arm's samples, JSON-ready except for values that are not finite."""
        where = {'scene': self.setting.scene, 'budget': self.setting.budget, 'arm': arm.name, 'seed': self.seed}
        return {**where, **self._measure(self.generator(arm))}

    def _scores(self, model: Any, part: str) -> dict[str, Any]:
        """The task's metrics and ``per_class`` on the validation or the test part."""
        image, target = self._held[part]
        self._predicted = self.task.predict(model, image)
        return self.task.score(self._predicted, target, self.data.spec)

    def tuned(self, downstream: D, metric: str) -> D:
        """The downstream model with the settings that score best on validation data with real data only.

        For the choice and its check of convergence see :func:`~hsiaug.trainers.convergence.tune`. Candidates start
        from another initialisation than the cells: if ratios were compared with the winner's own validation score,
        luck would favour ratio 0.
        """
        if downstream not in self._tuned:
            candidates = downstream.candidates()
            if len(candidates) == 1:
                self._tuned[downstream] = candidates[0]
                return candidates[0]

            def trial(candidate: Downstream) -> Trial:  # validation score of a setting, real data only
                try:
                    model = self.task.train(candidate, self.real, self.seed + _TUNING_SEED, self.device, self.val)
                except DivergedError:
                    return Trial(math.nan)
                return Trial(float(self._scores(model, 'val')[metric]), loss_still_falls(model))

            tuned = tune(
                candidates,
                trial,
                lambda one: one.length,
                lambda score: self.task.standard_error(score, len(self.val)),
            )
            if math.isnan(tuned.trials[tuned.chosen].score):
                raise ValueError(
                    f'{downstream.name!r} learns nothing from real data alone: its training diverged in all of '
                    f'{len(tuned.trials)} settings ({metric}); lower its learning rates'
                )
            self._tuned[downstream] = tuned.chosen
        return self._tuned[downstream]  # type: ignore[return-value]

    def generator(self, arm: Arm) -> Generator:
        """The arm's generator, trained once on this split; costly ones are saved in the run folder."""
        key = short_digest([arm.generator, arm.settings])
        if key not in self._generators:
            # Two seeds may share a split, two arms a generator, two scenes a name; a folder may have been of other
            # settings.
            made = short_digest([self.scene.content, self.split.fingerprint, self.seed, arm.generator, arm.settings])
            kept = self.folder / 'generators' / f'{file_stem(self.setting.scene, str(self.seed), arm.generator)}-{made}'
            costly = trainer_of(arm.generator) is not None  # others are faster to fit than to read
            if costly and kept.is_dir():
                generator = Generator.from_pretrained(kept, self.device)
            else:
                generator = fit_generator(arm.generator, self.data, arm.settings, self.seed, self.device)
                if not all(bool(weight.isfinite().all()) for weight in generator.parameters()):
                    raise ValueError(
                        f'the training of {arm.generator!r} diverged: its weights are not finite; lower its learning '
                        'rates, or train it for fewer iterations'
                    )
                if costly:
                    generator.save_pretrained(kept)
            require_unseen_samples(generator, self.test)
            self._generators[key] = generator
        return self._generators[key]

    def run(self, cell: Cell, metrics: Sequence[str]) -> dict[str, Any]:
        """Train and measure one cell; the result is JSON-ready."""
        start = time.perf_counter()
        downstream = self.tuned(cell.classifier, metrics[0])
        dataset, synthetic = self.real, 0
        if cell.arm is not None:
            downstream = cell.arm.adapt(downstream)
            dataset, synthetic = self._mixed(cell.arm, cell.ratio, downstream)
        model = self.task.train(downstream, dataset, self.seed, self.device, self.val)
        falls = loss_still_falls(model, 0.0 if cell.arm is None else cell.arm.synthetic_first)
        val, test = self._scores(model, 'val'), self._scores(model, 'test')
        for part, scores in (('validation', val), ('test', test)):
            if undefined := [name for name in metrics if not math.isfinite(scores[name])]:
                raise ValueError(
                    f'{undefined} have no value on the {part} part; does it hold labelled samples? Use another split, '
                    'or more labels'
                )
        if self.keep and self.task.keeps_predictions:
            file = predictions_file(self.folder, cell)
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({self.data.spec.target_key: self._predicted.to(torch.uint8)}, file)
        chosen = downstream.chosen()
        return {
            'cell': cell.key,
            'scene': self.setting.scene,
            'budget': self.setting.budget,
            'classifier': downstream.name,
            'arm': REAL if cell.arm is None else cell.arm.name,
            'control': cell.arm is not None and cell.arm.control,
            'ratio': cell.ratio,
            'seed': self.seed,
            'split': self.split.fingerprint,
            'classes': list(self.data.spec.classes),
            'dropped': list(self.split.dropped),
            'train_real': len(self.real),
            'train_synthetic': synthetic,
            'test_count': len(self.test),
            'setting': chosen,
            'steps': chosen.get('steps'),
            'val': {k: v for k, v in val.items() if k in metrics},
            'test': {k: finite(v) for k, v in test.items() if k in (*metrics, 'per_class')},
            'seconds': round(time.perf_counter() - start, 3),
            **({} if falls is None else {'still_falls': falls}),
        }

    def _mixed(self, arm: Arm, ratio: float, downstream: Any) -> tuple[MixedDataset, int]:
        """Training data of an arm, and how many synthetic samples it holds."""
        count = round(ratio * len(self.real))
        source = self._source(arm, count)
        labels = {} if isinstance(source, Dataset) else {'labels': arm.labels}
        options: dict[str, Any] = {**labels, 'seed': self.seed, 'prior': self.prior if arm.labels == 'prior' else None}
        if arm.synthetic_only or arm.synthetic_first:
            epochs = _FOREVER
            if not arm.synthetic_only:
                seen = downstream.config.steps * downstream.config.batch_size  # samples seen in all
                epochs = max(round(arm.synthetic_first * seen / len(self.real)), 1)
            first = SyntheticFirst(epochs)
            return MixedDataset(self.real, source, first, mode='replace', replacement=True, **options), count
        return MixedDataset(self.real, source, ratio, **options), count

    def _source(self, arm: Arm, count: int) -> Any:
        """Source of the arm's ``count`` synthetic samples; of a fixed set, the first ones."""
        if arm.live or not self.task.fixed_set:
            return self.generator(arm)
        drawn = self._drawn.get(arm.name)
        if drawn is None or len(drawn) < count:
            if arm.name not in self._drawn and len(self._drawn) > 1:
                self._drawn.pop(next(iter(self._drawn)))  # at most two arms in memory
            most = max([count, *(round(ratio * len(self.real)) for ratio in arm.ratios or ())])
            drawn = self.task.drawn(self.generator(arm), most, self.seed, arm.labels, self.data.spec)
            self._drawn[arm.name] = drawn
        image, target = whole(drawn)
        return self.task.hold(image[:count], target[:count], self.data.spec)


def predictions_file(folder: Path, cell: Cell) -> Path:
    """File with the predictions of a cell's model on the test part, as uint8 targets."""
    return folder / 'predictions' / f'{cell.key}.safetensors'
