"""Everything that depends on the kind of sample: data, training, scores and fidelity."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..datasets import SyntheticDataset, require_unseen_samples
from ..datasets.contract.batches import fetch
from ..metrics import accuracies
from ..metrics.patches import Encoder, Pair
from ..metrics.values import Measure
from ..named_configs import near
from ..samples import Kind, Sample, SampleSpec, require_compatible
from ..settings import checked_arguments
from ..streams import shuffled
from ..systems import Generator, TrainingData
from ..trainers.classifier import predict
from ..trainers.pixelwise import train_images
from .downstream import Downstream, Record

Fidelity = Callable[[Generator], Record]
"""What a study records of a generator's samples."""


@dataclass(frozen=True)
class Evaluation:
    """Comparison of a generator's samples with real ones.

    ``sides`` are the batches ``'real, training'``, ``'real, test'`` and ``'synthetic'``; ``measures`` are fidelities by
    name, see :meth:`Task.fidelity`. If a generator can interpolate, ``paths`` are titles and samples (A, C) along lines
    in latent space, by name.
    """

    spec: SampleSpec
    sides: Mapping[str, Mapping[str, Tensor]]
    measures: Mapping[str, Any]
    paths: Mapping[str, tuple[str, Tensor]] = field(default_factory=dict)


class Comparison(NamedTuple):
    """Samples, and the function that measures held-out and synthetic ones.

    ``prefix`` precedes the names of the measures; ``sides`` are training, test and synthetic samples. ``thinned`` names
    samples that were subsampled to a number per class; empty if all samples are used.
    """

    prefix: str
    measure: Measure
    sides: Sequence[Pair]
    thinned: str = ''


