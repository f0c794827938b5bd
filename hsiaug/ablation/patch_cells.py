"""How a cell with images is measured: patches with masks, and what other images have in common with them."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar, TypeVar, cast

from torch import Tensor

from ..datasets import SyntheticDataset, scene_dataset
from ..datasets.patches import HeldImages
from ..functional import spectral_angle
from ..metrics.patches import patch_fidelity
from ..metrics.segmentation import segmentation_scores
from ..scenes.patches import PARTS, PatchSplit, PatchSplitter
from ..systems import Generator
from ..systems.abilities import Reconstructs
from ..systems.fit import training_data
from ..trainers.patch_encoder import train_patch_encoder
from ..trainers.segmentation import predict_masks, train_segmenter
from .cells import NetworkGroup, finite
from .plan import Arm, Detector, Segmenter

P = TypeVar('P', Segmenter, Detector)


class ImageGroup(NetworkGroup[P]):
    """Images with masks of one split, whose pixels a network classifies."""

    split: PatchSplit
    real: HeldImages
    val: HeldImages
    test: HeldImages
    fidelity_samples: ClassVar[int] = 400
    """Synthetic pairs of which the fidelity is measured; fixed, since FID depends on it."""

    def _open(self) -> None:
        self.split = cast(PatchSplitter, self.setting.splitter)(self.scene, self.seed)
        parts: Any = [scene_dataset(self.scene, self.split, part) for part in PARTS]
        self.real, self.val, self.test = parts
        self.data = training_data(self.scene, self.split)
        self._drawn: dict[str, HeldImages] = {}

    @property
    def shown(self) -> HeldImages:
        """Real images for figures."""
        return self.test

    @abstractmethod
    def _predict(self, model: Any, image: Tensor) -> Tensor:
        """Masks of images."""

    @abstractmethod
    def _compare(self, predicted: Tensor, mask: Tensor) -> dict[str, Any]:
        """The study's metrics and ``per_class``."""

    @abstractmethod
    def _fidelity(self, image: Tensor, mask: Tensor) -> dict[str, Any]:
        """Fidelity of synthetic images and masks."""

    def _scores(self, model: Any, test: bool) -> dict[str, Any]:
        part = self.test if test else self.val
        return self._compare(self._predict(model, part.image), part.mask)

    def _source(self, arm: Arm, count: int) -> HeldImages | Generator:
        """The first ``count`` of the arm's samples: a fixed set, as in the papers, drawn once for all ratios.

        Of a live arm the generator itself.
        """
        if arm.live:
            return self.generator(arm)
        drawn, kind, spec = self._drawn.get(arm.name), type(self.real), self.real.spec
        if drawn is None or len(drawn) < count:
            if arm.name not in self._drawn and len(self._drawn) > 1:
                self._drawn.pop(next(iter(self._drawn)))  # two arms in memory at a time
            most = max([count, *(round(ratio * len(self.real)) for ratio in arm.ratios or ())])
            source = SyntheticDataset(self.generator(arm), most, self.seed, arm.labels)
            batch = {key: value.cpu() for key, value in source.batch(range(most)).items()}
            drawn = self._drawn[arm.name] = kind(batch['image'], batch['mask'], spec)
        return kind(drawn.image[:count], drawn.mask[:count], spec)

    def measure_fidelity(self, arm: Arm) -> dict[str, Any]:
        """Fidelity of an arm's pairs and, of latent diffusion, of test pairs through its autoencoders and back."""
        generator = self.generator(arm)
        fake = generator.sample(self.fidelity_samples, seed=self.seed)
        return {
            'kind': self.real.spec.kind,
            'scene': self.setting.scene,
            'budget': self.setting.budget,
            'arm': arm.name,
            'seed': self.seed,
            **finite(self._fidelity(fake['image'].cpu(), fake['mask'].cpu())),
            'reconstruction': finite(self._reconstruction(generator)),
        }

    def _reconstruction(self, generator: Any) -> dict[str, float] | None:
        """Table 4 of SpecDM: RMSE and spectral angle of images, and the share of mask pixels kept."""
        if not isinstance(generator, Reconstructs):
            return None
        some = slice(None, None, -(-len(self.test) // self.fidelity_samples))
        image, mask = self.test.image[some], self.test.mask[some]
        back = {key: value.cpu() for key, value in generator.reconstruct(image, mask).items()}
        counts = mask != self.real.spec.ignore_index
        angle = spectral_angle(back['image'].movedim(-3, -1), image.movedim(-3, -1))
        return {
            'rmse': float((back['image'] - image).square().mean().sqrt()),
            'sad': float(angle.mean()),
            'mask_accuracy': float((back['mask'] == mask)[counts].float().mean()),
        }


class PatchGroup(ImageGroup[Segmenter]):
    """Patches of one split, segmented by a network."""

    def _train(self, downstream: Segmenter, dataset: Any, seed: int) -> Any:
        return train_segmenter(dataset, downstream.config, seed, self.device)

    def _predict(self, model: Any, image: Tensor) -> Tensor:
        return predict_masks(model, image)

    def _compare(self, predicted: Tensor, mask: Tensor) -> dict[str, Any]:
        spec = self.real.spec
        scores = segmentation_scores(predicted, mask, spec.num_classes, spec.ignore_index)
        return {**dataclasses.asdict(scores), 'per_class': scores.iou}

    @cached_property
    def _encoder(self) -> Any:
        real = self.real
        return train_patch_encoder(real.image, real.mask, real.spec.num_classes, real.spec.ignore_index, self.seed)

    def _fidelity(self, image: Tensor, mask: Tensor) -> dict[str, Any]:
        train, test = ((part.image, part.mask) for part in (self.real, self.test))
        return dataclasses.asdict(patch_fidelity(train, test, (image, mask), self.real.spec, self._encoder))
