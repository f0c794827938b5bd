"""Trials of a ratio search for spectra and for patches with masks: fit, mix, train and score on one fold."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, cast

from torch import Tensor

from ..datasets import LabelPolicy, MixedDataset, SpectraDataset, SyntheticDataset
from ..datasets.patches import PatchDataset
from ..datasets.pool import Source
from ..metrics import accuracies
from ..metrics.segmentation import segmentation_scores
from ..records import short_digest
from ..samples import require_unseen
from ..scenes import Scene, Split
from ..scenes.patches import PatchSplit
from ..settings import Range, check_value
from ..systems import Generator, TrainingData
from ..systems.fit import fit_generator, training_data
from ..trainers.classifier import ClassifierConfig, predict, train_nn1d
from ..trainers.segmentation import SegmenterConfig, predict_masks, train_segmenter
from .folds import Regions, fold_splits
from .gated import GateError
from .ratio_search import Candidate
from .regions import label_regions

S = TypeVar('S', bound=Split | PatchSplit)
C = TypeVar('C', bound=ClassifierConfig | SegmenterConfig)
GateMaker = Callable[[Generator, TrainingData, Tensor, float], Source]
"""Puts a gate in front of a generator: called with generator, training data, regions of its labels, and threshold."""


class FoldTrial(ABC, Generic[S, C]):
    """Base of trials on the folds of a split's training area; a :class:`~hsiaug.quality.ratio_search.Trial`.

    A candidate whose gates let hardly anything pass (:class:`~hsiaug.quality.gated.GateError`) scores as ratio 0 does:
    nothing would be mixed in.

    Args:
        scene: the scene.
        split: a split of it; its test part is never read.
        generator: registered name of the generator.
        config: downstream network and training.
        settings: of the generator, see :func:`~hsiaug.trainers.fit_generator`.
        labels: classes of the synthetic samples.
        metric: score on the held-out fold; the first of those that the subclass names if None.
        folds: that the training area is dealt to; as many as those of the search.
        regions: see :func:`~hsiaug.quality.folds.fold_splits`, as ``block``.
        block: see there.
        refit: fit generator and gate anew without each fold. If False, they are fitted once on the whole training
            area, which is cheaper; synthetic samples then hold something of the fold, and its scores are optimistic.
        gate: makes a gated source where candidates have a threshold; an object that is no function says in its
            attribute ``settings`` what tells it from others of its type.
        share: share of the steps of a plain training; shorter trainings cost less and rank ratios less surely.
        device: where to train.

    Attributes:
        cost: plain trainings that a call takes; fitting the generator is not counted.
        identity: 16 hex digits of everything that decides on a score, what the scene holds among it.

    Raises:
        ValueError: for a share that is none, or an unknown metric.
    """

    metrics: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        scene: Scene,
        split: S,
        generator: str,
        config: C,
        settings: Mapping[str, Any] | None = None,
        labels: LabelPolicy = 'real',
        metric: str | None = None,
        folds: int = 3,
        regions: Regions = 'auto',
        block: int = 8,
        refit: bool = True,
        gate: GateMaker | None = None,
        share: float = 1.0,
        device: str = 'cpu',
    ) -> None:
        who = type(self).__name__
        check_value(who, 'share of the steps', share, float, Range(0, 1, open_low=True))
        check_value(who, 'folds', folds, int, Range(2))
        check_value(who, 'block', block, int)
        self.scene, self.split, self.generator, self.settings = scene, split, generator, dict(settings or {})
        self.config = replace(config, steps=max(1, round(share * config.steps)))
        metric = metric or self.metrics[0]
        if metric not in self.metrics:
            raise ValueError(f'{type(self).__name__}: unknown metric {metric!r}; choose from {self.metrics}')
        self.labels, self.metric, self.refit, self.gate, self.device = labels, metric, refit, gate, device
        self.folds, self.regions, self.block = folds, regions, block
        self.cost = self.config.steps / config.steps
        decides = [
            type(self).__name__, scene.content, split.fingerprint, split.seed, generator, self.settings, self.config,
            labels, metric, folds, regions, block, refit, _maker(gate),
        ]  # fmt: skip
        self.identity = short_digest(decides)
        self._dealt: tuple[int, list[S]] | None = None
        self._fitted: tuple[tuple[int, int] | None, Generator, TrainingData] | None = None
        self._gated: dict[float, Source] = {}  # of the generator that is fitted, by threshold
        self._plain: dict[tuple[int, int], float] = {}

    @abstractmethod
    def _real(self, fold: S) -> Any:
        """Real training samples of a fold."""

    @abstractmethod
    def _mixed(self, real: Any, source: Source, ratio: float, seed: int) -> MixedDataset:
        """Real and synthetic samples."""

    @abstractmethod
    def _score(self, dataset: Any, fold: S, seed: int) -> float:
        """Train on a dataset, score on a fold."""

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        """Score of a network that is trained with a candidate without a fold, on that fold.

        Raises:
            ValueError: if the candidate has a threshold and there is no gate.
        """
        if self._dealt is None or self._dealt[0] != seed:
            self._dealt = (seed, fold_splits(self.scene, self.split, self.folds, seed, self.regions, self.block))
        held = self._dealt[1][fold]
        if candidate.ratio > 0:
            # A generator that has seen the fold is refused by the guard, which then watches the test part of the split.
            real = self._real(held if self.refit else _tested_on(held, self.split))
            try:
                source = self._source(candidate, fold, seed, held)
                return self._score(self._mixed(real, source, candidate.ratio, seed), held, seed)
            except GateError:
                pass
        if (fold, seed) not in self._plain:
            self._plain[fold, seed] = self._score(self._real(held), held, seed)
        return self._plain[fold, seed]

    def _source(self, candidate: Candidate, fold: int, seed: int, held: S) -> Source:
        part, key = (held, (fold, seed)) if self.refit else (self.split, None)
        if self._fitted is None or self._fitted[0] != key:
            data = training_data(self.scene, part)
            start = seed if self.refit else self.split.seed
            self._fitted = (key, fit_generator(self.generator, data, self.settings, start, self.device), data)
            self._gated = {}
        _, generator, data = self._fitted
        if candidate.threshold is None:
            return generator
        if self.gate is None:
            raise ValueError(f'{type(self).__name__}: {candidate} has a threshold, but there is no gate; give one')
        if candidate.threshold not in self._gated:  # candidates that differ in ratio alone share what gates have learnt
            regions = label_regions(self.scene, part)
            self._gated[candidate.threshold] = self.gate(generator, data, regions, candidate.threshold)
        return self._gated[candidate.threshold]


def _maker(gate: Any) -> Any:
    """What tells a maker of gates from others: of an object its type and, where it has them, its ``settings``."""
    if gate is None or hasattr(gate, '__qualname__') or isinstance(gate, partial) or dataclasses.is_dataclass(gate):
        return gate
    return [type(gate).__qualname__, getattr(gate, 'settings', None)]


def _tested_on(fold: S, split: S) -> S:
    """A fold's training part with the test part of the split that it is from."""
    test: Any = {'test': split.test} if isinstance(split, Split) else {'test_windows': split.windows('test')}
    return replace(fold, **test)


