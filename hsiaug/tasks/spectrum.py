"""Single spectra with labels, classified by NN-1D or a linear SVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..datasets import MixedDataset, estimate_prior
from ..metrics import fidelity
from ..metrics.patches import Encoder, Pair
from ..metrics.values import spectra_measure
from ..samples import SampleSpec
from ..scenes import Split, Splitter
from ..settings import POSITIVE, check_value
from ..systems import Generator, TrainingData
from ..systems.abilities import Interpolates
from ..trainers.classifier import ClassifierConfig, LinearSVM, train_nn1d
from .base import Comparison, Fidelity, Task, balanced, on_cpu, thinned, whole
from .downstream import Downstream, Record

METRICS = ('oa', 'aa', 'kappa')
"""Of predicted labels: overall accuracy, average accuracy over classes, Cohen's kappa."""


@dataclass(frozen=True)
class Classifier(Downstream):
    """A downstream classifier of spectra.

    Args:
        name: ``'nn1d'`` or ``'linear_svm'``.
        config: base setting of NN-1D; its dropout is worth more than any source with few labels.
        scalings: input scalings to choose from; the first stays unless another is better by a standard error.
        steps: numbers of optimiser steps to choose from, see :func:`~hsiaug.trainers.convergence.tune`.
        c: penalties of the SVM to choose from.
        widths: of the hidden layers, to choose from; the config's own if empty.
    """

    kind = 'spectrum'

    name: str = 'nn1d'
    config: ClassifierConfig = field(default_factory=lambda: ClassifierConfig(dropout=0.3))
    scalings: tuple[str, ...] = ('decorrelated', 'standard')
    steps: tuple[int, ...] = (200, 400, 800)
    c: tuple[float, ...] = (0.1, 1.0, 10.0)
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in ('nn1d', 'linear_svm'):
            raise ValueError(f"unknown classifier {self.name!r}; choose from 'nn1d', 'linear_svm'")
        for what in ('scalings', 'steps') if self.name == 'nn1d' else ('c',):
            if not getattr(self, what):
                raise ValueError(f'classifier {self.name!r}: at least one of {what} to choose from is needed')
        super().__post_init__()
        for width in self.widths:
            check_value(f'classifier {self.name!r}', 'width', width, int)
        for c in self.c:
            check_value(f'classifier {self.name!r}', 'c', c, float, POSITIVE)

    def candidates(self: Any) -> list[Any]:
        """Every width and scaling with every number of steps, or every penalty."""
        if self.name == 'linear_svm':
            return [replace(self, c=(c,)) for c in self.c]
        return [
            replace(self, config=replace(self.config, hidden=width, scaling=scaling, steps=steps))
            for width in self.widths or (self.config.hidden,)
            for scaling in self.scalings
            for steps in self.steps
        ]

    def chosen(self) -> Record:
        """Scaling, steps and, where it is chosen, the width; or the penalty."""
        if self.name == 'linear_svm':
            return {'c': self.c[0]}
        width = {'hidden': self.config.hidden} if self.widths else {}
        return {'scaling': self.config.scaling, 'steps': self.config.steps, **width}

    @property
    def length(self) -> tuple[Downstream, int]:
        """The model without its number of optimiser steps, and that number."""
        return (self, 0) if self.name == 'linear_svm' else super().length


class Spectra(Task):
    """Spectra (C,) with labels."""

    kind = 'spectrum'
    splits = (Split, Splitter)
    metrics = METRICS
    downstream, config = Classifier, ClassifierConfig
    models: ClassVar[Mapping[str, Downstream]] = {'nn1d': Classifier(), 'linear_svm': Classifier('linear_svm')}

    def train(self, model: Classifier, dataset: Any, seed: int = 0, device: str = 'cpu', val: Any = None) -> Any:
        """NN-1D, or a linear SVM on bands that real spectra standardise."""
        if model.name == 'nn1d':
            return train_nn1d(dataset, model.config, seed, device)
        image, label = whole(dataset)
        return LinearSVM(model.c[0]).fit(
            image, label, whole(dataset.real if isinstance(dataset, MixedDataset) else dataset)[0]
        )

    def predict(self, model: Any, image: Tensor) -> Tensor:
        """Labels (n,)."""
        return model.predict(image) if isinstance(model, LinearSVM) else super().predict(model, image)

    def standard_error(self, score: float, count: int) -> float:
        """Binomial, of the overall accuracy."""
        return (score * (1 - score) / count) ** 0.5 if 0 < score < 1 else 0.0

    def prior(self, data: TrainingData) -> np.ndarray:
        """Class prior of the training area, estimated from unlabelled pixels."""
        x, y, pool = (part.numpy() for part in (data.x, data.y, data.unlabelled))
        return estimate_prior(x, y, pool, data.spec.num_classes)

    def as_images(self, pair: Pair, date: int = 0) -> Pair:
        """Images of one pixel."""
        return pair[0][:, :, None, None], pair[1][:, None, None]

    def draw(self, generator: Generator, count: int, per_class: int, seed: int) -> dict[str, Tensor]:
        """``per_class`` spectra of each class."""
        labels = balanced(generator.spec.num_classes, per_class, seed)
        return on_cpu(generator.sample(len(labels), labels, seed=seed))

    def paths(self, generator: Generator) -> dict[str, tuple[str, Tensor]]:
        """Fig. 4 of Audebert et al.: within a class between two noise vectors, between two classes at fixed noise."""
        if not (isinstance(generator, Interpolates) and generator.conditional):
            return {}
        alphas, classes = torch.linspace(0, 1, 9), generator.spec.classes
        return {
            'within': (f'two noise vectors, {classes[0]}', generator.interpolate((0, 0), alphas, (0, 1)).cpu()),
            'across': (
                f'{classes[0]} to {classes[1]}, fixed noise',
                generator.interpolate((0, 1), alphas, (0, 0)).cpu(),
            ),
        }

    def fidelity(self, sides: Sequence[Pair], spec: SampleSpec, encoder: Encoder | None, seed: int = 0) -> Record:
        """The analyses of Audebert et al. 2018."""
        train, test, fake = sides
        return {'spectra': fidelity(train, test, fake, spec.num_classes)}

    def comparisons(self, sides: Sequence[Pair], spec: SampleSpec, per_class: int, seed: int = 0) -> list[Comparison]:
        """Of ``per_class`` spectra of each class."""
        return [compared_spectra(sides, spec, per_class, seed)]

    def study_fidelity(self, train: Any, test: Any, seed: int, inception: Path | None = None) -> Fidelity:
        """Of 200 spectra of each class."""

        def measure(generator: Generator) -> Record:
            fake = self.draw(generator, 0, 200, seed)
            sides = whole(train), whole(test), (fake['image'], fake['label'])
            return spectral_record(*sides, generator.spec.num_classes)

        return measure


def compared_spectra(
    sides: Sequence[Pair], spec: SampleSpec, per_class: int, seed: int, prefix: str = '', what: str = 'Spectra'
) -> Comparison:
    """Spectra of three sides, thinned."""
    few = [thinned(side, per_class, seed) for side in sides]
    return Comparison(prefix, spectra_measure(few[0], spec.num_classes), few, what)


def spectral_record(train: Pair, test: Pair, fake: Pair, num_classes: int) -> Record:
    """The fidelity of spectra as studies keep it."""
    result = fidelity(train, test, fake, num_classes)
    return {
        'msad': result.msad,
        'svm': result.svm,
        'authenticity_share_closer': result.closer_than_real,
        'std_ratio': result.std_ratio,
        'roughness_ratio': result.roughness_ratio,
    }
