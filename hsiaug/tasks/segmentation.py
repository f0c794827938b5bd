"""Patches with masks, segmented by a network; and what images with masks of one date and of two have in common."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ..datasets import PatchDataset
from ..functional import spectral_angle
from ..metrics.patches import Encoder, Pair, patch_fidelity
from ..metrics.scores import segmentation_scores
from ..metrics.values import TITLES, Value, patch_values
from ..samples import SampleSpec
from ..scenes.patches import PatchSplit, PatchSplitter
from ..systems import Generator
from ..systems.abilities import Reconstructs
from ..trainers.inception import InceptionFeatures
from ..trainers.patch_encoder import train_patch_encoder
from ..trainers.segmentation import SegmenterConfig
from .base import Comparison, Fidelity, Task, finite, on_cpu, whole
from .downstream import Downstream, Network, Record


@dataclass(frozen=True)
class Segmenter(Network):
    """A downstream segmentation network; arguments as for :class:`Network`."""

    kind = 'segmentation'

    name: str = 'segformer'
    config: SegmenterConfig = field(default_factory=SegmenterConfig)


class MaskedImages(Task):
    """Images with masks, whose pixels a network classifies.

    Attributes:
        fidelity_samples: number of synthetic pairs whose fidelity a study measures; fixed, since FID depends on it.
    """

    splits = (PatchSplit, PatchSplitter)
    fixed_set = True
    fidelity_samples: ClassVar[int]

    def study_fidelity(self, train: Any, test: Any, seed: int, inception: Path | None = None) -> Fidelity:
        """Of pairs and, of latent diffusion, of test pairs through its autoencoders and back."""
        spec, real = test.spec, (whole(train), whole(test))
        encoder: Encoder | None = (
            self.encoder(real[0], spec, seed)
            if inception is None
            else InceptionFeatures(inception, real[0][0].flatten(0, -4), spec.wavelengths)
        )

        def measure(generator: Generator) -> Record:
            fake = on_cpu(generator.sample(self.fidelity_samples, seed=seed))
            (result,) = self.fidelity((*real, (fake['image'], fake['mask'])), spec, encoder).values()
            back = self._reconstruction(generator, real[1], spec)
            return {'kind': self.kind, **finite(self._as_record(result)), 'reconstruction': finite(back)}

        return measure

    def comparisons(self, sides: Sequence[Pair], spec: SampleSpec, per_class: int, seed: int = 0) -> list[Comparison]:
        """Of all pairs."""
        encoder = self.encoder(sides[0], spec, seed)

        def measure(test: Pair, fake: Pair) -> dict[str, Value]:
            (result,) = self.fidelity((sides[0], test, fake), spec, encoder, seed).values()
            return self._values(result)

        return [Comparison('', measure, sides)]

    @abstractmethod
    def _values(self, result: Any) -> dict[str, Value]:
        """Single values of what :meth:`fidelity` gives."""

    def _as_record(self, result: Any) -> Record:
        return dataclasses.asdict(result)

    def _reconstruction(self, generator: Any, test: Pair, spec: SampleSpec) -> dict[str, float] | None:
        """Table 4 of SpecDM: RMSE and angle of images, cross entropy of masks; and the share of mask pixels kept."""
        if not isinstance(generator, Reconstructs):
            return None
        some = slice(None, None, -(-len(test[0]) // self.fidelity_samples))
        image, mask = (side[some] for side in test)
        back = on_cpu(generator.reconstruct(image, mask))
        angle = spectral_angle(back['image'].movedim(-3, -1), image.movedim(-3, -1))
        return {
            'rmse': float((back['image'] - image).square().mean().sqrt()),
            'sad': float(angle.mean()),
            'cross_entropy': generator.mask_cross_entropy(image, mask),
            'mask_accuracy': float((back['mask'] == mask)[mask != spec.ignore_index].float().mean()),
        }


class Patches(MaskedImages):
    """Patches (C, H, W) with masks (H, W)."""

    kind = 'segmentation'
    metrics = ('miou', 'f1', 'oa')
    downstream, config, dataset = Segmenter, SegmenterConfig, PatchDataset
    models: ClassVar[Mapping[str, Downstream]] = {
        'segformer': Segmenter(),
        'pfsegnet': Segmenter('pfsegnet', SegmenterConfig('pfsegnet')),
    }
    fidelity_samples = 400

    def score(self, predicted: Tensor, target: Tensor, spec: SampleSpec) -> Record:
        """Means over classes and pixels, and the IoU of each class."""
        scores = segmentation_scores(predicted, target, spec.num_classes, spec.ignore_index)
        return {**dataclasses.asdict(scores), 'per_class': scores.iou}

    def encoder(self, train: Pair, spec: SampleSpec, seed: int = 0) -> Encoder:
        """Trained on patches."""
        return train_patch_encoder(*train, spec.num_classes, spec.ignore_index, seed)

    def fidelity(self, sides: Sequence[Pair], spec: SampleSpec, encoder: Encoder | None, seed: int = 0) -> Record:
        """Of images, of masks, and of how they go together."""
        train, test, fake = sides
        return {'pairs': patch_fidelity(train, test, fake, spec, encoder or self.encoder(train, spec, seed), seed)}

    def _values(self, result: Any) -> dict[str, Value]:
        return patch_values(result, tuple(TITLES))