class SpectraTrial(FoldTrial[Split, ClassifierConfig]):
    """NN-1D on single spectra; metrics ``'oa'``, ``'aa'``, ``'kappa'``."""

    metrics = ('oa', 'aa', 'kappa')

    def _real(self, fold: Split) -> SpectraDataset:
        return SpectraDataset(self.scene, fold, 'train')

    def _mixed(self, real: Any, source: Source, ratio: float, seed: int) -> MixedDataset:
        return MixedDataset(real, source, ratio, seed, labels=self.labels)

    def _score(self, dataset: Any, fold: Split, seed: int) -> float:
        image, label = SpectraDataset(self.scene, fold, 'test').tensors()
        network = train_nn1d(dataset, self.config, seed, self.device)
        return float(getattr(accuracies(predict(network, image), label, dataset.spec.num_classes), self.metric))


class PatchTrial(FoldTrial[PatchSplit, SegmenterConfig]):
    """A segmentation network on patches; metrics ``'miou'``, ``'f1'``, ``'oa'``."""

    metrics = ('miou', 'f1', 'oa')

    def _real(self, fold: PatchSplit) -> PatchDataset:
        return PatchDataset.from_scene(self.scene, fold, 'train')

    def _mixed(self, real: Any, source: Source, ratio: float, seed: int) -> MixedDataset:
        require_unseen(getattr(source, 'provenance', None), real.split.scene, real.split.test)
        # A fixed set, as in the papers: an epoch of new patches would cost more than the training.
        drawn = SyntheticDataset(cast(Any, source), round(ratio * len(real)), seed, self.labels)
        batch = {key: value.cpu() for key, value in drawn.batch(range(len(drawn))).items()}
        return MixedDataset(real, PatchDataset(batch['image'], batch['mask'], real.spec), ratio, seed)

    def _score(self, dataset: Any, fold: PatchSplit, seed: int) -> float:
        held, spec = PatchDataset.from_scene(self.scene, fold, 'test'), dataset.spec
        masks = predict_masks(train_segmenter(dataset, self.config, seed, self.device), held.image)
        return float(getattr(segmentation_scores(masks, held.mask, spec.num_classes, spec.ignore_index), self.metric))
