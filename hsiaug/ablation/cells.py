"""How one cell is measured."""

from __future__ import annotations

import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from ..datasets import MixedDataset, SpectraDataset, estimate_prior
from ..datasets.patches import HeldSamples
from ..engine.divergence import DivergedError
from ..metrics import Fidelity, accuracies, fidelity
from ..models.nn1d import NN1D
from ..ratio import SyntheticFirst
from ..records import short_digest
from ..samples import require_unseen
from ..scenes import Scene, Split, Splitter
from ..scenes.patches import PatchSplit
from ..systems import Generator, TrainingData
from ..systems.fit import fit_generator, training_data
from ..systems.training import trainer_of
from ..trainers import LinearSVM, predict, train_nn1d
from ..trainers.convergence import Trial, loss_still_falls, tune
from .names import file_stem
from .plan import REAL, Arm, Cell, Classifier, D, Network, Setting

_TUNING_SEED = 1_000_003
_FOREVER = 2**31  # epochs
N = TypeVar('N', bound=Network)


class Group(ABC, Generic[D]):
    """One split of one scene and everything that its cells share.

    A subclass opens the real data and says how a downstream model is trained and measured.

    Args:
        scene: the scene.
        setting: split and budget.
        seed: of split, generators and downstream models.
        folder: run folder; trained generators are kept there.
        device: where to train.
        keep: keep what figures of this group show.
    """

    split: Split | PatchSplit
    real: SpectraDataset | HeldSamples
    data: TrainingData

    def __init__(
        self, scene: Scene, setting: Setting, seed: int, folder: Path, device: str = 'cpu', keep: bool = False
    ) -> None:
        self.scene, self.setting, self.seed, self.folder, self.device = scene, setting, seed, folder, device
        self.keep = keep
        self._tuned: dict[D, D] = {}
        self._generators: dict[str, Generator] = {}
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Split the scene and read the real data."""

    @abstractmethod
    def _candidates(self, downstream: D) -> list[D]:
        """Settings among which the real-only arm chooses."""

    @abstractmethod
    def _train(self, downstream: D, dataset: Any, seed: int) -> Any:
        """A trained model."""

    @abstractmethod
    def _scores(self, model: Any, test: bool) -> dict[str, Any]:
        """The study's metrics and ``per_class`` on the test or the validation part."""

    @abstractmethod
    def _chosen(self, downstream: D) -> dict[str, Any]:
        """What tuning has chosen, for the record."""

    @abstractmethod
    def measure_fidelity(self, arm: Arm) -> dict[str, Any]:
        """Fidelity of an arm's samples."""

    @property
    @abstractmethod
    def test_count(self) -> int:
        """Number of test samples."""

    prior: np.ndarray | None = None
    """Class prior for the label policy of that name."""

    def tuned(self, downstream: D, metric: str) -> D:
        """The downstream model with the setting that validates best with real data only.

        How it is chosen, and that it has converged, see :func:`~hsiaug.trainers.convergence.tune`. Candidates start
        from another initialisation than the cells: were the winner's own validation figure the one that ratios are
        compared with, luck would favour ratio 0.
        """
        if downstream not in self._tuned:
            candidates = self._candidates(downstream)
            if len(candidates) == 1:
                self._tuned[downstream] = candidates[0]
                return candidates[0]
            tuned = tune(candidates, lambda one: self._trial(one, metric), _length, self._error)
            if math.isnan(tuned.trials[tuned.chosen].score):
                raise ValueError(
                    f'{downstream.name!r} learns nothing from real data alone: its training diverged in all of '
                    f'{len(tuned.trials)} settings ({metric}); lower its learning rates'
                )
            self._tuned[downstream] = tuned.chosen
        return self._tuned[downstream]

    def _trial(self, candidate: D, metric: str) -> Trial:
        """Validation score of a setting with real data only."""
        try:
            model = self._train(candidate, self.real, self.seed + _TUNING_SEED)
        except DivergedError:
            return Trial(math.nan)
        score = float(self._scores(model, False)[metric]) if _is_finite(model) else math.nan
        return Trial(score, loss_still_falls(model))

    def _error(self, score: float) -> float:
        """Standard error of a validation score, which a setting must exceed to be preferred to one before it."""
        return 0.0

    def generator(self, arm: Arm) -> Generator:
        """The arm's generator, trained on this split once; costly ones are kept in the run folder.

        Raises:
            ValueError: if its training diverged.
        """
        key = short_digest([arm.generator, arm.settings])
        if key not in self._generators:
            # Two seeds may share a split, two arms a generator, two scenes a name; a folder may have been of other
            # settings.
            made = short_digest([self.scene.content, self.split.fingerprint, self.seed, arm.generator, arm.settings])
            kept = self.folder / 'generators' / f'{file_stem(self.setting.scene, str(self.seed), arm.generator)}-{made}'
            costly = trainer_of(arm.generator) is not None  # others are fitted faster than read
            if costly and kept.is_dir():
                generator = Generator.from_pretrained(kept, self.device)
            else:
                generator = fit_generator(arm.generator, self.data, arm.settings, self.seed, self.device)
                if not _is_finite(generator):
                    raise ValueError(
                        f'the training of {arm.generator!r} diverged: its weights are not finite; lower its learning '
                        'rates, or train it for fewer iterations'
                    )
                if costly:
                    generator.save_pretrained(kept)
            require_unseen(generator.provenance, self.split.scene, self.split.test)
            self._generators[key] = generator
        return self._generators[key]

    def run(self, cell: Cell, metrics: Sequence[str]) -> dict[str, Any]:
        """Train and measure one cell; the result is JSON-ready.

        Raises:
            ValueError: if the training diverged, or a metric has no value.
        """
        start = time.perf_counter()
        downstream: Any = self.tuned(cast(D, cell.classifier), metrics[0])
        dataset: MixedDataset | SpectraDataset | HeldSamples = self.real
        synthetic = 0
        if cell.arm is not None:
            downstream = cell.arm.adapt(downstream)
            dataset, synthetic = self._mixed(cell.arm, cell.ratio, downstream)
        model = self._train(downstream, dataset, self.seed)
        if not _is_finite(model):
            raise ValueError(
                f'the training of {downstream.name!r} diverged: its weights are not finite; lower its learning rates, '
                'or look at the synthetic samples'
            )
        falls = loss_still_falls(model, 0.0 if cell.arm is None else cell.arm.synthetic_first)
        val, test = self._scores(model, False), self._scores(model, True)
        for part, scores in (('validation', val), ('test', test)):
            if undefined := [name for name in metrics if not math.isfinite(scores[name])]:
                raise ValueError(
                    f'{undefined} have no value on the {part} part; does it hold labelled samples? Use another split, '
                    'or more labels'
                )
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
            'test_count': self.test_count,
            'setting': self._chosen(downstream),
            'steps': self._chosen(downstream).get('steps'),
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
                seen = downstream.config.steps * downstream.config.batch_size  # samples, an epoch of which is all real
                epochs = max(round(arm.synthetic_first * seen / len(self.real)), 1)
            first = SyntheticFirst(epochs)
            return MixedDataset(self.real, source, first, mode='replace', replacement=True, **options), count
        return MixedDataset(self.real, source, ratio, **options), count

    def _source(self, arm: Arm, count: int) -> Any:
        """What the arm's ``count`` synthetic samples come from."""
        return self.generator(arm)

    def _spectral_record(self, arm: Arm, result: Fidelity) -> dict[str, Any]:
        """The fidelity of an arm's spectra as the report reads it."""
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


