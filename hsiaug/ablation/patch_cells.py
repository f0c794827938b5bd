"""How a cell with patches and masks is measured."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

from ..datasets import SyntheticDataset
from ..datasets.patches import PatchDataset
from ..functional import spectral_angle
from ..generators.two_stream_diffusion import TwoStreamDiffusion
from ..metrics.patches import patch_fidelity
from ..metrics.segmentation import segmentation_scores
from ..scenes.patches import PatchSplit, PatchSplitter
from ..trainers import training_data
from ..trainers.patch_encoder import train_patch_encoder
from ..trainers.segmentation import predict_masks, train_segmenter
from .cells import Group, finite
from .plan import Arm, Segmenter

FIDELITY_SAMPLES = 400
"""Synthetic pairs of which the fidelity is measured; fixed, since FID depends on it."""


class PatchGroup(Group[Segmenter]):
    """Patches of one split, segmented by a network."""

    split: PatchSplit
    real: PatchDataset

    def _open(self) -> None:
        self.split = cast(PatchSplitter, self.setting.splitter)(self.scene, self.seed)
        self.real = PatchDataset.from_scene(self.scene, self.split, 'train')
        self.val, self.test = (PatchDataset.from_scene(self.scene, self.split, part) for part in ('val', 'test'))  # type: ignore[arg-type]
        self.data = training_data(self.scene, self.split)
        self._drawn: dict[str, PatchDataset] = {}

    @property
    def test_count(self) -> int:
        """Number of test patches."""
        return len(self.test)

    def _candidates(self, downstream: Segmenter) -> list[Segmenter]:
        config = downstream.config
        return [
            replace(downstream, config=replace(config, steps=steps, learning_rate=rate))
            for steps in downstream.steps or (config.steps,)
            for rate in downstream.learning_rates or (config.learning_rate,)
        ]

    def _train(self, downstream: Segmenter, dataset: Any, seed: int) -> Any:
        return train_segmenter(dataset, downstream.config, seed, self.device)

    def _scores(self, model: Any, test: bool) -> dict[str, Any]:
        part, spec = self.test if test else self.val, self.real.spec
        scores = segmentation_scores(predict_masks(model, part.image), part.mask, spec.num_classes, spec.ignore_index)
        return {**dataclasses.asdict(scores), 'per_class': scores.iou}

    def _chosen(self, downstream: Segmenter) -> dict[str, Any]:
        return {'steps': downstream.config.steps, 'learning_rate': downstream.config.learning_rate}

    def _source(self, arm: Arm, count: int) -> PatchDataset:
        """The first ``count`` of the arm's samples: a fixed set, as in the papers, drawn once for all ratios."""
        drawn = self._drawn.get(arm.name)
        if drawn is None or len(drawn) < count:
            if arm.name not in self._drawn and len(self._drawn) > 1:
                self._drawn.pop(next(iter(self._drawn)))  # two arms in memory at a time
            most = max([count, *(round(ratio * len(self.real)) for ratio in arm.ratios or ())])
            source = SyntheticDataset(self.generator(arm), most, self.seed, arm.labels)
            batch = {key: value.cpu() for key, value in source.batch(range(most)).items()}
            drawn = self._drawn[arm.name] = PatchDataset(batch['image'], batch['mask'], self.real.spec)
        return PatchDataset(drawn.image[:count], drawn.mask[:count], self.real.spec)

    @cached_property
    def _encoder(self) -> Any:
        real = self.real
        return train_patch_encoder(real.image, real.mask, real.spec.num_classes, real.spec.ignore_index, self.seed)

    def measure_fidelity(self, arm: Arm) -> dict[str, Any]:
        """Fidelity of an arm's pairs and, of latent diffusion, of test pairs through its autoencoders and back."""
        spec, generator = self.real.spec, self.generator(arm)
        fake = generator.sample(FIDELITY_SAMPLES, seed=self.seed)
        result = patch_fidelity(
            (self.real.image, self.real.mask), (self.test.image, self.test.mask),
            (fake['image'].cpu(), fake['mask'].cpu()), spec, self._encoder,
        )  # fmt: skip
        return {
            'kind': 'segmentation',
            'scene': self.setting.scene,
            'budget': self.setting.budget,
            'arm': arm.name,
            'seed': self.seed,
            **finite(dataclasses.asdict(result)),
            'reconstruction': finite(self._reconstruction(generator)),
        }

    def _reconstruction(self, generator: Any) -> dict[str, float] | None:
        """Table 4 of SpecDM: RMSE and spectral angle of images, and the share of mask pixels kept."""
        if not isinstance(generator, TwoStreamDiffusion):
            return None
        test, ignore = self.test, self.real.spec.ignore_index
        back = {key: value.cpu() for key, value in generator.reconstruct(test.image, test.mask).items()}
        counts = test.mask != ignore
        angle = spectral_angle(back['image'].movedim(1, -1), test.image.movedim(1, -1))
        return {
            'rmse': float((back['image'] - test.image).square().mean().sqrt()),
            'sad': float(angle.mean()),
            'mask_accuracy': float((back['mask'] == test.mask)[counts].float().mean()),
        }