class Task(ABC):
    """Everything that depends on the kind of sample. Datasets follow the sample contract and have a ``spec``.

    Attributes:
        kind: kind of the samples; layout and target key are those of :class:`~hsiaug.samples.SampleSpec`.
        splits: the split that gives such samples, and its splitter.
        dates: number of dates that a scene must have.
        metrics: metrics of predictions; the first is the primary one, which decides about claims and the chosen ratio.
        note: what a reader of the metrics must know.
        downstream: class of the downstream models.
        config: class of their networks' settings.
        models: downstream models by name, the default first.
        dataset: class of datasets of samples in memory, if there is one.
        fixed_set: whether synthetic samples are drawn once per training, as in the papers, or redrawn in each epoch.
        keeps_predictions: whether predictions on the test part are kept for figures.
    """

    kind: ClassVar[Kind]
    splits: ClassVar[tuple[type, type]]
    dates: ClassVar[int] = 1
    metrics: ClassVar[tuple[str, ...]]
    note: ClassVar[str] = ''
    downstream: ClassVar[type[Downstream]]
    config: ClassVar[Any]
    models: ClassVar[Mapping[str, Downstream]]
    dataset: ClassVar[Any] = None
    fixed_set: ClassVar[bool] = False
    keeps_predictions: ClassVar[bool] = False

    def model(self, given: str | Mapping[str, Any] | None = None) -> Downstream:
        """A downstream model as a config file names it: by its name, or by settings, of a known name or a new one.

        Settings that are not given are those of the known model; of the first, under a new name. One that is nearly
        that of another model is refused, unless the config says which network it is.

        Raises:
            ValueError: for settings that do not fit; it says which models there are.
        """
        if given is None:
            return next(iter(self.models.values()))
        if isinstance(given, str):
            if given not in self.models:
                raise ValueError(
                    f'samples of kind {self.kind!r} are for the models {list(self.models)}, or one of settings of your '
                    f'own; found {given!r}'
                )
            return self.models[given]
        where = f'downstream model {given.get("name", "")!r} of samples of kind {self.kind!r}'
        settings = _as_annotated(self.downstream, checked_arguments(self.downstream, given, where))
        config, name, first = settings.get('config', {}), settings.get('name', ''), self.model()
        base: Any = self.models.get(name, first)
        if isinstance(config, Mapping):
            settings['config'] = replace(base.config, **self._settings(config, f'{where}: config'))
            said = name in self.models or 'model' in config
            if not said and (question := near(name.lower(), self.models)) and repr(first.name) not in question:
                raise ValueError(f'{where}: {question}If not, say as config.model which network it is')
        return cast(Downstream, replace(base, **settings))

    def configure(self, settings: Mapping[str, Any] | None, where: str) -> Any:
        """Settings of the first downstream model's network; those that are not given are that model's own.

        Raises:
            ValueError: naming those that do not fit, where they stand.
        """
        first: Any = self.model()
        return replace(first.config, **self._settings(settings, where))

    def _settings(self, settings: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
        return _as_annotated(self.config, checked_arguments(self.config, settings, where))

    def train(self, model: Any, dataset: Any, seed: int = 0, device: str = 'cpu', val: Any = None) -> Any:
        """Train a downstream model on real or mixed samples.

        Args:
            model: one of :meth:`Downstream.candidates`.
            dataset: of this kind.
            seed: of everything random.
            device: where to train.
            val: samples to validate on, for networks of images that keep the weights which score best.
        """
        return train_images(dataset, model.config, seed, device, val)

    def predict(self, model: Any, image: Tensor) -> Tensor:
        """Targets of images by a trained model, on the CPU."""
        return predict(model, image)

    def score(self, predicted: Tensor, target: Tensor, spec: SampleSpec) -> Record:
        """:attr:`metrics` and ``per_class``; of labels, accuracies and the recall of each class."""
        return asdict(accuracies(predicted, target, spec.num_classes))

    def standard_error(self, score: float, count: int) -> float:
        """Of the primary metric on ``count`` samples, 0 if unknown; a later setting must be better by more."""
        return 0.0

    def unscorable(self, dataset: Any) -> str | None:
        """Why no model can be scored on a part, if none can."""
        return None

    def prior(self, data: TrainingData) -> np.ndarray | None:
        """Class prior of unlabelled data, for the label policy of that name; None where there are none."""
        return None

    def hold(self, image: Tensor, target: Tensor, spec: SampleSpec) -> Dataset[Sample]:
        """Samples in memory as a dataset."""
        if self.dataset is None:
            raise NotImplementedError(f'{type(self).__name__} has no dataset of samples in memory')
        return self.dataset(image, target, spec)

    def drawn(self, source: Any, count: int, seed: int, labels: Any, spec: SampleSpec) -> Any:
        """A fixed set of synthetic samples."""
        batch = SyntheticDataset(source, count, seed, labels).batch(range(count))
        return self.hold(batch['image'].cpu(), batch[spec.target_key].cpu(), spec)

    def as_images(self, pair: Pair, date: int = 0) -> Pair:
        """Images (n, C, H, W) with masks (n, H, W), whatever the kind; of pairs those of one ``date``."""
        return pair

    # --- fidelity -----------------------------------------------------------------------------------------------------

    def encoder(self, train: Pair, spec: SampleSpec, seed: int = 0) -> Encoder | None:
        """An encoder of images that has learnt from the training part alone; None where none is needed."""
        return None

    @abstractmethod
    def fidelity(self, sides: Sequence[Pair], spec: SampleSpec, encoder: Encoder | None, seed: int = 0) -> Record:
        """How near synthetic samples, the last of three sides, come to training and test ones, by what is compared."""

    @abstractmethod
    def comparisons(self, sides: Sequence[Pair], spec: SampleSpec, per_class: int, seed: int = 0) -> list[Comparison]:
        """The same as single values, which can be had without some of the samples.

        Of spectra ``per_class`` of a class count at most. The seed is that of the encoder and of what is left out.
        """

    @abstractmethod
    def study_fidelity(self, train: Any, test: Any, seed: int, inception: Path | None = None) -> Fidelity:
        """What a study records of the fidelity of a generator that was trained on ``train`` and has not seen ``test``.

        The seed is that of the draw and of the encoder. Of images with masks, ``inception`` are weights of the network
        whose features they are compared by; None for a network that learns the classes of the training part.
        """

    def draw(self, generator: Generator, count: int, per_class: int, seed: int) -> dict[str, Tensor]:
        """Samples whose fidelity is measured, on the CPU: ``count`` in all, or ``per_class`` of each class."""
        return on_cpu(generator.sample(count, seed=seed))

    def paths(self, generator: Generator) -> dict[str, tuple[str, Tensor]]:
        """Title and samples along lines in the latent space, by name."""
        return {}

    def evaluate(
        self,
        generator: Generator,
        train: Any,
        test: Any,
        count: int = 500,
        per_class: int = 200,
        seed: int = 0,
        encoder: Encoder | None = None,
    ) -> Evaluation:
        """Measure a generator against real samples.

        Args:
            generator: trained on ``train``.
            train: the training part.
            test: a part that the generator has not seen.
            count: synthetic images, drawn with the training frequencies.
            per_class: synthetic spectra of each class.
            seed: of the draw and of the encoder.
            encoder: (n, C, H, W) images of one date to (n, d) features; one trained on the training part if None.

        Raises:
            LeakageError: if the generator has seen test pixels of the split, or test samples.
            SpecMismatchError: if bands, size or classes differ.
        """
        spec = generator.spec
        require_compatible(train.spec, spec)
        require_compatible(test.spec, spec)
        require_unseen_samples(generator, test)
        pairs = [whole(train), whole(test)]
        if encoder is None:
            encoder = self.encoder(pairs[0], spec, seed)
        fake = self.draw(generator, count, per_class, seed)
        pairs.append((fake['image'], fake[spec.target_key]))
        names = ('real, training', 'real, test', 'synthetic')
        sides = {name: {'image': x, spec.target_key: y} for name, (x, y) in zip(names, pairs, strict=True)}
        measures = self.fidelity(pairs, spec, encoder, seed)
        return Evaluation(spec, sides, measures, self.paths(generator))


def _as_annotated(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tuples and whole numbers as floats, where a dataclass has these: a digest of both must be the same."""
    hints = get_type_hints(cls)
    found = {}
    for name, value in settings.items():
        if isinstance(value, list | tuple):
            value = tuple(map(float, value)) if float in get_args(hints[name]) else tuple(value)
        found[name] = float(value) if hints[name] is float else value
    return found


def one_date(spec: SampleSpec) -> SampleSpec:
    """The spec of what :meth:`Task.as_images` gives."""
    return replace(spec, kind='segmentation', size=spec.size or (1, 1))


def whole(dataset: Any) -> Pair:
    """Images and targets of all samples of a dataset; those that it holds are not copied."""
    key = dataset.spec.target_key
    held = getattr(dataset, 'image', None), getattr(dataset, key, None)
    if all(isinstance(each, Tensor) for each in held):
        return held  # type: ignore[return-value]
    batch = fetch(dataset, np.arange(len(dataset)))
    return batch['image'], batch[key]


def on_cpu(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch on the CPU."""
    return {key: value.cpu() for key, value in batch.items()}


def finite(value: Any) -> Any:
    """JSON has no NaN: a class that the test part lacks has recall null."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def balanced(num_classes: int, per_class: int, seed: int) -> Tensor:
    """(K · per_class,) labels, ``per_class`` of each class, in random order."""
    labels = torch.arange(num_classes).repeat_interleave(per_class)
    return labels[shuffled(len(labels), seed)]


def thinned(pair: Pair, per_class: int, seed: int = 0) -> Pair:
    """At most ``per_class`` samples of each label (n,), at random, in random order."""
    image, label = pair
    order = shuffled(len(label), seed)
    kept = torch.cat([order[label[order] == k][:per_class] for k in label.unique()])
    kept = kept[shuffled(len(kept), seed)]
    return image[kept], label[kept]
