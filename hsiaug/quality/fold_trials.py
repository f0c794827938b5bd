"""Trials of a ratio search: fit, mix, train, and score on one fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ..datasets import LabelPolicy, MixedDataset, require_unseen_samples, scene_dataset
from ..datasets.own.parts import AnyScene, AnySplit
from ..datasets.pools.pool import Source
from ..records import short_digest
from ..samples import Kind
from ..scenes import BitemporalScene
from ..settings import Range, check_value
from ..systems import Generator, TrainingData
from ..systems.data import training_data
from ..systems.fit import fit_generator
from ..tasks import task_of_split, whole
from .folds import Regions, fold_splits
from .gated import GateError, all_gates
from .ratio_search import Candidate
from .regions import label_regions

GateMaker = Callable[[Generator, TrainingData, Tensor, float], Source]
"""Puts a gate in front of a generator: called with generator, training data, regions of its labels, and threshold."""


_RECORDED: dict[Kind, str] = {'spectrum': 'SpectraTrial', 'segmentation': 'PatchTrial'}
"""Name of trials in recorded scores, kept so that searches begun earlier resume."""


class FoldTrial:
    """A trial on the folds of a split's training area; a :class:`~hsiaug.quality.ratio_search.Trial`.

    Generator and gate are fitted without the fold that scores.

    If hardly any sample of a candidate passes its gates (:class:`~hsiaug.quality.gated.GateError`), it gets the score
    of ratio 0, since nothing would be mixed in.

    Args:
        scene: the scene, or samples of datasets.
        split: a split of it; its test part is never read.
        generator: registered name of the generator.
        config: settings of the downstream network, of the class for this kind of samples.
        settings: settings of the generator, see :func:`~hsiaug.systems.fit.fit_generator`.
        labels: classes of the synthetic samples.
        metric: score on the held-out fold, one of the metrics of the task; by default, the first of them.
        folds: number of folds of the training area, as in the search.
        regions: see :func:`~hsiaug.quality.folds.fold_splits`.
        block: see :func:`~hsiaug.quality.folds.fold_splits`.
        gate: makes a gated source if candidates have a threshold; an object that is not a function must have an
            attribute ``settings`` that distinguishes it from others of its type.
        share: share of the steps of a full training; shorter trainings are cheaper and rank ratios less reliably.
        device: device to train on.

    Attributes:
        cost: number of full trainings per call, without fitting the generator.
        identity: 16 hex digits of everything that determines a score, including the content of the scene.

    Raises:
        ValueError: for an invalid share, an unknown metric, or settings of another kind of network.
    """

    def __init__(
        self,
        scene: AnyScene,
        split: AnySplit,
        generator: str,
        config: Any,
        settings: Mapping[str, Any] | None = None,
        labels: LabelPolicy = 'real',
        metric: str | None = None,
        folds: int = 3,
        regions: Regions = 'auto',
        block: int = 8,
        gate: GateMaker | None = None,
        share: float = 1.0,
        device: str = 'cpu',
    ) -> None:
        who = type(self).__name__
        self.task = task_of_split(split, 2 if isinstance(scene, BitemporalScene) else 1)
        if not isinstance(config, self.task.config):
            raise ValueError(
                f'{who}: samples of kind {self.task.kind!r} need a {self.task.config.__name__}, found '
                f'{type(config).__name__}'
            )
        check_value(who, 'share of the steps', share, float, Range(0, 1, open_low=True))
        check_value(who, 'folds', folds, int, Range(2))
        check_value(who, 'block', block, int)
        self.scene, self.split, self.generator, self.settings = scene, split, generator, dict(settings or {})
        self.config = replace(config, steps=max(1, round(share * config.steps)))
        metric = metric or self.task.metrics[0]
        if metric not in self.task.metrics:
            raise ValueError(f'{who}: unknown metric {metric!r}; choose from {self.task.metrics}')
        self.labels, self.metric, self.gate, self.device = labels, metric, gate, device
        self.folds, self.regions, self.block = folds, regions, block
        self.cost = self.config.steps / config.steps
        refit = True  # once an option, of which recorded scores know
        decides = [
            _RECORDED.get(self.task.kind, self.task.kind), scene.content, split.fingerprint, split.seed, generator,
            self.settings, self.config, labels, metric, folds, regions, block, refit, _maker(gate),
        ]  # fmt: skip
        self.identity = short_digest(decides)
        self._dealt: tuple[int, list[Any]] | None = None
        self._fitted: tuple[tuple[int, int], Generator, TrainingData] | None = None
        self._gated: dict[float, Source] = {}  # of the fitted generator, by threshold
        self._plain: dict[tuple[int, int], float] = {}

    def _mixed(self, real: Any, source: Source, ratio: float, test: Any, seed: int) -> MixedDataset:
        """Real and synthetic samples, by a source that has seen none of ``test``."""
        require_unseen_samples(source, test)
        if not self.task.fixed_set:
            return MixedDataset(real, source, ratio, seed, labels=self.labels)
        count = round(ratio * len(real))
        return MixedDataset(real, self.task.drawn(source, count, seed, self.labels, real.spec), ratio, seed)

    def _score(self, dataset: Any, test: Any, seed: int) -> float:
        """Train on a dataset, score on another."""
        image, target = whole(test)
        trained = self.task.train(self.task.downstream(config=self.config), dataset, seed, self.device)  # type: ignore[call-arg]
        return float(self.task.score(self.task.predict(trained, image), target, dataset.spec)[self.metric])

    def __call__(self, candidate: Candidate, fold: int, seed: int) -> float:
        """Score on a fold of a network trained with a candidate on the rest."""
        if self._dealt is None or self._dealt[0] != seed:
            self._dealt = (seed, fold_splits(self.scene, self.split, self.folds, seed, self.regions, self.block))
        held = self._dealt[1][fold]
        real, test = (scene_dataset(self.scene, held, part) for part in ('train', 'test'))
        if candidate.ratio > 0:
            try:
                source = self._source(candidate, fold, seed, held)
                return self._score(self._mixed(real, source, candidate.ratio, test, seed), test, seed)
            except GateError:
                pass
        if (fold, seed) not in self._plain:
            self._plain[fold, seed] = self._score(real, test, seed)
        return self._plain[fold, seed]

    def _source(self, candidate: Candidate, fold: int, seed: int, held: Any) -> Source:
        if self._fitted is None or self._fitted[0] != (fold, seed):
            data = training_data(self.scene, held)
            generator = fit_generator(self.generator, data, self.settings, seed, self.device)
            self._fitted, self._gated = ((fold, seed), generator, data), {}
        _, generator, data = self._fitted
        if candidate.threshold is None:
            return generator
        if self.gate is None:
            raise ValueError(f'{type(self).__name__}: {candidate} has a threshold, but there is no gate; give one')
        if candidate.threshold not in self._gated:  # candidates that differ only in ratio share fitted gates
            regions = label_regions(self.scene, held)
            self._gated[candidate.threshold] = self.gate(generator, data, regions, candidate.threshold)
        return self._gated[candidate.threshold]


def _maker(gate: Any) -> Any:
    """What identifies a function or object that makes gates: its name, or its type and any ``settings``."""
    if gate is all_gates:
        return 'hsiaug.quality.behind.all_gates'  # its former module, as in recorded scores
    if gate is None or hasattr(gate, '__qualname__') or isinstance(gate, partial) or dataclasses.is_dataclass(gate):
        return gate
    return [type(gate).__qualname__, getattr(gate, 'settings', None)]


SpectraTrial = PatchTrial = FoldTrial
"""Old names, from when each kind of sample had its own trial."""