class NetworkGroup(Group[N]):
    """Images of one split, from which networks learn."""

    test: Any

    @property
    def test_count(self) -> int:
        """Number of test images."""
        return len(self.test)

    def _candidates(self, downstream: N) -> list[N]:
        config = downstream.config
        return [
            replace(downstream, config=replace(config, steps=steps, learning_rate=rate))
            for steps in downstream.steps or (config.steps,)
            for rate in downstream.learning_rates or (config.learning_rate,)
        ]

    def _chosen(self, downstream: N) -> dict[str, Any]:
        return {'steps': downstream.config.steps, 'learning_rate': downstream.config.learning_rate}


class SpectraGroup(Group[Classifier]):
    """Spectra of one split, classified by NN-1D or a linear SVM."""

    split: Split
    real: SpectraDataset

    def _open(self) -> None:
        self.split = cast(Splitter, self.setting.splitter)(self.scene, self.seed)
        self.real = SpectraDataset(self.scene, self.split, 'train')
        self.data = training_data(self.scene, self.split)
        self.test = SpectraDataset(self.scene, self.split, 'test').tensors()

    @property
    def test_count(self) -> int:
        """Number of test spectra."""
        return len(self.test[1])

    @cached_property
    def prior(self) -> np.ndarray:  # type: ignore[override]
        """Class prior of the training area, estimated from unlabelled pixels."""
        x, y, pool = (part.numpy() for part in (self.data.x, self.data.y, self.data.unlabelled))
        return estimate_prior(x, y, pool, self.data.spec.num_classes)

    def _candidates(self, downstream: Classifier) -> list[Classifier]:
        if downstream.name != 'nn1d':
            return [replace(downstream, c=(c,)) for c in downstream.c]
        return [
            replace(downstream, config=replace(downstream.config, hidden=width, scaling=scaling, steps=steps))
            for width in downstream.widths or (downstream.config.hidden,)
            for scaling in downstream.scalings
            for steps in downstream.steps
        ]

    def _error(self, score: float) -> float:
        return (score * (1 - score) / len(self.data.val_y)) ** 0.5 if 0 < score < 1 else 0.0

    def _train(self, downstream: Classifier, dataset: Any, seed: int) -> NN1D | LinearSVM:
        if downstream.name == 'nn1d':
            return train_nn1d(dataset, downstream.config, seed, self.device)
        batch = dataset.batch(range(len(dataset)))
        return LinearSVM(downstream.c[0]).fit(batch['image'], batch['label'], self.data.x)

    def _scores(self, model: Any, test: bool) -> dict[str, Any]:
        image, label = self.test if test else (self.data.val_x, self.data.val_y)
        predicted = model.predict(image) if isinstance(model, LinearSVM) else predict(model, image)
        return dataclasses.asdict(accuracies(predicted, label, self.data.spec.num_classes))

    def _chosen(self, downstream: Classifier) -> dict[str, Any]:
        if downstream.name == 'nn1d':
            config = downstream.config
            width = {'hidden': config.hidden} if downstream.widths else {}
            return {'scaling': config.scaling, 'steps': config.steps, **width}
        return {'c': downstream.c[0]}

    def measure_fidelity(self, arm: Arm, per_class: int = 200) -> dict[str, Any]:
        """Fidelity of an arm's samples, equally many of each class."""
        classes = self.data.spec.num_classes
        order = torch.randperm(classes * per_class, generator=torch.Generator().manual_seed(self.seed))
        labels = torch.arange(classes).repeat_interleave(per_class)[order]
        fake = self.generator(arm).sample(len(labels), labels, seed=self.seed)
        train = (self.data.x, self.data.y)
        result = fidelity(train, self.test, (fake['image'].cpu(), fake['label'].cpu()), classes)
        return self._spectral_record(arm, result)


def _length(candidate: Any) -> tuple[Any, int]:
    """A candidate but for its number of steps, and these."""
    return replace(candidate, config=replace(candidate.config, steps=1)), candidate.config.steps


def _is_finite(model: Any) -> bool:
    """Whether all weights of a network are finite; what is no network has none."""
    return not isinstance(model, nn.Module) or all(bool(weight.isfinite().all()) for weight in model.parameters())


def finite(value: Any) -> Any:
    """JSON has no NaN: a class that the test part lacks has recall null."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
