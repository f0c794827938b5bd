"""Images with one label each, classified by a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..datasets import SceneDataset
from ..metrics import fidelity
from ..metrics.patches import Encoder, Pair, patch_fidelity
from ..metrics.values import OF_IMAGES, Value, patch_values
from ..samples import SampleSpec
from ..scenes import LabelledPatchSplit, LabelledPatchSplitter
from ..systems import Generator
from ..trainers.patch_encoder import train_patch_encoder
from ..trainers.scene_classifier import SceneClassifierConfig
from .base import Comparison, Fidelity, Task, on_cpu, one_date, whole
from .downstream import Downstream, Network, Record
from .spectrum import METRICS, compared_spectra, spectral_record


@dataclass(frozen=True)
class SceneClassifier(Network):
    """A downstream classifier of images; arguments as for :class:`Network`."""

    kind = 'scene'

    name: str = 'cnn2d'
    config: SceneClassifierConfig = field(default_factory=SceneClassifierConfig)


class LabelledImages(Task):
    """Images (C, H, W) with labels."""

    kind = 'scene'
    splits = (LabelledPatchSplit, LabelledPatchSplitter)
    metrics = METRICS
    downstream, config, dataset = SceneClassifier, SceneClassifierConfig, SceneDataset
    models: ClassVar[Mapping[str, Downstream]] = {
        name: SceneClassifier(name, SceneClassifierConfig(name))  # type: ignore[arg-type]
        for name in ('cnn2d', 'cnn3d', 'alexnet', 'vgg16', 'resnet18')
    }

    def as_images(self, pair: Pair, date: int = 0) -> Pair:
        """Images whose label is that of every pixel."""
        image, label = pair
        return image, label[:, None, None].expand(len(image), *image.shape[-2:])

    def encoder(self, train: Pair, spec: SampleSpec, seed: int = 0) -> Encoder:
        """Learnt from images whose every pixel has the image's label."""
        return train_patch_encoder(*self.as_images(train), spec.num_classes, spec.ignore_index, seed)

    def fidelity(self, sides: Sequence[Pair], spec: SampleSpec, encoder: Encoder | None, seed: int = 0) -> Record:
        """Of images as pairs whose mask is their label all over, and of their mean spectra."""
        encoder = encoder or self.encoder(sides[0], spec, seed)
        pairs, means = ([look(side) for side in sides] for look in (self.as_images, mean_spectra))
        return {
            'images': patch_fidelity(pairs[0], pairs[1], pairs[2], one_date(spec), encoder, seed),
            'mean spectra': fidelity(means[0], means[1], means[2], spec.num_classes),
        }

    def comparisons(self, sides: Sequence[Pair], spec: SampleSpec, per_class: int, seed: int = 0) -> list[Comparison]:
        """Of all images, and of ``per_class`` mean spectra of each class."""
        encoder, known = self.encoder(sides[0], spec, seed), self.as_images(sides[0])
        plain = one_date(spec)

        def measure(test: Pair, fake: Pair) -> dict[str, Value]:
            result = patch_fidelity(known, self.as_images(test), self.as_images(fake), plain, encoder, seed)
            return patch_values(result, OF_IMAGES)

        means = [mean_spectra(side) for side in sides]
        of_means = compared_spectra(means, spec, per_class, seed, 'mean spectra: ', 'Mean spectra')
        return [Comparison('', measure, sides), of_means]

    def study_fidelity(self, train: Any, test: Any, seed: int, inception: Path | None = None) -> Fidelity:
        """Of the mean spectra of 100 images of each class."""
        classes, real = test.spec.num_classes, [mean_spectra(whole(part)) for part in (train, test)]
        labels = torch.arange(classes).repeat(100)

        def measure(generator: Generator) -> Record:
            fake = on_cpu(generator.sample(len(labels), labels, seed=seed))
            return spectral_record(real[0], real[1], mean_spectra((fake['image'], fake['label'])), classes)

        return measure


def mean_spectra(pair: Pair) -> Pair:
    """Mean spectra (n, C) of images (n, C, H, W), and their labels."""
    return pair[0].mean(dim=(-2, -1)), pair[1]
